"""Avro schemas as objects: names resolved, references followed, every rule of the specification checked.

`parse_type` reads Avro's JSON form into a graph of `AvroType`; a recursive record is a cycle in that graph.

Source of the rules: https://avro.apache.org/docs/1.12.0/specification/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from trunkline.core.avro.names import type_hint
from trunkline.registry.avrotype import (
    INT_MAX,
    INT_MIN,
    LONG_MAX,
    LONG_MIN,
    NAMED,
    PRIMITIVES,
    AvroType,
    Field,
    shortened,
)
from trunkline.registry.defaults import Defaults
from trunkline.registry.schema_error import SchemaError
from trunkline.registry.source_json import require_plain, shown
from trunkline.registry.steps import Steps

__all__ = [
    "INT_MAX",
    "INT_MIN",
    "LONG_MAX",
    "LONG_MIN",
    "NAMED",
    "PRIMITIVES",
    "RESERVED",
    "AvroType",
    "Field",
    "Parsed",
    "SchemaError",
    "parse_schema",
    "parse_type",
]

MAX_NESTING: Final = 100
"""Levels of types inside types that a schema may have, with every named type written where it is used first: readers are recursive,
and a stack is finite."""
MAX_PRECISION: Final = 10_000
"""The most digits of a decimal: who writes one makes powers of ten that large."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LETTERS: Final = 16
"""Letters of a name that count as a step."""
_MISSING: Final = object()
RESERVED: Final = frozenset(
    {"type", "name", "namespace", "doc", "aliases", "fields", "items", "values", "symbols", "size"}
)
"""The attributes that Avro's own parser keeps for itself, whatever the type: elsewhere than where they belong it ignores them."""
_OF_FIELD: Final = frozenset({"type", "name", "doc", "aliases", "default", "order"})
"""What of a field is no attribute of one's own."""
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


class Parsed(NamedTuple):
    """A schema read. `borrowed` are the names of the types that its references define."""

    type: AvroType
    borrowed: frozenset[str]


def parse_type(
    source: Any, references: Iterable[Any] = (), *, strict: bool = True, steps: Steps | None = None
) -> AvroType:
    """The type that `source` (decoded JSON) describes; `references` are schemas whose named types it may use.

    `strict` also checks what a reader could live with, such as a default that does not match its field. Raises SchemaError.
    """
    return parse_schema(source, references, strict=strict, steps=steps).type


def parse_schema(
    source: Any, references: Iterable[Any] = (), *, strict: bool = True, steps: Steps | None = None
) -> Parsed:
    """As `parse_type`, with what is known beside the type."""
    parser = _Parser(steps or Steps())
    for reference in references:
        parser.read(reference)
    borrowed = set(parser.known)
    parser.strict = strict
    found = parser.read(source)
    _require_shallow(found, parser.steps)
    return Parsed(found, frozenset(name for name in borrowed if parser.defined_in[name] < parser.part - 1))


def _require_shallow(root: AvroType, steps: Steps) -> None:
    """Raises SchemaError where types reach deeper than `MAX_NESTING` by the names of others.

    They are visited as all that walk over a schema do: in the order in which they are written, each named type where it comes first.
    """
    seen = {id(root)}
    path = [iter(root.parts)]
    while path:
        node = next(path[-1], None)
        if node is None:
            path.pop()
            continue
        steps.take()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if len(path) > MAX_NESTING:
            raise SchemaError(f"types are nested more than {MAX_NESTING} levels deep, by the names of others")
        path.append(iter(node.parts))


class _Parser:
    """Reads references first, each of them a part, and the schema at last. References are read leniently."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.strict = False
        self.part = 0
        self.known: dict[str, AvroType] = {}
        self.defined_in: dict[str, int] = {}
        """The part that defined a name: two references may bring the same type along (a diamond), one part defines it once."""
        self.with_default: list[tuple[Field, str]] = []

    def read(self, source: Any) -> AvroType:
        """One part."""
        require_plain(source, self.steps)
        found = self.parse(source, "", "", 0)
        # After all types: a default is checked against the whole type, and a record may be inside itself.
        defaults = Defaults(self.steps)
        for each, where in self.with_default:
            self.default(defaults, each, where)
        self.with_default.clear()
        self.part += 1
        return found

    def parse(self, source: Any, namespace: str, where: str, depth: int) -> AvroType:
        self.steps.take()
        if depth > MAX_NESTING:
            raise SchemaError(f"types are nested more than {MAX_NESTING} levels deep", where=where[:80])
        if isinstance(source, str):
            return self.look_up(source, namespace, where)
        if isinstance(source, list):
            return self.union(source, namespace, where, depth)
        if not isinstance(source, dict):
            raise SchemaError(f"a type is a name, a list or an object, found {shown(source)}", where=where or "/")
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
            return AvroType(kind, items=items, props=self.props(source, RESERVED | {"default"}))
        if not isinstance(kind, str):
            raise SchemaError(f"`type` is a name, found {shown(kind)}", where=f"{where}/type")
        if kind in PRIMITIVES:
            made = AvroType(kind, props=self.props(source, RESERVED))
            self.annotate(made, source, where)
            return made
        return self.look_up(kind, namespace, where)

    def look_up(self, name: str, namespace: str, where: str) -> AvroType:
        if name in PRIMITIVES:
            return AvroType(name)
        # A name is written in full wherever it is used, so long ones cost more.
        self.steps.take((len(namespace) + len(name)) // _LETTERS)
        full = name if "." in name or not namespace else f"{namespace}.{name}"
        found = self.known.get(full) or self.known.get(name)
        if found is None:
            raise SchemaError(
                f"the type {shortened(name)!r} is not defined",
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
                raise SchemaError(f"the union holds {shortened(key)} twice", where=f"{where}/{index}")
            seen.add(key)
        return AvroType("union", branches=branches)

    def named(self, kind: str, source: dict[str, Any], namespace: str, where: str, depth: int) -> AvroType:
        full, inner = self.full_name(source, namespace, where)
        if self.defined_in.get(full) == self.part:
            raise SchemaError(f"the name {shortened(full)} is defined twice", where=where or "/")
        others = self.strings(source, "aliases", where)
        self.steps.take(len(inner) * len(others) // _LETTERS)
        aliases = tuple(a if "." in a or not inner else f"{inner}.{a}" for a in others)
        for alias in aliases if self.strict else ():
            _check_name(alias, f"{where}/aliases")
        doc = source.get("doc")
        made = AvroType(kind, name=full, aliases=aliases, doc=doc if isinstance(doc, str) else None)
        made.props = self.props(source, RESERVED | {"default"} if kind == "enum" else RESERVED)
        self.known[full] = made
        self.defined_in[full] = self.part
        if kind == "enum":
            self.enum(made, source, where)
        elif kind == "fixed":
            size = source.get("size")
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= INT_MAX:
                raise SchemaError(f"`size` is a number of bytes, found {shown(size)}", where=where or "/")
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
            raise SchemaError(f"`namespace` is text, found {shown(own)}", where=f"{where}/namespace")
        self.steps.take((len(own) + len(name)) // _LETTERS)
        full = name if "." in name or not own else f"{own}.{name}"
        if self.strict:
            _check_name(full, f"{where}/name")
        if full in PRIMITIVES:
            raise SchemaError(f"{full} is the name of a primitive type", where=f"{where}/name")
        return full, full.rpartition(".")[0]

    def enum(self, made: AvroType, source: dict[str, Any], where: str) -> None:
        if "symbols" not in source:
            raise SchemaError(f"the enum {made.label} has no `symbols`", where=where or "/")
        made.symbols = tuple(self.strings(source, "symbols", where))
        if len(set(made.symbols)) != len(made.symbols):
            raise SchemaError(f"the enum {made.label} names a symbol twice", where=f"{where}/symbols")
        for symbol in made.symbols if self.strict else ():
            if not _NAME.fullmatch(symbol):
                raise SchemaError(
                    f"{shortened(symbol)!r} is no valid enum symbol", where=f"{where}/symbols", hint=_NAME_HINT
                )
        default = source.get("default")
        if default is not None and not made.has_symbol(default):
            if self.strict:
                raise SchemaError(f"the default {shown(default)} is none of the symbols", where=f"{where}/default")
            default = None
        made.symbol_default = default

    def record(self, made: AvroType, source: dict[str, Any], namespace: str, where: str, depth: int) -> None:
        fields = source.get("fields")
        if not isinstance(fields, list):
            raise SchemaError(f"the record {made.label} has no list of `fields`", where=where or "/")
        seen: set[str] = set()
        for index, part in enumerate(fields):
            place = f"{where}/fields/{index}"
            if not isinstance(part, dict) or not isinstance(part.get("name"), str):
                raise SchemaError("a field is an object with a `name`", where=place)
            name = part["name"]
            if self.strict and not _NAME.fullmatch(name):
                raise SchemaError(f"{shortened(name)!r} is no valid field name", where=f"{place}/name", hint=_NAME_HINT)
            if name in seen:
                raise SchemaError(f"the record {made.label} has two fields named {shortened(name)}", where=place)
            seen.add(name)
            if "type" not in part:
                raise SchemaError(f"the field {shortened(name)} has no `type`", where=place)
            doc = part.get("doc")
            made.fields.append(
                Field(
                    name,
                    self.parse(part["type"], namespace, f"{place}/type", depth + 1),
                    "default" in part,
                    part.get("default"),
                    tuple(self.strings(part, "aliases", place)),
                    doc if isinstance(doc, str) else None,
                    self.props(part, _OF_FIELD) | ({"order": part["order"]} if "order" in part else {}),
                )
            )
            if "default" in part:
                self.with_default.append((made.fields[-1], f"{place}/default"))

    def default(self, defaults: Defaults, each: Field, where: str) -> None:
        try:
            if self.strict and not defaults.fits(each.type, each.default):
                raise SchemaError(
                    f"the default {shown(each.default)} of the field {shortened(each.name)} does not match its type {each.type.label}"
                )
            defaults.require_small(each.type, each.default)
        except SchemaError as error:
            error.where = error.where or where
            raise

    def props(self, source: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
        """What is said of a type or field beside what Avro knows of it."""
        self.steps.take(len(source))
        return {key: value for key, value in source.items() if key not in own}

    def strings(self, source: Mapping[str, Any], key: str, where: str) -> list[str]:
        found = source.get(key, [])
        if not isinstance(found, list) or not all(isinstance(part, str) for part in found):
            raise SchemaError(f"`{key}` is a list of names, found {shown(found)}", where=f"{where}/{key}")
        self.steps.take(len(found))
        return found

    def annotate(self, made: AvroType, source: dict[str, Any], where: str) -> None:
        logical = source.get("logicalType")
        if not isinstance(logical, str) or made.kind not in _LOGICAL.get(logical, ()):
            return
        if logical == "decimal":
            precision, scale = source.get("precision"), source.get("scale", 0)
            held = int((8 * made.size - 1) * 0.30102999566398120) if made.size else 0
            limit = MAX_PRECISION if made.kind == "bytes" else held if held <= 2 * MAX_PRECISION else 0
            fine = (
                isinstance(precision, int)
                and isinstance(scale, int)
                and 0 < precision <= limit
                and 0 <= scale <= precision
            )
            if not fine:
                if self.strict:
                    raise SchemaError(
                        f"decimal with precision {shown(precision)} and scale {shown(scale)} is not possible",
                        where=where or "/",
                    )
                return
            made.precision, made.scale = int(precision or 0), scale
        made.logical = logical


def _check_name(full: str, where: str) -> None:
    if not all(_NAME.fullmatch(part) for part in full.split(".")):
        raise SchemaError(f"{shortened(full)!r} is no valid name", where=where, hint=_NAME_HINT)


_NAME_HINT = "a name has letters, digits and underscores and does not begin with a digit"
