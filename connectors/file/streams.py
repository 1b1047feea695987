"""Bytes in order from a plain or a gzip file, with what was not used yet kept at hand."""

from __future__ import annotations

import os
import zlib
from abc import ABC, abstractmethod

_READ = 256 * 1024
_PACKED = 16 * 1024
"""Compressed bytes that are read at once: zlib copies those behind the end of a member, for each member."""
_MOST_EMPTY = 1_000
"""Members without content, one after the other. One is twenty bytes, and a file of them would be read to its end in one go."""


class DamagedError(Exception):
    """The gzip stream is broken at this point; nothing after it can be read."""


class ByteStream(ABC):
    """A window over the bytes from `offset` on. `ended` says that the file has no more for now."""

    def __init__(self, handle: int, offset: int) -> None:
        self.handle = handle
        self.offset = offset
        self.buffer = b""
        self.ended = False
        self.read_bytes = 0  # where on disk the next read begins

    def fill(self, wanted: int) -> None:
        """Reads until the window holds `wanted` bytes or the file ends. Raises `DamagedError`."""
        parts = [self.buffer]
        size = len(self.buffer)
        self.ended = False
        try:
            while size < wanted:
                data = self._more(min(max(wanted - size, 1), _READ))
                if not data:
                    self.ended = True
                    break
                parts.append(data)
                size += len(data)
        finally:
            self.buffer = b"".join(parts) if len(parts) > 1 else self.buffer

    def advance(self, count: int) -> None:
        """Lets the first `count` bytes of the window go."""
        self.buffer = self.buffer[count:]
        self.offset += count

    def close(self) -> None:
        """Closes the file."""
        os.close(self.handle)

    @property
    def incomplete(self) -> bool:
        """Whether the file ended in the middle of a compressed stream."""
        return False

    @abstractmethod
    def _more(self, count: int) -> bytes:
        """At most `count` bytes that come after all that were given before; none where the file ends."""


class PlainStream(ByteStream):
    """The bytes as they are on disk."""

    def __init__(self, handle: int, offset: int) -> None:
        super().__init__(handle, offset)
        self.read_bytes = offset

    def _more(self, count: int) -> bytes:
        data = os.pread(self.handle, count, self.read_bytes)
        self.read_bytes += len(data)
        return data


class GzipStream(ByteStream):
    """What a gzip file (RFC 1952, several members allowed) holds. Can go on when the file has grown.

    Decompresses no more than was asked for, so a small file that unpacks to a huge one does no harm.
    """

    def __init__(self, handle: int) -> None:
        super().__init__(handle, 0)
        self._pending = b""
        self._unpacker = zlib.decompressobj(wbits=31)
        self._member_begun = False
        self._empty = 0

    def skip_to(self, offset: int) -> None:
        """Unpacks and forgets everything before `offset`. Raises `DamagedError` where there is less than that."""
        while self.offset < offset:
            self.fill(min(offset - self.offset, _READ))
            if not self.buffer:
                raise DamagedError("the file is shorter than what was read from it before")
            self.advance(min(len(self.buffer), offset - self.offset))

    @property
    def incomplete(self) -> bool:
        return self._member_begun

    def _more(self, count: int) -> bytes:
        while True:
            if not self._pending and not self._unpacker.unconsumed_tail:
                self._pending = os.pread(self.handle, _PACKED, self.read_bytes)
                self.read_bytes += len(self._pending)
                if not self._pending:
                    return self._unpack(b"", count) if self._member_begun else b""
            if not self._member_begun:
                # Padding with zeros between or after members is allowed (gzip manual, "Tapes").
                self._pending = self._pending.lstrip(b"\0")
                if not self._pending:
                    continue
                self._member_begun = True
            source, self._pending = self._unpacker.unconsumed_tail or self._pending, b""
            data = self._unpack(source, count)
            if data:
                return data

    def _unpack(self, source: bytes, count: int) -> bytes:
        try:
            data = self._unpacker.decompress(source, count)
        except zlib.error as error:
            raise DamagedError(f"no good gzip data: {error}") from error
        if self._unpacker.eof:
            self._pending = self._unpacker.unused_data
            self._unpacker = zlib.decompressobj(wbits=31)
            self._member_begun = False
            self._empty += 1
        if data:
            self._empty = 0
        elif self._empty > _MOST_EMPTY:
            raise DamagedError(f"more than {_MOST_EMPTY:,} gzip members in a row are empty")
        return data
