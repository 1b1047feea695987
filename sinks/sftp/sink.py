"""Files on an SFTP server, one for each batch, each complete or not there."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import asyncssh

from sinks.sftp.client import LOST, SftpClient, describe
from sinks.sftp.settings import SftpConnection, SftpSinkSettings
from sinks.sftp.upload import get, put
from trunkline.core.batchfile import MANIFEST_SUFFIX, BatchFile, build_file, leftovers
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.formats import uses_of_format
from trunkline.core.uses import Use
from trunkline.core.verdicts import Verdict

_REFUSED = (asyncssh.SFTPPermissionDenied, asyncssh.SFTPWriteProtect, asyncssh.SFTPOpUnsupported)
_GONE = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)


class SftpSink(Sink):
    """Uploads each batch as a file of its own under a temporary name and renames it."""

    settings_type: ClassVar[type[SftpSinkSettings]] = SftpSinkSettings
    connection_type: ClassVar[type[SftpConnection]] = SftpConnection
    summary: ClassVar[str] = (
        "Uploads batches as CSV, JSON Lines or Avro files to an SFTP server with a pinned host key."
    )
    promises = Promises(idempotent=True, max_batch=50_000, contiguous=True)

    settings: SftpSinkSettings
    connection: SftpConnection

    def __init__(self, settings: Any, connection: Any = None) -> None:
        super().__init__(settings, connection)
        self._client = SftpClient(connection)
        self._pipeline = ""
        self._folder = ""
        self._parts = ""
        self._swept: set[tuple[str, int]] = set()

    def uses(self) -> Sequence[Use]:
        """What the form of the files needs."""
        return uses_of_format(self.settings.format, "config.format")

    async def open(self, context: PluginContext) -> None:
        """Connects and looks for the folders. Raises `FatalError` for a wrong host key or refused credentials,
        `ConfigurationError` for a missing folder, `RetriableError` where the server can't be reached now."""
        self._pipeline = context.pipeline
        session = await self._client.session()
        try:
            self._folder = await self._existing(session, self.settings.folder)
            self._parts = await self._existing(session, self.settings.temporary_folder or self.settings.folder)
        except _REFUSED as error:
            raise self._refused(error) from error
        except (asyncssh.Error, OSError) as error:
            raise RetriableError(
                f"{self._client.server} can't be used: {describe(error)}", code="sftp.unavailable"
            ) from error

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """One file. A lost connection, no space and a quota give `Retry` for all; refused credentials, host keys and
        permissions raise `FatalError`."""
        file = await asyncio.to_thread(build_file, batch, self.settings, self._pipeline)
        path = posixpath.join(self._folder, file.name)
        if not file.rows:
            return file.verdicts(path)
        session: asyncssh.SFTPClient | None = None
        try:
            session = await self._client.session()
            async with asyncio.timeout(self.connection.timeout):
                await self._sweep(session, batch, file.name)
                await self._place(session, path, file)
        except RetriableError as error:
            return file.retry(str(error), error.after, error.code)
        except (
            ConfigurationError
        ) as error:  # while connecting again: the name now leads to an address that is not allowed
            raise FatalError(error.message, hint=error.hint, code=error.code) from error
        except _REFUSED as error:
            raise self._refused(error) from error
        except LOST as error:
            await self._client.drop(session)
            lost = f"the connection to {self._client.server} was lost: {describe(error)}"
            return file.retry(lost, code="sftp.lost")
        except asyncssh.SFTPError as error:
            if isinstance(error, _GONE):
                await self._check_folders(error)
            unwritable = f"{self._client.server} can't take {path}: {describe(error)}"
            return file.retry(unwritable, code="sftp.unwritable")
        return file.verdicts(path)

    async def close(self) -> None:
        """Ends the connection."""
        await self._client.close()

    async def _place(self, session: asyncssh.SFTPClient, path: str, file: BatchFile) -> None:
        bits = int(self.settings.permissions, 8) if self.settings.permissions else None
        if await get(session, path, size=len(file.content)) != file.content:
            await put(session, self._folder, file.name, file.content, parts=self._parts, permissions=bits)
        if self.settings.manifest:
            found = await get(session, path + MANIFEST_SUFFIX)
            if found is None or not file.is_described_by(found):
                manifest = file.manifest(datetime.now(UTC))
                name = file.name + MANIFEST_SUFFIX
                await put(session, self._folder, name, manifest, parts=self._parts, permissions=bits)

    async def _sweep(self, session: asyncssh.SFTPClient, batch: Batch, name: str) -> None:
        """Removes what died attempts at this range left: those of another worker before the partition came here, and our own."""
        first = batch.events[0]
        place = (first.topic, first.partition)
        if place in self._swept and batch.attempt == 1:
            return
        try:
            # As bytes: a foreign file whose name is no UTF-8 is none of our business.
            found = [raw.decode("utf-8", "replace") for raw in await session.listdir(self._parts.encode())]
        except asyncssh.SFTPPermissionDenied:
            found = []  # a drop box that shows nothing: its owner sweeps it
        for other in leftovers(found, name):
            try:
                await session.remove(posixpath.join(self._parts, other))
            except _GONE:
                continue  # its writer, still alive on the server, has just renamed it: it was complete
        self._swept.add(place)

    async def _existing(self, session: asyncssh.SFTPClient, folder: str) -> str:
        if self.settings.create_folder:
            await session.makedirs(folder, exist_ok=True)
        try:
            if await session.isdir(folder):
                return str(await session.realpath(folder))
        except _GONE:
            pass
        raise ConfigurationError(
            f"{self._client.server} has no folder {folder!r}",
            hint="make it there, change `folder`, or set `create_folder: true`",
            code="sftp.no_folder",
        )

    async def _check_folders(self, cause: Exception) -> None:
        """Raises `FatalError` where a folder has gone since the start: waiting would only use up the attempts of good records."""
        try:
            session = await self._client.session()
            gone = [folder for folder in (self._folder, self._parts) if not await session.isdir(folder)]
        except (RetriableError, asyncssh.SFTPError, *LOST):
            return  # the next attempt tells
        if gone:
            raise FatalError(
                f"{self._client.server} has no folder {gone[0]!r} any more",
                hint="make it again, then restart the pipeline",
                code="sftp.no_folder",
            ) from cause

    def _refused(self, error: BaseException) -> FatalError:
        return FatalError(
            f"{self._client.server} refuses user {self.connection.user!r} to write to {self._folder or self.settings.folder}: "
            f"{describe(error)}",
            hint="mend the permissions there, then restart the pipeline",
            code="sftp.refused",
        )
