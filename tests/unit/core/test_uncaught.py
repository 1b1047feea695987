"""What ends a thread or a process without anybody having caught it."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import threading
from trunkline.core.redaction import learn
from trunkline.core.uncaught import redact_what_nobody_catches
redact_what_nobody_catches()
learn("canary-of-the-thread")
def broken():
    raise ValueError("not canary-of-the-thread")
class Left:
    def __del__(self):
        broken()
one = threading.Thread(target=broken)
one.start()
one.join()
Left()
broken()
"""


def test_it_is_told_with_its_traceback_and_without_its_secrets() -> None:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.count("ValueError: not ********") == 3
    assert "canary" not in ended.stderr.replace('learn("canary', "").replace('not canary-of-the-thread")', "")
