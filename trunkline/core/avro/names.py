"""Names of Avro types, and what those probably mean that are none."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.core.errors import nearest

PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")

_LOGICAL = {
    "decimal": "{type: bytes, logicalType: decimal, precision: 9, scale: 2}",
    "uuid": "{type: string, logicalType: uuid}",
    "date": "{type: int, logicalType: date}",
    "time": "{type: int, logicalType: time-millis}",
    "time-millis": "{type: int, logicalType: time-millis}",
    "time-micros": "{type: long, logicalType: time-micros}",
    "timestamp": "{type: long, logicalType: timestamp-millis}",
    "datetime": "{type: long, logicalType: timestamp-millis}",
    "timestamp-millis": "{type: long, logicalType: timestamp-millis}",
    "timestamp-micros": "{type: long, logicalType: timestamp-micros}",
    "local-timestamp-millis": "{type: long, logicalType: local-timestamp-millis}",
    "local-timestamp-micros": "{type: long, logicalType: local-timestamp-micros}",
}
_COMPLEX = {
    "array": "{type: array, items: string}",
    "map": "{type: map, values: string}",
    "record": "{type: record, name: Inner, fields: [{name: id, type: long}]}",
    "enum": "{type: enum, name: Colour, symbols: [RED, GREEN]}",
    "fixed": "{type: fixed, name: Digest, size: 32}",
}
_ELSEWHERE = {
    "boolean": ("bool",),
    "int": ("integer", "int32", "short", "smallint"),
    "long": ("int64", "bigint", "number", "uint32"),
    "float": ("float32", "real"),
    "double": ("float64", "numeric"),
    "bytes": ("binary", "blob", "bytea"),
    "string": ("str", "text", "varchar", "char"),
    "null": ("none", "nil"),
    "array": ("list",),
    "map": ("dict",),
    "record": ("object", "struct", "json"),
}
"""What the types are called in other languages."""
_MEANT = {other: own for own, others in _ELSEWHERE.items() for other in others}


def type_hint(name: str, defined: Iterable[str] = ()) -> str:
    """What to write instead of `name`, which is no type; `defined` are the named types that the schema has so far."""
    lower = name.lower()
    meant = _MEANT.get(lower, lower)
    if meant in _LOGICAL:
        return f"{meant!r} is a logical type: write {_LOGICAL[meant]}"
    if meant in _COMPLEX:
        return f"write {_COMPLEX[meant]}"
    if meant in PRIMITIVES:
        return f"write {meant}"
    known = [*PRIMITIVES, *defined]
    close = nearest(name, known)
    if close is not None:
        return f"did you mean {close!r}?"
    return f"known: {', '.join(known[:30])}; a type of one's own is defined where it is first used"
