"""Avro schemas as objects: names resolved, references followed, every rule of the specification checked.

`parse_type` reads Avro's JSON form into a graph of `AvroType`; a recursive record is a cycle in that graph.

Source of the rules: https://avro.apache.org/docs/1.12.0/specification/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trunkline.core.avro.names import type_hint
from trunkline.core.errors import ConfigurationError

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED: Final = frozenset({"record", "enum", "fixed"})
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
MAX_NESTING = 100
"""Levels of types inside types that a schema may have: readers are recursive, and a stack is finite."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MISSING: Final = object()
_STRUCTURAL: Final = frozenset(
    {"type", "name", "namespace", "doc", "aliases", "fields", "items", "values", "symbols", "size"}
)
_LOGICAL: Final = {
    "decimal": {"bytes", "fixed"},
    "uuid": {"string"},
    "date": {"int"},
    "time-millis": {"int"},
    "time-micros": {"long"},
    "timestamp-millis": {"long"},
    "timestamp-micros": {"long"},
    "local-timestamp-millis": {"long"},
    "local-timestamp-micros": {"long"},
}


class SchemaError(ConfigurationError):
    """A schema breaks a rule of Avro; `where` is the path of the place, such as `/fields/3/type`."""

    code = "schema.invalid"


@dataclass(slots=True, eq=False)
class Field:
    """A field of a record; `default` is in JSON form, and means something only where `has_default`."""

    name: str
    type: AvroType
    has_default: bool = False
    default: Any = None
    aliases: tuple[str, ...] = ()
    doc: str | None = None
    props: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class AvroType:
    """One type. `kind` is the Avro type's own word, or `union`; which other attributes are set follows from it.

    `logical` is set only for a logical type that is valid where it stands: the specification has readers ignore any other.
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    doc: str | None = None
    fields: list[Field] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    symbol_default: str | None = None
    size: int = 0
    items: AvroType | None = None
    branches: tuple[AvroType, ...] = ()
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    props: dict[str, Any] = field(default_factory=dict)

    @property
    def element(self) -> AvroType:
        """The type of an array's items or a map's values."""
        assert self.items is not None
        return self.items

    @property
    def label(self) -> str:
        """The type as a reader of a message would call it: `int`, `flights.Departed`, `null or string`."""
        if self.kind == "union":
            return " or ".join(branch.label for branch in self.branches)
        if self.name:
            return self.name
        if self.logical:
            return f"{self.kind} ({self.logical})"
        return f"{self.kind} of {self.element.label}" if self.kind in {"array", "map"} else self.kind


def parse_type(source: Any, references: Iterable[Any] = (), *, strict: bool = True) -> AvroType:
    """The type that `source` (decoded JSON) describes; `references` are schemas whose named types it may use.

    `strict` also checks what a reader could live with, such as a default that does not match its field. Raises SchemaError.
    """
    parser = _Parser(strict)
    for reference in references:
        parser.parse_reference(reference)
    return parser.parse(source, "", "", 0)


class _Parser:
    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.known: dict[str, AvroType] = {}
        self.borrowed: set[str] = set()

    def parse_reference(self, source: Any) -> None:
        # Two references may bring the same type along (a diamond): the first definition is taken.
        apart = _Parser(False)
        apart.known = dict(self.known)
        apart.borrowed = set(self.known)
        apart.parse(source, "", "", 0)
        self.known = apart.known
        self.borrowed = set(self.known)

    def parse(self, source: Any, namespace: str, where: str, depth: int) -> AvroType:
        if depth > MAX_NESTING:
            raise SchemaError(f"types are nested more than {MAX_NESTING} levels deep", where=where[:80])
        if isinstance(source, str):
            return self.look_up(source, namespace, where)
        if isinstance(source, list):
            return self.union(source, namespace, where, depth)
        if not isinstance(source, dict):
            raise SchemaError(f"a type is a name, a list or an object, found {_shown(source)}", where=where or "/")
        kind = source.get("type", _MISSING)
        if kind is _MISSING:
            raise SchemaError("the type has no `type`", where=where or "/")
        if isinstance(kind, dict | list):
            if set(source) & {"fields", "symbols", "size", "items", "values"}:
                raise SchemaError("`type` must be the name of a type here", where=f"{where}/type")
            return self.parse(kind, namespace, f"{where}/type", depth + 1)
        if kind == "error":
            kind = "record"
        if kind in NAMED:
            return self.named(kind, source, namespace, where, depth)
        if kind in {"array", "map"}:
            part = "items" if kind == "array" else "values"
            if part not in source:
                raise SchemaError(f"the {kind} has no `{part}`", where=where or "/")
            items = self.parse(source[part], namespace, f"{where}/{part}", depth + 1)
            return AvroType(kind, items=items, props=_props(source, {"default"}))
        if not isinstance(kind, str):
            raise SchemaError(f"`type` is a name, found {_shown(kind)}", where=f"{where}/type")
        if kind in PRIMITIVES:
            made = AvroType(kind, props=_props(source))
            self.annotate(made, source, where)
            return made
        return self.look_up(kind, namespace, where)

    def look_up(self, name: str, namespace: str, where: str) -> AvroType:
        if name in PRIMITIVES:
            return AvroType(name)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        found = self.known.get(full) or self.known.get(name)
        if found is None:
            raise SchemaError(
                f"the type {name!r} is not defined",
                where=where or "/",
                hint=f"{type_hint(name, self.known)}, or give the schema that defines it as a reference",
            )
        return found

    def union(self, source: list[Any], namespace: str, where: str, depth: int) -> AvroType:
        branches = tuple(
            self.parse(part, namespace, f"{where}/{index}", depth + 1) for index, part in enumerate(source)
        )
        seen: set[str] = set()
        for index, branch in enumerate(branches):
            if branch.kind == "union":
                raise SchemaError("a union may not hold a union directly", where=f"{where}/{index}")
            key = branch.name or branch.kind
            if key in seen:
                raise SchemaError(f"the union holds {key} twice", where=f"{where}/{index}")
            seen.add(key)
        return AvroType("union", branches=branches)

    def named(self, kind: str, source: dict[str, Any], namespace: str, where: str, depth: int) -> AvroType:
        full, inner = self.full_name(source, namespace, where)
        if full in self.known and full not in self.borrowed:
            raise SchemaError(f"the name {full} is defined twice", where=where or "/")
        aliases = tuple(a if "." in a or not inner else f"{inner}.{a}" for a in _strings(source, "aliases", where))
        for alias in aliases if self.strict else ():
            _check_name(alias, f"{where}/aliases")
        doc = source.get("doc")
        made = AvroType(kind, name=full, aliases=aliases, doc=doc if isinstance(doc, str) else None)
        made.props = _props(source, {"default"} if kind == "enum" else set())
        self.known[full] = made
        self.borrowed.discard(full)
        if kind == "enum":
            self.enum(made, source, where)
        elif kind == "fixed":
            size = source.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= INT_MAX:
                raise SchemaError(f"`size` is a number of bytes, found {_shown(size)}", where=where or "/")
            made.size = size
            self.annotate(made, source, where)
        else:
            self.record(made, source, inner, where, depth)
        return made

    def full_name(self, source: dict[str, Any], namespace: str, where: str) -> tuple[str, str]:
        name = source.get("name")
        if not isinstance(name, str) or not name:
            raise SchemaError(f"the {source['type']} has no `name`", where=where or "/")
        own = source.get("namespace", namespace)
        if not isinstance(own, str):
            raise SchemaError(f"`namespace` is text, found {_shown(own)}", where=f"{where}/namespace")
        full = name if "." in name or not own else f"{own}.{name}"
        if self.strict:
            _check_name(full, f"{where}/name")
        if full in PRIMITIVES:
            raise SchemaError(f"{full} is the name of a primitive type", where=f"{where}/name")
        return full, full.rpartition(".")[0]

    def enum(self, made: AvroType, source: dict[str, Any], where: str) -> None:
        if "symbols" not in source:
            raise SchemaError(f"the enum {made.name} has no `symbols`", where=where or "/")
        made.symbols = tuple(_strings(source, "symbols", where))
        if len(set(made.symbols)) != len(made.symbols):
            raise SchemaError(f"the enum {made.name} names a symbol twice", where=f"{where}/symbols")
        for symbol in made.symbols if self.strict else ():
            if not _NAME.fullmatch(symbol):
                raise SchemaError(f"{symbol!r} is no valid enum symbol", where=f"{where}/symbols", hint=_NAME_HINT)
        default = source.get("default")
        if default is not None and default not in made.symbols:
            if self.strict:
                raise SchemaError(f"the default {_shown(default)} is none of the symbols", where=f"{where}/default")
            default = None
        made.symbol_default = default

    def record(self, made: AvroType, source: dict[str, Any], namespace: str, where: str, depth: int) -> None:
        fields = source.get("fields")
        if not isinstance(fields, list):
            raise SchemaError(f"the record {made.name} has no list of `fields`", where=where or "/")
        seen: set[str] = set()
        for index, part in enumerate(fields):
            place = f"{where}/fields/{index}"
            if not isinstance(part, dict) or not isinstance(part.get("name"), str):
                raise SchemaError("a field is an object with a `name`", where=place)
            name = part["name"]
            if self.strict and not _NAME.fullmatch(name):
                raise SchemaError(f"{name!r} is no valid field name", where=f"{place}/name", hint=_NAME_HINT)
            if name in seen:
                raise SchemaError(f"the record {made.name} has two fields named {name}", where=place)
            seen.add(name)
            if "type" not in part:
                raise SchemaError(f"the field {name} has no `type`", where=place)
            doc = part.get("doc")
            made.fields.append(
                Field(
                    name,
                    self.parse(part["type"], namespace, f"{place}/type", depth + 1),
                    "default" in part,
                    part.get("default"),
                    tuple(_strings(part, "aliases", place)),
                    doc if isinstance(doc, str) else None,
                    _props(part, {"default", "order"}) | ({"order": part["order"]} if "order" in part else {}),
                )
            )
        if self.strict:
            # After all fields: the default of a recursive type is checked against the whole type.
            for index, each in enumerate(made.fields):
                if each.has_default and not default_fits(each.type, each.default):
                    raise SchemaError(
                        f"the default {_shown(each.default)} of the field {each.name} does not match its type {each.type.label}",
                        where=f"{where}/fields/{index}/default",
                    )

    def annotate(self, made: AvroType, source: dict[str, Any], where: str) -> None:
        logical = source.get("logicalType")
        if not isinstance(logical, str) or made.kind not in _LOGICAL.get(logical, ()):
            return
        if logical == "decimal":
            precision, scale = source.get("precision"), source.get("scale", 0)
            limit = (
                10**9 if made.kind == "bytes" else int((8 * made.size - 1) * 0.30102999566398120) if made.size else 0
            )
            fine = (
                isinstance(precision, int)
                and isinstance(scale, int)
                and 0 < precision <= limit
                and 0 <= scale <= precision
            )
            if not fine:
                if self.strict:
                    raise SchemaError(
                        f"decimal with precision {_shown(precision)} and scale {_shown(scale)} is not possible",
                        where=where or "/",
                    )
                return
            made.precision, made.scale = int(precision or 0), scale
        made.logical = logical


def default_fits(expected: AvroType, default: Any) -> bool:
    """Whether a default in JSON form matches its type; of a union any branch may match (Avro 1.12), the first by habit."""
    kind = expected.kind
    if kind == "union":
        return any(default_fits(branch, default) for branch in expected.branches)
    if kind == "null":
        return default is None
    if kind == "boolean":
        return isinstance(default, bool)
    if kind in {"int", "long"}:
        low, high = (INT_MIN, INT_MAX) if kind == "int" else (LONG_MIN, LONG_MAX)
        return isinstance(default, int) and not isinstance(default, bool) and low <= default <= high
    if kind in {"float", "double"}:
        return isinstance(default, int | float) and not isinstance(default, bool)
    if kind == "string":
        return isinstance(default, str)
    if kind in {"bytes", "fixed"}:
        fits = isinstance(default, str) and all(ord(letter) < 256 for letter in default)
        return fits and (kind == "bytes" or len(default) == expected.size)
    if kind == "enum":
        return default in expected.symbols
    if kind == "array":
        return isinstance(default, list) and all(default_fits(expected.element, item) for item in default)
    if not isinstance(default, dict):
        return False
    if kind == "map":
        return all(default_fits(expected.element, item) for item in default.values())
    return all(
        default_fits(each.type, default[each.name]) if each.name in default else each.has_default
        for each in expected.fields
    )


def _props(source: Mapping[str, Any], also: Iterable[str] = ()) -> dict[str, Any]:
    skip = _STRUCTURAL | set(also)
    return {key: value for key, value in source.items() if key not in skip}


def _strings(source: Mapping[str, Any], key: str, where: str) -> list[str]:
    found = source.get(key, [])
    if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
        raise SchemaError(f"`{key}` is a list of names, found {_shown(found)}", where=f"{where}/{key}")
    return found


def _check_name(full: str, where: str) -> None:
    if not all(_NAME.fullmatch(part) for part in full.split(".")):
        raise SchemaError(f"{full!r} is no valid name", where=where, hint=_NAME_HINT)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_NAME_HINT = "a name has letters, digits and underscores and does not begin with a digit"
