"""Who owns a home folder: one process at a time, by a lock that ends with the process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from io import TextIOWrapper
from pathlib import Path

from trunkline.bus.embedded.disk import folder_error
from trunkline.core.errors import UnavailableError

_FILE = "lock"


class FolderLock:
    """The lock on a home folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._lock: TextIOWrapper | None = None

    @property
    def is_held(self) -> bool:
        """Whether this object has it."""
        return self._lock is not None

    @property
    def is_in_place(self) -> bool:
        """Whether the folder that was locked is still there under its name."""
        if self._lock is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self._home / _FILE))  # noqa: PTH116 (both alike)
        except OSError:
            return False

    def take(self) -> None:
        """Makes the folder and takes it; nothing where that was done.

        Raises `UnavailableError`: `embedded.in_use` where another process has it, `embedded.home` and `embedded.disk_full` where it
        can't be written.
        """
        if self._lock is not None:
            return
        try:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = (self._home / _FILE).open("a+", encoding="utf-8")
        except OSError as error:
            raise folder_error(error, self._home) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise UnavailableError(
                f"another Trunkline, process {owner}, runs its broker in this folder",
                where=str(self._home),
                hint="use that broker by --bootstrap, or another folder by TRUNKLINE_HOME",
                code="embedded.in_use",
            ) from error
        except OSError as error:
            lock.close()
            raise folder_error(error, self._home) from error
        self._lock = lock
        try:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        except OSError as error:
            self.release()
            raise folder_error(error, self._home) from error

    def release(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            with contextlib.suppress(OSError):  # what it could not write is a number for people
                self._lock.close()
            self._lock = None
