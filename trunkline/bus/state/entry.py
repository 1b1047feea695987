"""An entry of a store: a value with headers, as the changelog has it."""

from __future__ import annotations

import struct
from typing import NamedTuple

from trunkline.core.envelope import Headers

_COUNT = struct.Struct(">H")
_NAME = struct.Struct(">H")
_CONTENT = struct.Struct(">I")


class Entry(NamedTuple):
    """What is kept under a key. Small state has no headers, and then they cost two bytes on disk."""

    value: bytes
    headers: Headers = []  # noqa: RUF012 (never changed: a tuple's default)

    def pack(self) -> bytes:
        """The entry as the store keeps it: the number of headers, each with the lengths of name and content, then the value."""
        parts = [_COUNT.pack(len(self.headers))]
        for name, content in self.headers:
            encoded = name.encode()
            parts += (_NAME.pack(len(encoded)), encoded, _CONTENT.pack(len(content)), content)
        parts.append(self.value)
        return b"".join(parts)

    @classmethod
    def unpack(cls, packed: bytes) -> Entry:
        """The entry in what the store kept. Raises struct.error or UnicodeDecodeError for other bytes."""
        (count,) = _COUNT.unpack_from(packed)
        at = _COUNT.size
        if not count:
            return cls(packed[at:])
        headers: Headers = []
        for _ in range(count):
            (length,) = _NAME.unpack_from(packed, at)
            at += _NAME.size
            name, at = packed[at : at + length].decode(), at + length
            (length,) = _CONTENT.unpack_from(packed, at)
            at += _CONTENT.size
            headers.append((name, packed[at : at + length]))
            at += length
        return cls(packed[at:], headers)


Record = tuple[bytes, Entry | None]
"""A record of the changelog: a key with its entry, or with None where it was deleted."""
