"""Files in a local folder, one for each batch, each complete or not there."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from sinks.file.settings import FileSinkSettings
from trunkline.core.batchfile import MANIFEST_SUFFIX, BatchFile, build_file, leftovers, temporary_name
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import ConfigurationError, FatalError
from trunkline.core.folders import make_folder, open_regular, opened_folder
from trunkline.core.formats import uses_of_format
from trunkline.core.uses import Use
from trunkline.core.verdicts import Verdict

_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP})
"""Errors that no waiting mends: a person has to. All others (no space, quota, I/O) are tried again."""

_LARGEST_MANIFEST = 64 * 1024


class FileSink(Sink):
    """Writes each batch to a file of its own: temporary name, fsync, rename, fsync of the folder."""

    settings_type: ClassVar[type[FileSinkSettings]] = FileSinkSettings
    summary: ClassVar[str] = "Writes batches as CSV, JSON Lines or Avro files to a local folder."
    promises = Promises(idempotent=True, max_batch=50_000, contiguous=True)

    settings: FileSinkSettings

    def __init__(self, settings: Any, connection: Any = None) -> None:
        super().__init__(settings, connection)
        self._folder = Path(settings.folder)
        self._pipeline = ""
        self._swept: set[tuple[str, int]] = set()

    def uses(self) -> Sequence[Use]:
        """What the form of the files needs."""
        return uses_of_format(self.settings.format, "config.format")

    async def open(self, context: PluginContext) -> None:
        """Makes the folder. Raises `ConfigurationError` where it can't be made or written to."""
        self._pipeline = context.pipeline
        self._folder = Path(self.settings.folder).absolute()
        try:
            make_folder(self._folder, "folder")
        except OSError as error:
            raise ConfigurationError(
                f"the folder {self._folder} can't be made: {error.strerror}",
                hint="change `folder` or its permissions",
                code="file.folder",
            ) from error
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise ConfigurationError(
                f"the folder {self._folder} can't be written to", hint="change its permissions", code="file.folder"
            )

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """One file. No space gives `Retry` for all; a refused permission raises `FatalError`."""
        return await asyncio.to_thread(self._write, batch)

    def _write(self, batch: Batch) -> list[Verdict]:
        file = build_file(batch, self.settings, self._pipeline)
        path = self._folder / file.name
        try:
            # What is done is done in the folder that was looked at, whatever its path leads to by then.
            with opened_folder(self._folder, "folder") as folder:
                self._sweep(batch, file.name, folder)
                if file.rows:
                    self._place(file, folder)
        except OSError as error:
            if error.errno in _REFUSED or not self._folder.is_dir():
                raise FatalError(
                    f"{path} can't be written: {error.strerror}",
                    hint="mend the folder and its permissions, then restart the pipeline",
                    code="file.refused",
                ) from error
            return file.retry(f"{path} can't be written: {error.strerror}")
        return file.verdicts(str(path))

    def _place(self, file: BatchFile, folder: int) -> None:
        if _read(file.name, folder, len(file.content)) != file.content:
            _put(file.name, folder, file.content)
        if self.settings.manifest:
            manifest = file.name + MANIFEST_SUFFIX
            found = _read(manifest, folder)
            if found is None or not file.is_described_by(found):
                _put(manifest, folder, file.manifest(datetime.now(UTC)))
        # Also when nothing was renamed now: the attempt before may have died between rename and fsync.
        os.fsync(folder)

    def _sweep(self, batch: Batch, name: str, folder: int) -> None:
        """Removes what died attempts at this range left: those of another worker before the partition came here, and our own."""
        first = batch.events[0]
        place = (first.topic, first.partition)
        if place in self._swept and batch.attempt == 1:
            return
        for other in leftovers(os.listdir(folder), name):
            with suppress(FileNotFoundError):
                os.unlink(other, dir_fd=folder)
        self._swept.add(place)


def _read(name: str, folder: int, size: int | None = None) -> bytes | None:
    """The content of a regular file (of `size` bytes), None where there is none, or a manifest that can't be ours."""
    descriptor = open_regular(name, folder)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, "rb") as opened:
        found = os.fstat(opened.fileno()).st_size
        if found != size if size is not None else found > _LARGEST_MANIFEST:
            return None
        return opened.read(found)


def _put(name: str, folder: int, content: bytes) -> None:
    """A complete file, replacing what has its name, or none and an OSError."""
    part = temporary_name(name)
    try:
        # Never through a link that someone may have planted: O_EXCL makes a new file or fails.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, 0o666, dir_fd=folder)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(part, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise
