"""Systems that polled sources read while they grow: a folder of files as careless programs write them, and an API with pages."""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from pathlib import Path

from aiohttp import web

from tests.chaos.history import Sent

ROTATED, HALF_WRITTEN, EQUAL_TIMES = "file rotated", "line half written", "equal timestamps"
PAGE = 100


class GrowingFolder:
    """A log that is rotated by renaming, whose last line is often half written, and beside it files with one modification time."""

    def __init__(self, folder: Path, door: str, chance: random.Random) -> None:
        self.sent: list[Sent] = []
        self.fired: Counter[str] = Counter()
        self.folder = folder
        folder.mkdir(parents=True)
        self._door = door
        self._chance = chance
        self._log = (folder / "app.log").open("ab")
        self._rotations = 0
        self._half = b""
        self._moment = time.time_ns()

    def grow(self, events: int) -> None:
        """Writes so many more events, and does one of the things that make a reader stumble."""
        what = self._chance.choice((ROTATED, HALF_WRITTEN, EQUAL_TIMES))
        self._write(self._half + b"".join(self._lines(events, "log")))
        self._half = b""
        if what == ROTATED:
            self._rotate()
        elif what == HALF_WRITTEN:
            line = self._lines(1, "log")[0]
            cut = self._chance.randrange(1, len(line))
            self._write(line[:cut])
            self._half = line[cut:]
        else:
            self._drop_equals(events)
        self.fired[what] += 1

    def end(self) -> None:
        """Writes the rest of what is half written."""
        self._write(self._half)
        self._log.close()
        self._half = b""

    def _lines(self, count: int, key: str) -> list[bytes]:
        lines = []
        for _ in range(count):
            number = len(self.sent)
            self.sent.append(Sent(f"{self._door}-{number}", self._door, key, number, time.time()))
            lines.append(json.dumps({"id": f"{self._door}-{number}", "key": key, "sequence": number}).encode() + b"\n")
        return lines

    def _write(self, data: bytes) -> None:
        self._log.write(data)
        self._log.flush()

    def _rotate(self) -> None:
        self._rotations += 1
        name = f"app.{self._rotations:04}.log"
        (self.folder / "app.log").rename(self.folder / name)
        self._write(b"".join(self._lines(1, "log")))  # a program goes on writing to the file that it has open
        self._log.close()
        self._log = (self.folder / "app.log").open("ab")

    def _drop_equals(self, events: int) -> None:
        """Whole files, each written under a name that is not read and then renamed; all have the same modification time."""
        for number in range(2):
            name = f"drop-{len(self.sent):06}-{number}.log"
            partial = self.folder / f"{name}.tmp"
            partial.write_bytes(b"".join(self._lines(max(1, events // 4), name)))
            os.utime(partial, ns=(self._moment, self._moment))
            partial.rename(self.folder / name)


class GrowingApi:
    """An API that answers by pages with what was changed at a moment or later. Many items share a moment, also across answers."""

    def __init__(self, door: str, chance: random.Random) -> None:
        self.sent: list[Sent] = []
        self.fired: Counter[str] = Counter()
        self.url = ""
        self._door = door
        self._chance = chance
        self._items: list[dict[str, object]] = []
        self._moment = 1
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Serves."""
        self._runner = web.ServerRunner(web.Server(self._answer, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Serves no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    def grow(self, events: int) -> None:
        """So many more items; seldom with a later moment than those before."""
        for _ in range(events):
            number = len(self.sent)
            if self._chance.random() < 0.02:
                self._moment += 1
            else:
                self.fired[EQUAL_TIMES] += 1
            name = f"{self._door}-{number}"
            self.sent.append(Sent(name, self._door, name, number, time.time()))
            self._items.append({"id": name, "key": name, "sequence": number, "changed": self._moment})

    def end(self) -> None:
        """Nothing is left half done here."""

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        since, page = int(request.query.get("since", "0")), int(request.query.get("page", "1"))
        found = [item for item in self._items if int(str(item["changed"])) >= since]
        return web.json_response(found[(page - 1) * PAGE : page * PAGE])
