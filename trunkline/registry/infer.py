"""A proposal: the Avro schema that a set of samples, JSON objects or rows of text, would fit.

A proposal is meant to be read and kept as an `.avsc` file, not to follow the data. Whole numbers become `long`, because a
sample of small ids does not promise that they stay small. A field that some sample lacks, or has as null, is a union with null and
default null. An object with many different keys, or with keys that are no names, becomes a map where its values are alike.
A key that is no valid Avro name gets one, and keeps its own as the attribute `jsonName`, by which `conform` finds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from trunkline.core.errors import ConfigurationError
from trunkline.registry.conform import JSON_NAME, NULL_TEXTS, parse_timestamp, text_kind
from trunkline.registry.model import LONG_MAX, LONG_MIN

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MANY_KEYS: Final = 64
_MAX_DEPTH: Final = 40


def infer_schema(
    samples: Iterable[dict[str, Any]], name: str, *, timestamps: bool = False, text: bool = False
) -> dict[str, Any]:
    """The JSON form of a record schema with that full name, which every sample fits after `conform`.

    `timestamps` proposes timestamp-micros for text that is always an ISO 8601 time with a zone. `text` is for rows of text,
    such as CSV: numbers and booleans are recognised, and an empty field, `NA` or `null` is null. Raises ConfigurationError where
    there is no sample, or one that no schema of this kind fits.
    """
    shape = _Shape()
    for sample in samples:
        if not isinstance(sample, dict):
            raise ConfigurationError(f"a sample is an object, found {type(sample).__name__}", code="schema.inference")
        shape.add(sample, "", 0, timestamps=timestamps, text=text)
    if not shape.objects:
        raise ConfigurationError("a schema can't be inferred from no sample at all", code="schema.inference")
    full = ".".join(_valid(part) for part in name.split(".")) or "record"
    return _Proposal().record(shape, full)


class _Shape:
    """What was seen at one place of the samples."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.objects = 0
        self.fields: dict[str, _Shape] = {}
        self.seen: dict[str, int] = {}
        self.items: _Shape | None = None

    def add(self, value: Any, where: str, depth: int, *, timestamps: bool, text: bool) -> None:
        if depth > _MAX_DEPTH:
            raise ConfigurationError(
                f"a sample is nested more than {_MAX_DEPTH} levels deep", where=where[:80], code="schema.inference"
            )
        if isinstance(value, dict):
            self.objects += 1
            for key, inner in value.items():
                if key not in self.fields:
                    self.fields[key] = _Shape()
                self.seen[key] = self.seen.get(key, 0) + 1
                self.fields[key].add(inner, f"{where}/{key}", depth + 1, timestamps=timestamps, text=text)
        elif isinstance(value, list):
            if self.items is None:
                self.items = _Shape()
            for inner in value:
                self.items.add(inner, f"{where}/*", depth + 1, timestamps=timestamps, text=text)
        else:
            self.kinds.add(_kind(value, where, timestamps=timestamps, text=text))


def _kind(value: Any, where: str, *, timestamps: bool, text: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        if not LONG_MIN <= value <= LONG_MAX:
            raise ConfigurationError(f"the number {value} has more than 64 bits", where=where, code="schema.inference")
        return "long"
    if isinstance(value, float):
        return "double"
    if isinstance(value, str):
        if text and value in NULL_TEXTS:
            return "null"
        if text and (kind := text_kind(value)) != "string":
            return kind
        return "timestamp" if timestamps and parse_timestamp(value) is not None else "string"
    raise ConfigurationError(
        f"{type(value).__name__} is nothing that JSON or CSV holds", where=where, code="schema.inference"
    )


class _Proposal:
    def __init__(self) -> None:
        self.names: set[str] = set()

    def type_of(self, shape: _Shape, name: str, *, optional: bool = False) -> Any:
        kinds = set(shape.kinds)
        nullable = optional or "null" in kinds
        kinds.discard("null")
        if "timestamp" in kinds and kinds & {"string", "long"}:
            # A union holds each of Avro's types once, and a timestamp is a long.
            kinds = kinds - {"timestamp"} | {"string"}
        if {"long", "double"} <= kinds:
            kinds.discard("long")
        branches: list[Any] = [
            _SCALARS[kind] for kind in ("boolean", "long", "double", "timestamp", "string") if kind in kinds
        ]
        if shape.items is not None:
            unknown = not (shape.items.kinds or shape.items.objects or shape.items.items)
            items: Any = "string" if unknown else self.type_of(shape.items, f"{name}_item")
            branches.append({"type": "array", "items": items})
        if shape.objects:
            branches.append(self.of_object(shape, name))
        if not branches:
            # Only null was ever seen: text is what holds most.
            branches.append("string")
            nullable = True
        if nullable:
            return ["null", *branches]
        return branches[0] if len(branches) == 1 else branches

    def of_object(self, shape: _Shape, name: str) -> dict[str, Any]:
        keys = list(shape.fields)
        odd = sum(not _NAME.fullmatch(key) for key in keys)
        various = len(keys) > _MANY_KEYS and sum(shape.seen.values()) < len(keys) * shape.objects / 4
        if various or (keys and odd * 2 >= len(keys)):
            values = _Shape()
            for inner in shape.fields.values():
                _merge(values, inner)
            # Alike: one type apart from null. Otherwise a record says more of each key.
            if various or len(values.kinds - {"null"}) + bool(values.objects) + (values.items is not None) <= 1:
                return {"type": "map", "values": self.type_of(values, f"{name}_value")}
        return self.record(shape, name)

    def record(self, shape: _Shape, name: str) -> dict[str, Any]:
        unique, count = name, 1
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        taken = {key for key in shape.fields if _NAME.fullmatch(key)}
        fields: list[dict[str, Any]] = []
        for key, inner in shape.fields.items():
            own = key if key in taken else _free(_valid(key), taken)
            taken.add(own)
            optional = shape.seen[key] < shape.objects
            made: dict[str, Any] = {"name": own, "type": self.type_of(inner, f"{unique}_{own}", optional=optional)}
            if isinstance(made["type"], list) and made["type"][0] == "null":
                made["default"] = None
            if own != key:
                made["doc"] = f"{key!r} in the source"
                made[JSON_NAME] = key
            fields.append(made)
        return {"type": "record", "name": unique, "fields": fields}


_SCALARS: Final[dict[str, Any]] = {
    "boolean": "boolean",
    "long": "long",
    "double": "double",
    "string": "string",
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
}


def _merge(into: _Shape, other: _Shape) -> None:
    into.kinds |= other.kinds
    into.objects += other.objects
    for key, inner in other.fields.items():
        _merge(into.fields.setdefault(key, _Shape()), inner)
        into.seen[key] = into.seen.get(key, 0) + other.seen[key]
    if other.items is not None:
        into.items = into.items or _Shape()
        _merge(into.items, other.items)


def _valid(key: str) -> str:
    made = re.sub(r"[^A-Za-z0-9_]", "_", key) or "_"
    return f"_{made}" if made[0].isdigit() else made


def _free(wanted: str, taken: set[str]) -> str:
    free, count = wanted, 1
    while free in taken:
        count += 1
        free = f"{wanted}_{count}"
    return free
