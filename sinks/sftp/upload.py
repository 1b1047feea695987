"""Putting one complete file onto a server: temporary name, fsync, size check, rename."""

from __future__ import annotations

import posixpath
import stat
from contextlib import suppress

import asyncssh

from trunkline.core.batchfile import temporary_name
from trunkline.core.errors import FatalError, RetriableError

_NEW = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | asyncssh.FXF_EXCL


async def put(
    session: asyncssh.SFTPClient, folder: str, name: str, content: bytes, *, parts: str, permissions: int | None
) -> None:
    """A complete file `folder/name`, replacing what is there. Until the rename it is in the folder `parts`, hidden.

    Raises asyncssh's errors, and `RetriableError` when the server kept less than it acknowledged.
    """
    part = posixpath.join(parts, temporary_name(name))
    try:
        # Exclusive: a link that someone may have planted is never followed.
        async with session.open(part, _NEW, encoding=None) as out:
            await out.write(content)
            if permissions is not None:
                await out.chmod(permissions)
            with suppress(asyncssh.SFTPOpUnsupported):  # fsync@openssh.com: not every server has it
                await out.fsync()
        size = (await session.lstat(part)).size
        if size != len(content):
            raise RetriableError(f"{part} has {size} of {len(content)} bytes after the upload", code="sftp.short")
        await _rename(session, part, posixpath.join(folder, name))
    except (asyncssh.SFTPError, RetriableError):
        with suppress(asyncssh.SFTPError):  # what remains is swept with the next attempt at this range
            await session.remove(part)
        raise


async def get(
    session: asyncssh.SFTPClient, path: str, *, size: int | None = None, limit: int = 1 << 16
) -> bytes | None:
    """The content of a regular file of exactly `size` bytes (else of at most `limit`); None where there is none such,
    or where it may not be read.

    Raises `FatalError` where a folder bears that name.
    """
    try:
        found = await session.lstat(path)
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
        return None
    if _is(found, asyncssh.FILEXFER_TYPE_DIRECTORY, stat.S_ISDIR):
        raise FatalError(f"{path} is a folder", hint="move it away or change `name`", code="sftp.is_folder")
    if not _is(found, asyncssh.FILEXFER_TYPE_REGULAR, stat.S_ISREG):
        return None
    if found.size is None or (found.size != size if size is not None else found.size > limit):
        return None
    try:
        async with session.open(path, asyncssh.FXF_READ, encoding=None) as opened:
            content: bytes | str = await opened.read()
    except asyncssh.SFTPPermissionDenied:
        return None  # a drop box takes files and shows none: they are written again
    assert isinstance(content, bytes)  # no encoding was asked for
    return content


async def _rename(session: asyncssh.SFTPClient, part: str, final: str) -> None:
    """Over what is there, in one step where the server can (posix-rename@openssh.com, or version 5 and later)."""
    try:
        await session.posix_rename(part, final)
    except asyncssh.SFTPOpUnsupported:
        try:
            await session.rename(part, final)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if not await session.exists(final):
                raise
            # Version 3 does not rename onto a file. For a moment there is none of that name, and never a part of one; after a
            # crash in between the range is written again.
            await session.remove(final)
            await session.rename(part, final)


def _is(found: asyncssh.SFTPAttrs, kind: int, test: object) -> bool:
    if found.type != asyncssh.FILEXFER_TYPE_UNKNOWN:
        return found.type == kind
    return found.permissions is not None and callable(test) and bool(test(found.permissions))
