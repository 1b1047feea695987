"""Processes that never outlive who started them, also when that one is killed: `python -m tests.chaos.faults.tied MODULE ARGUMENTS…`.

Runs the module as `python -m` does, and ends at once when its standard input, a pipe that nobody writes to, comes to its end.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def tied(module: str, *arguments: str) -> Sequence[str]:
    """The command that runs a module so. It is started in ROOT, with `lifeline()` as its standard input."""
    return (sys.executable, "-m", "tests.chaos.faults.tied", module, *arguments)


@functools.cache
def lifeline() -> int:
    """The end of a pipe whose other end this process holds for as long as it lives, and hands to nobody."""
    return os.pipe()[0]


def _end_with_input() -> None:
    while os.read(0, 1):  # not `sys.stdin`: its lock would be missed at the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    del sys.argv[0]
    sys.path[0] = str(ROOT)
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
