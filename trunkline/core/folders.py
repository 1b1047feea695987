"""Folders on the worker's disk that manifests name: which of them the operator allows, and ways in that no link leads out of.

Who writes a manifest is not who runs the worker. `TRUNKLINE_FILE_ROOTS` names the folders under which plug-ins may read and write data,
separated as in PATH; without it any folder may be named but those in which nothing is data: the system's own (`/proc`, `/sys`, `/dev`) and
the worker's home. What counts is where a folder really lies: it is asked of the descriptor
that is used from then on, so a link that is swapped between a check and its use changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trunkline.core.errors import ConfigurationError
from trunkline.core.secretpolicy import is_no_data

ROOTS = "TRUNKLINE_FILE_ROOTS"
READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""How files are opened for reading: a pipe that was put in a file's place would be waited on for ever."""


def allowed_roots() -> tuple[str, ...]:
    """The folders that the operator of this worker allows, without links; empty where any is allowed."""
    named = os.environ.get(ROOTS, "").split(os.pathsep)
    return tuple(os.path.realpath(one) for one in named if one.strip())


def check_allowed(place: str | Path, named: str | Path, setting: str) -> None:
    """Raises `ConfigurationError` (`file.not_allowed`) where `place`, which `named` in `setting` leads to, is under no allowed root, or
    where it lies in what is no data: `/proc`, `/sys`, `/dev`, and the worker's home, with the password of its broker.
    """
    real = os.path.realpath(place)
    if is_no_data(real):
        raise ConfigurationError(
            f"{str(named)!r} lies in a folder of the system, or of the worker's own data",
            where=setting,
            hint="name a folder for data",
            code="file.not_allowed",
        )
    if not is_allowed(real):
        roots = allowed_roots()
        raise ConfigurationError(
            f"{str(named)!r} is not under a folder that this worker allows",
            where=setting,
            hint=f"name a folder under {', '.join(roots)}, or have the worker's operator add to {ROOTS}",
            code="file.not_allowed",
        )


def is_allowed(place: str) -> bool:
    """Whether a path without links leads to where plug-ins may read and write."""
    roots = allowed_roots()
    return not is_no_data(place) and (not roots or any(is_within(place, root) for root in roots))


def is_within(place: str, folder: str) -> bool:
    """Whether a path without links is a folder or lies in it, however deep."""
    return place == folder or place.startswith(folder.rstrip(os.sep) + os.sep)


def place_of(descriptor: int, path: str) -> str:
    """Where an open file or folder really lies: `path` is the way it was opened by. Empty where that can't be told any more."""
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    except OSError:
        # No such file system: what the path leads to now is it only if it is the very same file.
        real = os.path.realpath(path)
        try:
            same = os.path.samestat(Path(real).lstat(), os.fstat(descriptor))
        except OSError:
            return ""
        return real if same else ""


def make_folder(folder: str | Path, setting: str) -> None:
    """Makes a folder and those above it. Raises OSError, and `ConfigurationError` (`file.not_allowed`) before anything is made."""
    check_allowed(folder, folder, setting)
    Path(folder).mkdir(parents=True, exist_ok=True)


@contextmanager
def opened_folder(folder: str | Path, setting: str) -> Iterator[int]:
    """A descriptor of the folder, to open by name what is in it. `setting` names it in messages.

    The folder itself may be a link: the manifest named it. Raises OSError, and `ConfigurationError` (`file.not_allowed`) where it is
    under no allowed root.
    """
    flags = os.O_DIRECTORY | os.O_CLOEXEC
    try:
        handle = os.open(folder, os.O_RDONLY | flags)
    except PermissionError:
        # Its files may be opened by name, although it can't be listed.
        if not hasattr(os, "O_PATH"):
            raise
        handle = os.open(folder, os.O_PATH | flags)
    try:
        check_allowed(place_of(handle, str(folder)) or folder, folder, setting)
        yield handle
    finally:
        os.close(handle)


def open_regular(name: str, folder: int) -> int | None:
    """A descriptor to read the regular file of this name in an open folder; None where there is none, or a link, a pipe, a device."""
    try:
        handle = os.open(name, READ | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or _is_special(name, folder):
            return None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        return None
    return handle


def _is_special(name: str, folder: int) -> bool:
    """Whether something else than a regular file has the name: a link or a socket can't be opened at all."""
    try:
        return not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return True
