"""Records as an Avro object container file (Avro 1.12 specification, "Object Container Files")."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import fastavro

from trunkline.core.avro.choices import has_nested_choices
from trunkline.core.avro.fitting import Fitting
from trunkline.core.casting_scalars import MismatchError
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.formats.columns import ENVELOPE_COLUMNS, envelope_row, newest_schema
from trunkline.core.formats.rendered import Rendered
from trunkline.core.formats.settings import AvroFormat

_BLOCK = 64 * 1024
"""Bytes of data after which a block is closed."""

_UNWRITABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, struct.error)


def render_avro(events: Sequence[Event], shape: AvroFormat, name: str) -> Rendered:
    """The file of these events. Equal events under an equal name give equal bytes.

    The sync marker, which is random in other writers, is a hash of the name and the data: it repeats for the same range, and
    still nobody can put it into a record beforehand and so mislead readers that search for it.
    """
    newest = newest_schema(events)
    rejected: dict[int, RejectedError] = {}
    if newest is None:
        for index, event in enumerate(events):
            rejected[index] = RejectedError(
                "an Avro file needs a schema, the record has none", where=event.place, code="file.no_schema"
            )
        return Rendered(b"", 0, rejected)
    declared = _with_envelope(newest.json, shape.envelope)
    schema = fastavro.parse_schema(declared)
    fitting = Fitting(schema) if has_nested_choices(declared) else None
    data: list[bytes] = []
    schemas = {id(event.schema): event.schema for event in events if event.schema is not None}
    current = {key for key, found in schemas.items() if found is newest or found.json == newest.json}
    for index, event in enumerate(events):
        try:
            # A record of another schema may lack fields or have more: fastavro fills in defaults and leaves out what is gone.
            data.append(_datum(event, schema, shape.envelope, fitting, strict=id(event.schema) in current))
        except RejectedError as error:
            rejected[index] = error
    if not data:
        return Rendered(b"", 0, rejected)
    marker = hashlib.sha256(name.encode() + b"\0")
    for datum in data:
        marker.update(datum)
    sync = marker.digest()[:16]
    out = BytesIO()
    fastavro.writer(out, schema, [], codec=shape.codec, sync_marker=sync)
    for count, block in _blocks(data):
        packed = _deflate(block) if shape.codec == "deflate" else block
        out.write(_long(count) + _long(len(packed)) + packed + sync)
    return Rendered(out.getvalue(), len(data), rejected)


def _datum(event: Event, schema: Any, envelope: Sequence[str], fitting: Fitting | None, *, strict: bool) -> bytes:
    value = event.value
    if envelope and isinstance(value, Mapping):
        value = {**value, **envelope_row(event, envelope)}
    out = BytesIO()
    try:
        if fitting is not None:
            value = fitting.with_branches(value, whole=False)
        fastavro.schemaless_writer(
            out, schema, value, strict_allow_default=strict, disable_tuple_notation=fitting is None
        )
    except MismatchError as error:
        raise RejectedError(
            f"the record does not fit its schema: {error.sentence()}", where=event.place, code="file.bad_datum"
        ) from None
    except _UNWRITABLE as error:
        raise RejectedError(
            f"the record does not fit its schema: {type(error).__name__}: {str(error)[:200]}",
            where=event.place,
            code="file.bad_datum",
        ) from error
    return out.getvalue()


def _with_envelope(schema: Any, fields: Sequence[str]) -> Any:
    if not fields or not isinstance(schema, Mapping) or schema.get("type") != "record":
        return schema
    taken = {field["name"] for field in schema["fields"]}
    added = [
        {"name": ENVELOPE_COLUMNS[field], "type": ["null", "string"], "default": None}
        for field in fields
        if ENVELOPE_COLUMNS[field] not in taken
    ]
    return {**schema, "fields": [*schema["fields"], *added]}


def _blocks(data: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    block: list[bytes] = []
    size = 0
    for datum in data:
        block.append(datum)
        size += len(datum)
        if size >= _BLOCK:
            yield len(block), b"".join(block)
            block, size = [], 0
    if block:
        yield len(block), b"".join(block)


def _deflate(block: bytes) -> bytes:
    """RFC 1951 without zlib's frame, as the specification asks."""
    press = zlib.compressobj(6, zlib.DEFLATED, -15)
    return press.compress(block) + press.flush()


def _long(number: int) -> bytes:
    """A non-negative Avro long: zig-zag, then seven bits a byte, lowest first."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
