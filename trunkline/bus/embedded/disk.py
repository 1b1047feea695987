"""Room on the file system of the home folder: how much there is, how much the broker needs, and what an error of a file says of it."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from trunkline.core.errors import UnavailableError

LEAST_FREE = 100_000_000
"""Bytes that must be free before the broker is started. A start rewrites indexes and snapshots of every partition, and a broker that
finds no room for them halts again at once."""
LITTLE_FREE = 1_000_000_000
"""Bytes below which a warning is given while the broker runs."""
LEAST_FILES = 500
"""Files that must be free, where the file system counts them: each partition has some, and so has each segment."""
FULL_CODE, LITTLE_CODE, FOLDER_CODE = "embedded.disk_full", "embedded.disk_low", "embedded.home"
_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Room:
    """What is free for this user on the file system of a folder. `files` is None where the file system has no limit of its own."""

    mount: str
    bytes: int
    files: int | None

    @property
    def least(self) -> bool:
        """Whether it is enough to start a broker."""
        return self.bytes >= LEAST_FREE and (self.files is None or self.files >= LEAST_FILES)

    @property
    def little(self) -> bool:
        """Whether it is so little that somebody should make room."""
        return self.bytes < LITTLE_FREE or (self.files is not None and self.files < 4 * LEAST_FILES)

    def __str__(self) -> str:
        files = f" and {self.files:,} files" if self.files is not None and self.files < 4 * LEAST_FILES else ""
        return f"{size(self.bytes)}{files} free on the file system at {self.mount}"


def room_at(folder: Path) -> Room:
    """The room at a folder, which need not be there yet. Raises OSError."""
    here = next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
    found = os.statvfs(here)
    mount = next((one for one in (here, *here.parents) if one.is_mount()), Path("/"))
    return Room(str(mount), found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def no_room(room: Room, home: Path) -> UnavailableError:
    """That a broker can't be started for want of room."""
    return _full(f"there is no room for the embedded broker: {room}", home, room)


def ended_full(cause: str, home: Path) -> UnavailableError:
    """That a broker ended because the disk was full, as its log says."""
    return _full(f"the embedded broker ended, because the disk is full ({cause})", home)


def little_room(room: Room, home: Path) -> UnavailableError:
    """That the disk is nearly full: a warning, as an error that nobody raises."""
    return UnavailableError(
        f"{room}: the embedded broker ends when that is used up",
        where=str(home),
        hint=f"make room before that: keep {size(LITTLE_FREE)} free",
        code=LITTLE_CODE,
    )


def folder_error(error: OSError, home: Path) -> UnavailableError:
    """What an error of the operating system on a file of the broker's means: a full disk, or a folder that can't be used."""
    if error.errno in _FULL:
        return _full(f"there is no room for the embedded broker ({error.strerror})", home)
    return UnavailableError(
        f"the folder can't be used: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""),
        where=str(home),
        hint="make the folder one that this user can write, or name another by --home or TRUNKLINE_HOME",
        code=FOLDER_CODE,
    )


def _full(what: str, home: Path, room: Room | None = None) -> UnavailableError:
    if room is None:
        with contextlib.suppress(OSError):
            room = room_at(home)
        what += f"; {room}" if room is not None else ""
    files = room is not None and room.bytes >= LEAST_FREE and room.files is not None and room.files < LEAST_FILES
    needed = f"{LEAST_FILES} files" if files else size(LEAST_FREE)
    return UnavailableError(
        f"{what}, and it needs {needed} to start",
        where=str(home),
        hint="make room: it starts by itself then, and goes on with what it has acknowledged",
        code=FULL_CODE,
    )


def size(count: int) -> str:
    """Bytes as people write them: `0 bytes`, `3.5 MB`, `2.0 GB`."""
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= least:
            return f"{count / least:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{count} bytes"
