"""Which parts of a reader's schema meet which of a writer's: types by kind and name, fields by name and alias.

Source: https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
"""

from __future__ import annotations

from collections.abc import Iterator

from trunkline.registry.avrotype import AvroType, Field
from trunkline.registry.steps import Steps

PROMOTIONS: dict[str, frozenset[str]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""Which kinds a reader may have for what a writer wrote."""


def names_match(reader: AvroType, writer: AvroType) -> bool:
    """Whether a named type may read another: same name without its namespace, or an alias of the reader."""
    short = _short(writer.name)
    return _short(reader.name) == short or reader.has_alias(writer.name) or reader.has_alias(short)


def field_of_writer(field: Field, writer: AvroType) -> Field | None:
    """The writer's field that a reader's field is read from: the one of its name, else of one of its aliases."""
    found = writer.field_named(field.name)
    if found is None:
        found = next((known for alias in field.aliases if (known := writer.field_named(alias)) is not None), None)
    return found


class Branches:
    """The branches of a reader's union, found by what they may read."""

    def __init__(self, union: AvroType, steps: Steps) -> None:
        self._steps = steps
        self._found: dict[tuple[str, str], list[AvroType]] = {}
        self._plain = [branch for branch in union.branches if not branch.name]
        for branch in union.branches:
            steps.take(1 + len(branch.aliases))
            keys = {_short(branch.name), *branch.aliases} if branch.name else ()
            for key in keys:
                self._found.setdefault((branch.kind, key), []).append(branch)

    def reading(self, writer: AvroType) -> Iterator[AvroType]:
        """Those that may read what `writer` wrote, by kind and name: of its own kind and full name first, then in their order."""
        if not writer.name:
            promoted = PROMOTIONS.get(writer.kind, ())
            yield from (branch for branch in self._plain if branch.kind == writer.kind)
            yield from (branch for branch in self._plain if branch.kind in promoted)
            return
        alike = self._found.get((writer.kind, _short(writer.name)), [])
        self._steps.take(len(alike))
        yield from (branch for branch in alike if branch.name == writer.name)
        yield from (branch for branch in alike if branch.name != writer.name)
        if "." in writer.name:
            yield from self._found.get((writer.kind, writer.name), ())


def logical_conflict(reader: AvroType, writer: AvroType) -> bool:
    """Whether the same bytes mean other amounts: another scale of a decimal, another unit of a time."""
    if reader.logical is None or writer.logical is None:
        return False
    if reader.logical == "decimal" and writer.logical == "decimal":
        return reader.scale != writer.scale or reader.precision < writer.precision
    return reader.logical != writer.logical


def _short(name: str) -> str:
    """The name without its namespace."""
    return name[name.rfind(".") + 1 :]
