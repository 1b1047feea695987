"""The types of expressions, from Avro schemas and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from trunkline.core.avro.names import type_hint
from trunkline.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class CelType:
    """A static type. `kind` is CEL's name for it; `object` is a record whose `fields` are known.

    `nullable` says that a value may be null as well: an Avro union with null. `foreign` marks values that Avro's Python library
    gives as something else than CEL's own (UUID, Decimal, date), so that reading them converts. `avro` is the schema that the
    type was made from, kept so that a record or a list can be written again as it was.
    """

    kind: str
    args: tuple[CelType, ...] = ()
    nullable: bool = False
    foreign: bool = field(default=False, compare=False)
    fields: Mapping[str, CelType] = field(default_factory=dict, compare=False)
    name: str = ""
    avro: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        text = self.name or "object" if self.kind == "object" else self.kind
        if self.args:
            text += f"({', '.join(map(str, self.args))})"
        return f"{text} or null" if self.nullable else text

    @property
    def is_dyn(self) -> bool:
        """Whether only the evaluation knows."""
        return self.kind == "dyn"

    @property
    def bare(self) -> CelType:
        """The same type without null."""
        return replace(self, nullable=False) if self.nullable else self


DYN = CelType("dyn")
NULL = CelType("null")
BOOL = CelType("bool")
INT = CelType("int")
UINT = CelType("uint")
DOUBLE = CelType("double")
STRING = CelType("string")
BYTES = CelType("bytes")
TIMESTAMP = CelType("timestamp")
DURATION = CelType("duration")
TYPE = CelType("type")

NUMBERS = frozenset({"int", "uint", "double"})
SIMPLE = NUMBERS | {"bool", "string", "bytes", "timestamp", "duration"}


def nullable(of: CelType) -> CelType:
    """`of`, or null."""
    return of if of.kind in {"dyn", "null"} else replace(of, nullable=True)


def list_of(item: CelType) -> CelType:
    """A list of `item`."""
    return CelType("list", (item,))


def map_of(key: CelType, value: CelType) -> CelType:
    """A map from `key` to `value`."""
    return CelType("map", (key, value))


def object_of(name: str, fields: Mapping[str, CelType], avro: Any = None) -> CelType:
    """A record with known fields, any of which may be absent."""
    return CelType("object", name=name, fields=MappingProxyType(dict(fields)), avro=avro)


def join(left: CelType, right: CelType) -> CelType:
    """The least type that both have: dyn where they have nothing in common."""
    if left == right:
        return left if left.avro == right.avro and left.foreign == right.foreign else _merged(left, right)
    if left.kind == "null":
        return nullable(right)
    if right.kind == "null":
        return nullable(left)
    if left.kind == right.kind and left.name == right.name:
        return _merged(left, right)
    return DYN


def _merged(left: CelType, right: CelType) -> CelType:
    return replace(
        left,
        args=tuple(join(a, b) for a, b in zip(left.args, right.args, strict=True)),
        nullable=left.nullable or right.nullable,
        foreign=left.foreign or right.foreign,
        avro=left.avro if left.kind == "object" else None,
    )


def fits(found: CelType, wanted: CelType) -> bool:
    """Whether a value of type `found` may stand where `wanted` is asked for.

    A type that may be null fits its type without null: whether it is null, only the evaluation knows.
    """
    if found.is_dyn or wanted.is_dyn:
        return True
    if found.kind == "null":
        return wanted.nullable or wanted.kind == "null"
    if found.kind == "object" and wanted.kind == "map":
        return fits(STRING, wanted.args[0]) and all(fits(item, wanted.args[1]) for item in found.fields.values())
    if found.kind != wanted.kind or (found.kind == "object" and found.name != wanted.name):
        return False
    return all(fits(a, b) for a, b in zip(found.args, wanted.args, strict=True))


def comparable(left: CelType, right: CelType) -> bool:
    """Whether `==` between them can ever hold: of one type, both numbers, or one of them null or unknown."""
    if left.is_dyn or right.is_dyn or "null" in (left.kind, right.kind):
        return True
    if left.kind in NUMBERS and right.kind in NUMBERS:
        return True
    if {left.kind, right.kind} <= {"object", "map"} and "object" in {left.kind, right.kind}:
        return True
    return left.kind == right.kind and all(comparable(a, b) for a, b in zip(left.args, right.args, strict=True))


# --- Avro ---------------------------------------------------------------------------------------------------------------

_PRIMITIVES = {
    "null": NULL,
    "boolean": BOOL,
    "int": INT,
    "long": INT,
    "float": DOUBLE,
    "double": DOUBLE,
    "string": STRING,
    "bytes": BYTES,
}
_LOGICAL = {
    "uuid": (STRING, True),
    "decimal": (DOUBLE, True),
    "date": (TIMESTAMP, True),
    "time-millis": (DURATION, True),
    "time-micros": (DURATION, True),
    "timestamp-millis": (TIMESTAMP, False),
    "timestamp-micros": (TIMESTAMP, False),
    "local-timestamp-millis": (TIMESTAMP, True),
    "local-timestamp-micros": (TIMESTAMP, True),
}


def type_of_avro(schema: Any) -> CelType:
    """The type of a datum of an Avro schema (JSON form, or its text). A recursive record is dyn where it comes again.

    Raises `ConfigurationError` for what is no Avro schema.
    """
    if isinstance(schema, str) and schema.lstrip()[:1] in {"{", "[", '"'}:
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise ConfigurationError(
                f"the Avro schema is not JSON: {error}", code="expression.bad_schema", hint="pass its JSON form"
            ) from error
    return _AvroReader().read(schema, "")


class _AvroReader:
    """Reads one schema; remembers the types it names."""

    def __init__(self) -> None:
        self._named: dict[str, CelType] = {}

    def read(self, schema: Any, namespace: str) -> CelType:
        if isinstance(schema, list):
            return self._union(schema, namespace)
        if isinstance(schema, str):
            return self._name(schema, namespace)
        if not isinstance(schema, Mapping) or "type" not in schema:
            raise ConfigurationError(
                f"{str(schema)[:60]!r} is no Avro schema",
                code="expression.bad_schema",
                hint='it needs a "type"',
            )
        kind = schema["type"]
        if isinstance(kind, (list, Mapping)):
            return self.read(kind, namespace)
        if kind in {"record", "error", "enum", "fixed"}:
            return self._define(kind, schema, namespace)
        if kind == "array":
            item = self.read(schema.get("items"), namespace)
            return CelType("list", (item,), avro=schema)
        if kind == "map":
            return CelType("map", (STRING, self.read(schema.get("values"), namespace)), avro=schema)
        return self._logical(schema, self._name(kind, namespace))

    def _logical(self, schema: Mapping[str, Any], plain: CelType) -> CelType:
        found = _LOGICAL.get(str(schema.get("logicalType")))
        if found is None:
            return replace(plain, avro=schema) if plain.avro is None else plain
        logical, foreign = found
        return replace(logical, foreign=foreign, avro=schema)

    def _union(self, schema: list[Any], namespace: str) -> CelType:
        branches = [self.read(branch, namespace) for branch in schema]
        others = [branch for branch in branches if branch.kind != "null"]
        if not others:
            return NULL
        if len(others) == 1:
            return nullable(others[0]) if len(branches) > 1 else others[0]
        first = others[0]
        if first.kind in SIMPLE and all(other.kind == first.kind for other in others):
            merged = replace(first, foreign=any(other.foreign for other in others), avro=schema)
            return nullable(merged) if len(others) < len(branches) else merged
        return replace(DYN, avro=schema)

    def _name(self, name: str, namespace: str) -> CelType:
        if name in _PRIMITIVES:
            return replace(_PRIMITIVES[name], avro=name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        found = self._named.get(full) or self._named.get(name)
        if found is None:
            raise ConfigurationError(
                f"the Avro schema names the unknown type {name[:60]!r}",
                code="expression.bad_schema",
                hint=type_hint(name, self._named),
            )
        return found

    def _define(self, kind: str, schema: Mapping[str, Any], namespace: str) -> CelType:
        name = str(schema.get("name", ""))
        space = name.rpartition(".")[0] or str(schema.get("namespace", namespace) or "")
        full = name if "." in name or not space else f"{space}.{name}"
        if kind == "enum":
            found = replace(STRING, avro=schema)
        elif kind == "fixed":
            found = self._logical(schema, replace(BYTES, avro=schema))
        else:
            self._named[full] = DYN
            fields = {str(one["name"]): self.read(one["type"], space) for one in schema.get("fields", ())}
            found = object_of(full, fields, schema)
        self._named[full] = found
        return found


def cel_to_avro(found: CelType) -> Any:
    """The Avro schema (JSON form) of values of a type: how `map` derives the schema of a field it sets.

    A type read from an Avro schema gives that schema. Raises `ConfigurationError` for types that Avro can't hold or that only the
    evaluation knows.
    """
    if found.kind == "null":
        return "null"
    schema = found.avro if found.avro is not None and not found.foreign else _plain_avro(found)
    if not found.nullable:
        return schema
    branches = schema if isinstance(schema, list) else [schema]
    return ["null", *(branch for branch in branches if branch != "null")]


def _plain_avro(found: CelType) -> Any:
    if found.kind in _TO_AVRO:
        return _TO_AVRO[found.kind]
    if found.kind == "list":
        return {"type": "array", "items": cel_to_avro(found.args[0])}
    if found.kind == "map" and found.args[0].kind == "string":
        return {"type": "map", "values": cel_to_avro(found.args[1])}
    hints = {
        "dyn": "say which it is with int(…), string(…), double(…) or bool(…)",
        "duration": "turn it into a number with getSeconds() or getMilliseconds(), or into text with string(…)",
        "map": "Avro's maps have strings as keys",
    }
    raise ConfigurationError(
        f"a value of type {found} has no Avro schema",
        code="expression.no_avro_type",
        hint=hints.get(found.kind, "make a number, text, list or map of it"),
    )


_TO_AVRO: dict[str, Any] = {
    "bool": "boolean",
    "int": "long",
    "uint": "long",
    "double": "double",
    "string": "string",
    "bytes": "bytes",
    "timestamp": {"type": "long", "logicalType": "timestamp-micros"},
}
