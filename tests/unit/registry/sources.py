"""A schema source for tests: schemas under ids of their own."""

from __future__ import annotations

from typing import Any

from trunkline.core.errors import RejectedError
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.schema import Schema


class SchemaShelf:
    """Schemas by id, given in order from 1."""

    def __init__(self, *sources: Any) -> None:
        self.schemas = {number: Schema(source, id=number) for number, source in enumerate(sources, 1)}
        self.asked = 0

    def by_id(self, schema_id: int) -> Schema:
        self.asked += 1
        if schema_id not in self.schemas:
            raise RejectedError(f"no schema {schema_id}", code="record.unknown_schema")
        return self.schemas[schema_id]

    def latest(self, subject: str) -> Schema:
        raise NotImplementedError

    def register(self, subject: str, schema: Schema) -> Schema:
        raise NotImplementedError


def record(*fields: tuple[Any, ...] | dict[str, Any], name: str = "test.R") -> dict[str, Any]:
    """A record schema from (name, type) or (name, type, default)."""
    made = [
        field
        if isinstance(field, dict)
        else {"name": field[0], "type": field[1]} | ({"default": field[2]} if len(field) > 2 else {})
        for field in fields
    ]
    return {"type": "record", "name": name, "fields": made}


def through(writer: Any, datum: Any, reader: Any = None, **options: Any) -> Any:
    """What a datum is after it was written with one schema and read, with another if given."""
    shelf = SchemaShelf(writer)
    value = Encoder(shelf.schemas[1]).encode(datum)
    return decoded(shelf, value, reader, **options)


def decoded(shelf: SchemaShelf, value: bytes, reader: Any = None, **options: Any) -> Any:
    """The datum of a value."""
    read = Schema(reader) if reader is not None else None
    return Decoder(shelf, reader=read, **options).decode(value)[1]


def zigzag(value: int) -> bytes:
    """Avro's varint of a number."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])
