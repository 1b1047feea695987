"""The folder of a source: what is in it, and how its files are opened so that no link leads to another file than was meant."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from connectors.file.progress import Seen
from trunkline.core.errors import RetriableError
from trunkline.core.folders import READ, is_allowed, is_within, open_regular, opened_folder, place_of

Links = Literal["inside", "follow"]
_REMEMBERED = 1000


class Root:
    """The folder. It is opened anew for each look, because it may be replaced.

    With `links: inside` a symbolic link counts as the file that it leads to where that lies in the folder too, with `follow` wherever
    it lies, but never out of the roots that the worker's operator allows.
    """

    def __init__(self, path: Path, links: Links, log: Any) -> None:
        self.path = path
        self._links = links
        self._log = log
        self._told: set[str] = set()

    @contextmanager
    def opened(self) -> Iterator[int]:
        """A descriptor of the folder. Raises `RetriableError` when it can't be read, `ConfigurationError` when it is not allowed."""
        with ExitStack() as stack:
            try:
                folder = stack.enter_context(opened_folder(self.path, "path"))
            except OSError as error:
                raise self._closed(error) from error
            yield folder

    def names(self, folder: int) -> list[str]:
        """The names in the open folder."""
        try:
            return os.listdir(folder)
        except OSError as error:
            raise self._closed(error) from error

    def seen(self, name: str, folder: int) -> Seen | None:
        """A regular file in the open folder as it is now; None for everything else, and for a link that leads out."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                try:
                    status = os.stat(name, dir_fd=folder)
                except OSError as error:
                    # In a circle, or through a file or a closed folder: like one that leads to nothing.
                    self._not_followed(name, f"it leads nowhere: {error.strerror}")
                    return None
                if stat.S_ISREG(status.st_mode) and not self._may_follow(name, folder):
                    return None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(name, error) from error
        if not stat.S_ISREG(status.st_mode):
            return None
        path = str(self.path / name)
        return Seen(name, path, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)

    def open(self, file: Seen) -> int | None:
        """A descriptor of exactly the file that was listed, or None if another one or none is at its name by now.

        Raises `RetriableError` when it may not be read.
        """
        with self.opened() as folder:
            return self.open_in(file, folder)

    def open_in(self, file: Seen, folder: int) -> int | None:
        """As `open`, in the folder that is open."""
        try:
            handle = open_regular(file.name, folder)
            if handle is None:
                handle = self._through_link(file.name, folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(file.name, error) from error
        if handle is None:
            return None
        status = os.fstat(handle)
        if (status.st_dev, status.st_ino) != file.key:
            os.close(handle)
            return None
        return handle

    def leads_out(self, name: str, folder: int) -> bool:
        """Whether there is a link of this name, to a file, that is not followed."""
        try:
            link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            return link and stat.S_ISREG(os.stat(name, dir_fd=folder).st_mode) and not self._may_follow(name, folder)
        except OSError:
            return False  # a look at its files will tell

    def _may_follow(self, name: str, folder: int) -> bool:
        handle = self._through_link(name, folder)
        if handle is None:
            return False
        os.close(handle)
        return True

    def _through_link(self, name: str, folder: int) -> int | None:
        """A descriptor of the regular file that a link leads to, None where it may not be followed. Raises OSError."""
        if not stat.S_ISREG(os.stat(name, dir_fd=folder).st_mode):
            return None
        handle = os.open(name, READ, dir_fd=folder)
        # Asked of what is open: the link may lead elsewhere by now.
        if stat.S_ISREG(os.fstat(handle).st_mode) and self._allows(place_of(handle, str(self.path / name)), folder):
            return handle
        os.close(handle)
        hint = "it leads out of the folder: put the file there instead, or set `links: follow` within the allowed roots"
        self._not_followed(name, hint)
        return None

    def _not_followed(self, name: str, hint: str) -> None:
        if name not in self._told and len(self._told) < _REMEMBERED:
            self._told.add(name)
            self._log.warning("file.link_not_followed", file=str(self.path / name), hint=hint)

    def _allows(self, place: str, folder: int) -> bool:
        if not place:
            return False
        if self._links == "follow":
            return is_allowed(place)
        return is_within(place, place_of(folder, str(self.path)))

    def _closed(self, error: OSError) -> RetriableError:
        return RetriableError(f"the folder can't be read: {error.strerror}", where=str(self.path), code="file.folder")

    def _unreadable(self, name: str, error: OSError) -> RetriableError:
        where = str(self.path / name)
        return RetriableError(f"the file can't be read: {error.strerror}", where=where, code="file.read")
