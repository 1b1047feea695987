"""The Confluent wire format: magic byte 0, the schema's id in four big-endian bytes, then the Avro body.

Source: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/#wire-format
"""

from __future__ import annotations

from struct import Struct

from trunkline.core.errors import RejectedError

MAGIC = 0
PREFIX_SIZE = 5
MAX_ID = 0x7FFFFFFF
_PREFIX = Struct(">BI")


def prefix(schema_id: int) -> bytes:
    """The five bytes that stand before the body. Raises ValueError for an id that is no positive 32-bit number."""
    if not 0 <= schema_id <= MAX_ID:
        raise ValueError(f"a schema id is a number from 0 to {MAX_ID}, found {schema_id}")
    return _PREFIX.pack(MAGIC, schema_id)


def schema_id(value: bytes | None) -> int:
    """The id that a value names. Raises RejectedError (`record.undecodable`) where it is not in the wire format."""
    if value is None:
        raise RejectedError("the record has no value", code="record.undecodable", hint="a tombstone carries no event")
    if len(value) < PREFIX_SIZE:
        raise RejectedError(
            f"the value has {len(value)} bytes, too few for magic byte and schema id",
            code="record.undecodable",
            hint=_HINT,
        )
    magic, found = _PREFIX.unpack_from(value)
    if magic != MAGIC:
        raise RejectedError(
            f"the value begins with byte 0x{magic:02x} instead of 0x00", code="record.undecodable", hint=_HINT
        )
    if found > MAX_ID:
        raise RejectedError(
            f"the value names schema id {found}, which no registry gives", code="record.undecodable", hint=_HINT
        )
    return int(found)


def frame(schema_id: int, body: bytes) -> bytes:
    """The value that holds `body` under `schema_id`."""
    return prefix(schema_id) + body


def unframe(value: bytes | None) -> tuple[int, bytes]:
    """Schema id and body. Raises RejectedError (`record.undecodable`) where the value is not in the wire format."""
    found = schema_id(value)
    assert value is not None
    return found, value[PREFIX_SIZE:]


_HINT = "values are Avro in the Confluent wire format; was it produced without a schema registry?"
