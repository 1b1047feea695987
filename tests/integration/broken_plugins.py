"""A package of plug-ins that are broken, each in a way of its own, installed by putting its folder on PYTHONPATH."""

from __future__ import annotations

from pathlib import Path

MODULE = '''
"""Sinks and sources that fail while they are made, opened or asked."""

import asyncio
import os
import time

from trunkline.core.contracts import Promises, Sink, Source, SourceBatch
from trunkline.core.errors import FatalError, UnavailableError
from trunkline.core.settings import Settings
from trunkline.core.verdicts import Ok


class NoSettings(Settings):
    """Nothing to set."""


class Working(Sink):
    settings_type = NoSettings
    summary = "Takes everything."
    promises = Promises(idempotent=True, max_batch=100)

    async def write(self, batch):
        return [Ok("") for _ in batch.events]


class RaisesWhenMade(Working):
    def __init__(self, settings, connection=None):
        raise ValueError("made in a bad way")


class RaisesInOpen(Working):
    async def open(self, context):
        raise KeyError("account")


class FatalInOpen(Working):
    async def open(self, context):
        raise FatalError("the account is closed", hint="open another one", code="acme.closed")


class AwayInOpen(Working):
    async def open(self, context):
        raise UnavailableError("nobody answers at 192.0.2.1", code="acme.away")


class WaitsInOpen(Working):
    async def open(self, context):
        await asyncio.Event().wait()


class BlocksInOpen(Working):
    async def open(self, context):
        while True:
            time.sleep(1)


class ExitsInOpen(Working):
    async def open(self, context):
        raise SystemExit("wrong password")


class DiesInOpen(Working):
    async def open(self, context):
        os.abort()


class RaisesInClose(RaisesInOpen):
    async def close(self):
        raise RuntimeError("closing failed too")


class NotAPlugin:
    pass


class RaisesInSplits(Source):
    settings_type = NoSettings
    summary = "Has no splits."

    async def open(self, context):
        pass

    def splits(self):
        raise TypeError("no splits today")

    async def poll(self, split, position):
        return SourceBatch(pause=60.0)


class RaisesInPoll(RaisesInSplits):
    summary = "Can't be polled."

    def splits(self):
        return ["one"]

    async def poll(self, split, position):
        raise ZeroDivisionError("polled by zero")


class BlocksInSplits(RaisesInSplits):
    summary = "Never says its splits."

    def splits(self):
        while True:
            time.sleep(1)


class AsyncSplits(RaisesInSplits):
    summary = "Has a coroutine where the contract has a function."

    async def splits(self):
        return ["one"]


class WrongSplits(RaisesInSplits):
    summary = "Has splits that are no texts."

    def splits(self):
        return [1, 2]


class LacksWrite(Sink):
    settings_type = NoSettings
    summary = "Lacks what every sink has."
    promises = Promises(idempotent=True)


class WrongSignature(Working):
    def __init__(self):
        pass


class BlocksWhenMade(Working):
    def __init__(self, settings, connection=None):
        while True:
            time.sleep(1)


class DiesWhenMade(Working):
    def __init__(self, settings, connection=None):
        os.abort()
'''

NOISY = '''
"""A sink that works, in a module that prints megabytes, forks a process and leaves a thread that never ends."""

import os
import sys
import threading
import time

from acme_plugins import Working

print("noise " * 500_000)
print("noise " * 500_000, file=sys.stderr)
threading.Thread(target=lambda: time.sleep(3600), name="acme").start()
if "pytest" not in sys.modules and os.fork() == 0:
    time.sleep(0.1)
    if "trialprocess" not in sys.argv[0]:
        os._exit(0)  # where it is tried out the child goes on as if it were the parent


class Noisy(Working):
    summary = "Works."
'''

SINKS = {
    "works": "acme_plugins:Working",
    "raises_when_made": "acme_plugins:RaisesWhenMade",
    "raises_in_open": "acme_plugins:RaisesInOpen",
    "fatal_in_open": "acme_plugins:FatalInOpen",
    "away_in_open": "acme_plugins:AwayInOpen",
    "waits_in_open": "acme_plugins:WaitsInOpen",
    "blocks_in_open": "acme_plugins:BlocksInOpen",
    "exits_in_open": "acme_plugins:ExitsInOpen",
    "dies_in_open": "acme_plugins:DiesInOpen",
    "raises_in_close": "acme_plugins:RaisesInClose",
    "no_plugin": "acme_plugins:NotAPlugin",
    "no_attribute": "acme_plugins:Missing",
    "no_module": "acme_nowhere:Sink",
    "no_library": "acme_needs_library:Sink",
    "bad_syntax": "acme_bad_syntax:Sink",
    "raises_on_import": "acme_raises:Sink",
    "exits_on_import": "acme_exits:Sink",
    "dies_on_import": "acme_dies:Sink",
    "blocks_on_import": "acme_blocks:Sink",
    "lacks_write": "acme_plugins:LacksWrite",
    "wrong_signature": "acme_plugins:WrongSignature",
    "blocks_when_made": "acme_plugins:BlocksWhenMade",
    "dies_when_made": "acme_plugins:DiesWhenMade",
    "noisy": "acme_noisy:Noisy",
}
SOURCES = {
    "raises_in_splits": "acme_plugins:RaisesInSplits",
    "raises_in_poll": "acme_plugins:RaisesInPoll",
    "blocks_in_splits": "acme_plugins:BlocksInSplits",
    "async_splits": "acme_plugins:AsyncSplits",
    "wrong_splits": "acme_plugins:WrongSplits",
}


def install(folder: Path) -> Path:
    """Writes the package; the folder belongs on PYTHONPATH."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "acme_plugins.py").write_text(MODULE, encoding="utf-8")
    (folder / "acme_needs_library.py").write_text("import a_library_that_is_not_installed\n", encoding="utf-8")
    (folder / "acme_bad_syntax.py").write_text("def sink(:\n", encoding="utf-8")
    function = "def up(value):\n    return value\n\n\n"  # what a check that runs no code finds
    (folder / "acme_raises.py").write_text(f"{function}raise RuntimeError('not on this machine')\n", encoding="utf-8")
    (folder / "acme_dies.py").write_text("import os\nos.abort()\n", encoding="utf-8")
    (folder / "acme_blocks.py").write_text("import time\nwhile True:\n    time.sleep(1)\n", encoding="utf-8")
    (folder / "acme_noisy.py").write_text(NOISY, encoding="utf-8")
    (folder / "acme_exits.py").write_text(f"{function}raise SystemExit(4)\n", encoding="utf-8")
    info = folder / "acme_plugins-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-plugins\nVersion: 1.0\n", encoding="utf-8")
    lines = ["[trunkline.sinks]", *(f"{name} = {value}" for name, value in SINKS.items())]
    lines += ["[trunkline.sources]", *(f"{name} = {value}" for name, value in SOURCES.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
