"""How far each file was read, and how a file is known again: the position of the `file` source.

A file is known by device, inode and a fingerprint of what was read of it; where device or inode changed (a copy, another mount),
by the whole of what was read. The position holds one short entry for each of the files that were read last. What was finished
before them is remembered by a mark: a file is old if it comes before the mark in two orders, that of modification times and that
of arrival. The kernel sets the ctime when a file is moved in, so one that arrives late with an old mtime is still new.

So the mark may never come to cover a file that is unread: what has an older time than the mark is read in the order of arrival.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, Literal

from trunkline.core.errors import ConfigurationError

Order = tuple[int, str]
"""Modification time in nanoseconds, then name."""
State = Literal["r", "s", "e", "d"]
"""r: reading; s: skipping an over-long line; e: read to its end; d: done, nothing changed since for the idle time."""

HEAD = 1024
TAIL = 256
FOLLOWED = 48
"""So many entries are kept (about 4 KB)."""
_AFTER_ALL = (2**63, "")
MOST_FOLLOWED = 192
"""So many at most, while files that were just read are not idle yet."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as a listing of the folder showed it; times in nanoseconds."""

    name: str
    path: str
    dev: int
    ino: int
    mtime: int
    ctime: int
    size: int

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.dev, self.ino

    @property
    def order(self) -> Order:
        """Files are read by modification time, equal ones by name."""
        return self.mtime, self.name

    @property
    def arrival(self) -> tuple[int, Order]:
        """When it came, or was changed last; of those that came at once the order."""
        return self.ctime, self.order


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one file was read.

    `offset` is the next record's: a byte of the plain or decompressed file, or an item of a JSON document. `base` is the number
    of bytes on disk that `mark` and `crc` vouch for. `tag` is what the file's event ids begin with, empty before the first.
    """

    dev: int
    ino: int
    mtime: int
    base: int = 0
    offset: int = 0
    line: int = 1
    crc: int = 0
    state: State = "r"
    mark: str = ""
    tag: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """Device and inode."""
        return self.dev, self.ino

    def encode(self) -> str:
        """One short text."""
        numbers = (self.dev, self.ino, self.mtime, self.base, self.offset, self.line, self.crc)
        return ".".join([*(f"{number:x}" for number in numbers), self.state, self.mark, self.tag])

    @classmethod
    def decode(cls, text: str) -> Progress:
        """Raises ValueError for what `encode` didn't write."""
        *numbers, state, mark, tag = text.split(".")
        dev, ino, mtime, base, offset, line, crc = (int(number, 16) for number in numbers)
        if state not in ("r", "s", "e", "d"):
            raise ValueError(f"unknown state {state!r}")
        return cls(dev, ino, mtime, base, offset, line, crc, state, mark, tag)  # type: ignore[arg-type]


@dataclass(slots=True)
class Ledger:
    """The position, unpacked. `generation` counts the files ever begun, so that a rewritten file's ids differ from the old one's."""

    files: dict[tuple[int, int], Progress] = field(default_factory=dict)
    generation: int = 0
    mark: Order | None = None
    """The last of the finished files that are not in `files`, by order."""
    last_arrival: tuple[int, Order] = (0, (0, ""))
    """The last of those by arrival."""

    @classmethod
    def load(cls, position: dict[str, Any] | None) -> Ledger:
        """Raises `ConfigurationError` for a position that this version can't read."""
        if position is None:
            return cls()
        try:
            if position["v"] != 1:
                raise ValueError(f"its version is {position['v']}")
            entries = [Progress.decode(text) for text in position["files"]]
            ledger = cls({entry.key: entry for entry in entries}, int(position["generation"]))
            if position.get("mark"):
                ledger.mark = _order(position["mark"])
                # Positions of former versions knew no order among those that came at once: all of them were finished.
                ledger.last_arrival = (int(position["mark_ctime"]), _order(position.get("mark_last", _AFTER_ALL)))
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ConfigurationError(
                f"the position of this file source can't be read: {error}",
                hint="reset the source's position",
                code="source.position",
            ) from error
        return ledger

    def dump(self) -> dict[str, Any]:
        """The position as data."""
        position: dict[str, Any] = {
            "v": 1,
            "generation": self.generation,
            "files": [entry.encode() for entry in self.files.values()],
        }
        if self.mark is not None:
            position["mark"] = list(self.mark)
            position["mark_ctime"], position["mark_last"] = self.last_arrival[0], list(self.last_arrival[1])
        return position

    def is_old(self, file: Seen) -> bool:
        """Whether an unknown file was read so long ago that only the mark remembers it."""
        return self.came_before_the_mark(file) and file.arrival <= self.last_arrival

    def came_before_the_mark(self, file: Seen) -> bool:
        """Whether a file's modification time lies before that of files which only the mark remembers."""
        return self.mark is not None and file.order <= self.mark

    def put(self, entry: Progress) -> None:
        """Sets a file's progress, as the latest."""
        self.files.pop(entry.key, None)
        self.files[entry.key] = entry

    def shrink(self, listing: Iterable[Seen], unread: Iterable[Seen]) -> None:
        """Forgets the oldest done files: those that are gone, then those that the mark can stand for without covering an unread one."""
        present = {file.key: file for file in listing}
        for key in [key for key in self.files if key not in present]:
            if len(self.files) <= FOLLOWED:
                return
            del self.files[key]
        waiting = sorted(unread, key=lambda file: file.order)
        orders = [file.order for file in waiting]
        first_arrivals = list(accumulate((file.arrival for file in waiting), min))
        for file in sorted((present[key] for key, entry in self.files.items() if entry.state == "d"), key=self.turn):
            if len(self.files) <= FOLLOWED:
                return
            mark = max(self.mark, file.order) if self.mark is not None else file.order
            last_arrival = max(self.last_arrival, file.arrival)
            before = bisect_right(orders, mark)
            if before and first_arrivals[before - 1] <= last_arrival:
                continue
            self.mark, self.last_arrival = mark, last_arrival
            del self.files[file.key]

    def turn(self, file: Seen) -> tuple[int, tuple[int, Order] | Order]:
        """When a file is read that is not known: first what came late, in the order in which it came."""
        return (0, file.arrival) if self.came_before_the_mark(file) else (1, file.order)


def _order(data: Any) -> Order:
    return int(data[0]), str(data[1])


def fingerprint(handle: int, base: int) -> str:
    """The first KiB and the last 256 bytes of the first `base` bytes of an open file, hashed."""
    head = os.pread(handle, min(HEAD, base), 0)
    tail = os.pread(handle, min(TAIL, base), max(0, base - TAIL))
    return hashlib.sha256(head + b"|" + tail).hexdigest()[:12]


def checksum(handle: int, size: int) -> int:
    """CRC-32 of the first `size` bytes of an open file."""
    crc = at = 0
    while at < size:
        data = os.pread(handle, min(2**20, size - at), at)
        if not data:
            break
        crc = zlib.crc32(data, crc)
        at += len(data)
    return crc


def begun(file: Seen) -> Progress:
    """The progress of a file of which nothing was read."""
    return Progress(file.dev, file.ino, file.mtime)


def rekeyed(entry: Progress, file: Seen) -> Progress:
    """The progress of a file that is now another inode."""
    return replace(entry, dev=file.dev, ino=file.ino, mtime=file.mtime)
