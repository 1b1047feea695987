"""Whether data written with one schema can be read with another, and where not.

The rules are Avro's schema resolution, and two more that keep readers from silently wrong values: a decimal keeps its scale,
and a time keeps its unit, for the bytes are the same and libraries don't convert them. The names of incompatibilities are those
of Avro's Java library, which registries report.

Source: https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trunkline.registry.model import AvroType, Field

Level = Literal["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]
LEVELS: tuple[Level, ...] = (
    "NONE",
    "BACKWARD",
    "BACKWARD_TRANSITIVE",
    "FORWARD",
    "FORWARD_TRANSITIVE",
    "FULL",
    "FULL_TRANSITIVE",
)
PROMOTIONS: dict[str, frozenset[str]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}
"""Which kinds a reader may have for what a writer wrote."""


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One reason. `path` is that of the place in the reader's schema, such as `/fields/3/type`."""

    kind: str
    message: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.path}: {self.message}"


def incompatibilities(reader: AvroType, writer: AvroType) -> list[Incompatibility]:
    """Every reason why `reader` can't read what `writer` wrote; none where it can read all of it."""
    return _Comparison().compare(reader, writer, "")


def breaks(new: AvroType, old: AvroType, level: Level) -> list[Incompatibility]:
    """Every reason why `new` may not follow `old` at that compatibility level (of transitive levels: for this one `old`)."""
    found: list[Incompatibility] = []
    if level.startswith(("BACKWARD", "FULL")):
        found += incompatibilities(new, old)
    if level.startswith(("FORWARD", "FULL")):
        found += incompatibilities(old, new)
    return found


def names_match(reader: AvroType, writer: AvroType) -> bool:
    """Whether a named type may read another: same name without its namespace, or an alias of the reader."""
    short = writer.name.rpartition(".")[2]
    return reader.name.rpartition(".")[2] == short or any(alias in {writer.name, short} for alias in reader.aliases)


def field_of_writer(field: Field, writer: AvroType) -> Field | None:
    """The writer's field that a reader's field is read from: the one of its name, else of one of its aliases."""
    by_name = {each.name: each for each in writer.fields}
    return next((by_name[name] for name in (field.name, *field.aliases) if name in by_name), None)


class _Comparison:
    def __init__(self) -> None:
        self.under_way: set[tuple[int, int]] = set()

    def compare(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        pair = (id(reader), id(writer))
        if pair in self.under_way:
            return []
        self.under_way.add(pair)
        try:
            return self.by_kind(reader, writer, path)
        finally:
            self.under_way.discard(pair)

    def by_kind(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        if writer.kind == "union":
            found: list[Incompatibility] = []
            for index, branch in enumerate(writer.branches):
                if reader.kind != "union":
                    found += self.compare(reader, branch, path)
                elif not self.takes(reader, branch, path):
                    found.append(_lacking(branch, f"{path}/{index}"))
            return found
        if reader.kind == "union":
            return [] if self.takes(reader, writer, path) else [_lacking(writer, path)]
        if reader.kind != writer.kind:
            return [] if reader.kind in PROMOTIONS.get(writer.kind, ()) else [_mismatch(reader, writer, path)]
        if reader.kind == "array":
            return self.compare(reader.element, writer.element, f"{path}/items")
        if reader.kind == "map":
            return self.compare(reader.element, writer.element, f"{path}/values")
        found = []
        if reader.name and not names_match(reader, writer):
            message = f"the reader expects the name {reader.name}, the writer has {writer.name}"
            found.append(Incompatibility("NAME_MISMATCH", message, f"{path}/name", f"expected: {writer.name}"))
        if reader.kind == "fixed" and reader.size != writer.size:
            message = f"the reader expects {reader.size} bytes, the writer has {writer.size}"
            detail = f"expected: {reader.size}, found: {writer.size}"
            found.append(Incompatibility("FIXED_SIZE_MISMATCH", message, f"{path}/size", detail))
        if reader.kind == "enum" and reader.symbol_default is None:
            missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if missing:
                message = f"the reader lacks the symbols {', '.join(missing)} and has no default symbol"
                found.append(
                    Incompatibility("MISSING_ENUM_SYMBOLS", message, f"{path}/symbols", f"[{', '.join(missing)}]")
                )
        if reader.kind == "record":
            found += self.fields(reader, writer, path)
        elif logical_conflict(reader, writer):
            message = f"the reader takes the bytes for {_unit(reader)}, the writer wrote {_unit(writer)}"
            found.append(Incompatibility("TYPE_MISMATCH", message, path or "/", message))
        return found

    def fields(self, reader: AvroType, writer: AvroType, path: str) -> list[Incompatibility]:
        found: list[Incompatibility] = []
        for index, field in enumerate(reader.fields):
            source = field_of_writer(field, writer)
            if source is not None:
                found += self.compare(field.type, source.type, f"{path}/fields/{index}/type")
            elif not field.has_default:
                message = f"the reader's field {field.name} has no default and the writer does not have it"
                found.append(
                    Incompatibility("READER_FIELD_MISSING_DEFAULT_VALUE", message, f"{path}/fields/{index}", field.name)
                )
        return found

    def takes(self, union: AvroType, writer: AvroType, path: str) -> bool:
        return any(not self.compare(branch, writer, path) for branch in union.branches)


def logical_conflict(reader: AvroType, writer: AvroType) -> bool:
    """Whether the same bytes mean other amounts: another scale of a decimal, another unit of a time."""
    if reader.logical is None or writer.logical is None:
        return False
    if reader.logical == "decimal" and writer.logical == "decimal":
        return reader.scale != writer.scale or reader.precision < writer.precision
    return reader.logical != writer.logical


def _unit(node: AvroType) -> str:
    return f"decimal({node.precision}, {node.scale})" if node.logical == "decimal" else str(node.logical)


def _mismatch(reader: AvroType, writer: AvroType, path: str) -> Incompatibility:
    message = f"the reader's type {reader.label} can't read the writer's {writer.label}"
    detail = f"reader type: {reader.kind.upper()} not compatible with writer type: {writer.kind.upper()}"
    return Incompatibility("TYPE_MISMATCH", message, path or "/", detail)


def _lacking(writer: AvroType, path: str) -> Incompatibility:
    message = f"the reader's union has no branch for the writer's {writer.label}"
    return Incompatibility(
        "MISSING_UNION_BRANCH", message, path or "/", f"reader union lacking writer type: {writer.kind.upper()}"
    )
