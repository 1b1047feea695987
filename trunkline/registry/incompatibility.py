"""What speaks against a reader's and a writer's type, in words. The names are those of Avro's Java library, which registries report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from trunkline.registry.avrotype import AvroType, shortened
from trunkline.registry.matching import logical_conflict, names_match
from trunkline.registry.steps import Steps

_SHOWN_SYMBOLS: Final = 20
_SHOWN_PARTS: Final = 300


@dataclass(frozen=True, slots=True)
class Incompatibility:
    """One reason. `path` is that of the place in the reader's schema, such as `/fields/3/type`."""

    kind: str
    message: str
    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.path}: {self.message}"


class Place:
    """Where in the reader's schema, written only where somebody is told: there may be many places, and deep ones."""

    __slots__ = ("above", "part")

    def __init__(self, above: Place | None = None, part: str = "") -> None:
        self.above = above
        self.part = part

    def below(self, part: str) -> Place:
        """A place one level below."""
        return Place(self, part)

    def __str__(self) -> str:
        parts: list[str] = []
        place: Place | None = self
        while place is not None and len(parts) < _SHOWN_PARTS:
            parts.append(place.part)
            place = place.above
        return ("…" if place is not None else "") + "".join(reversed(parts))


def own_reasons(reader: AvroType, writer: AvroType, place: Place, steps: Steps) -> Iterator[Incompatibility]:
    """What speaks against two types of one kind by themselves: names, sizes, symbols, units; nothing of what is inside them."""
    if reader.name and not names_match(reader, writer):
        message = f"the reader expects the name {shortened(reader.name)}, the writer has {shortened(writer.name)}"
        yield Incompatibility("NAME_MISMATCH", message, f"{place}/name", f"expected: {shortened(writer.name)}")
    if reader.kind == "fixed" and reader.size != writer.size:
        message = f"the reader expects {reader.size} bytes, the writer has {writer.size}"
        detail = f"expected: {reader.size}, found: {writer.size}"
        yield Incompatibility("FIXED_SIZE_MISMATCH", message, f"{place}/size", detail)
    if reader.kind == "enum" and reader.symbol_default is None:
        steps.take(len(writer.symbols))
        missing = [symbol for symbol in writer.symbols if not reader.has_symbol(symbol)]
        if missing:
            more = ", …" if len(missing) > _SHOWN_SYMBOLS else ""
            listed = ", ".join(map(shortened, missing[:_SHOWN_SYMBOLS])) + more
            message = f"the reader lacks the symbols {listed} and has no default symbol"
            yield Incompatibility("MISSING_ENUM_SYMBOLS", message, f"{place}/symbols", f"[{listed}]")
    if reader.kind != "record" and logical_conflict(reader, writer):
        message = f"the reader takes the bytes for {_unit(reader)}, the writer wrote {_unit(writer)}"
        yield Incompatibility("TYPE_MISMATCH", message, str(place) or "/", message)


def mismatch(reader: AvroType, writer: AvroType, place: Place) -> Incompatibility:
    """The reader's kind can't read the writer's."""
    message = f"the reader's type {reader.label} can't read the writer's {writer.label}"
    detail = f"reader type: {reader.kind.upper()} not compatible with writer type: {writer.kind.upper()}"
    return Incompatibility("TYPE_MISMATCH", message, str(place) or "/", detail)


def lacking(writer: AvroType, place: Place) -> Incompatibility:
    """No branch of the reader's union reads it."""
    message = f"the reader's union has no branch for the writer's {writer.label}"
    detail = f"reader union lacking writer type: {writer.kind.upper()}"
    return Incompatibility("MISSING_UNION_BRANCH", message, str(place) or "/", detail)


def missing_field(name: str, place: Place) -> Incompatibility:
    """The writer does not have the reader's field."""
    name = shortened(name)
    message = f"the reader's field {name} has no default and the writer does not have it"
    return Incompatibility("READER_FIELD_MISSING_DEFAULT_VALUE", message, str(place), name)


def _unit(node: AvroType) -> str:
    return f"decimal({node.precision}, {node.scale})" if node.logical == "decimal" else str(node.logical)
