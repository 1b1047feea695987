"""Moving a done file into another folder, on another device too."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

_CHUNK = 2**20


def move_file(name: str, folder: int, opened: Callable[[], int], target: int) -> None:
    """Moves the file of that name from one open folder into another, under a name that is free there.

    `opened` gives a descriptor of the file, for a copy where the folders are on two devices. A file that is gone is moved already.
    Raises OSError.
    """
    free, number = name, 0
    while _is_taken(free, target):
        number += 1
        free = f"{name}.{number}"
    try:
        os.rename(name, free, src_dir_fd=folder, dst_dir_fd=target)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        try:
            source = opened()
        except FileNotFoundError:
            return
        try:
            _copy(source, free, target)
        finally:
            os.close(source)
        os.unlink(name, dir_fd=folder)


def _is_taken(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _copy(source: int, name: str, target: int) -> None:
    """A copy with the file's mode and times. It gets its name only when it is whole and on disk."""
    partial = f".{name}.part"
    with suppress(FileNotFoundError):
        os.unlink(partial, dir_fd=target)  # what an attempt that died left; were it a link, it is not followed
    copy = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
    try:
        status = os.fstat(source)
        at = 0
        while data := os.pread(source, _CHUNK, at):
            at += len(data)
            while data:
                data = data[os.write(copy, data) :]
        os.fchmod(copy, status.st_mode & 0o7777)
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(copy)
    finally:
        os.close(copy)
    os.rename(partial, name, src_dir_fd=target, dst_dir_fd=target)
