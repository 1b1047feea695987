"""Whether data written with one schema can be read with another, and where not.

The rules are Avro's schema resolution, and two more that keep readers from silently wrong values: a decimal keeps its scale,
and a time keeps its unit, for the bytes are the same and libraries don't convert them. The names of incompatibilities are those
of Avro's Java library, which registries report.

The work is near to linear in the two schemas: branches of unions are found by their names, and two records are compared once, however
often and in however many places they meet. It is counted in steps.

Source: https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
"""

from __future__ import annotations

from typing import Final, Literal

from trunkline.registry.avrotype import AvroType
from trunkline.registry.comparison import Comparison
from trunkline.registry.incompatibility import Incompatibility, Place, lacking, mismatch, missing_field, own_reasons
from trunkline.registry.matching import PROMOTIONS, field_of_writer
from trunkline.registry.steps import Steps

__all__ = ["LEVELS", "MAX_REASONS", "Incompatibility", "Level", "breaks", "incompatibilities"]

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
MAX_REASONS: Final = 100
"""The most incompatibilities that are told of one pair of schemas."""


def incompatibilities(reader: AvroType, writer: AvroType, steps: Steps | None = None) -> list[Incompatibility]:
    """Why `reader` can't read what `writer` wrote (the first `MAX_REASONS`); nothing where it can read all of it.

    What is wrong between two records is told once, at the place where they meet first. Raises TooCostlyError.
    """
    steps = steps or Steps()
    comparison = Comparison(steps)
    return [] if comparison.can_read(reader, writer) else _Reasons(comparison, steps).collect(reader, writer)


def breaks(new: AvroType, old: AvroType, level: Level, steps: Steps | None = None) -> list[Incompatibility]:
    """Every reason why `new` may not follow `old` at that compatibility level (of transitive levels: for this one `old`)."""
    steps = steps or Steps()
    found: list[Incompatibility] = []
    if level.startswith(("BACKWARD", "FULL")):
        found += incompatibilities(new, old, steps)
    if level.startswith(("FORWARD", "FULL")):
        found += incompatibilities(old, new, steps)
    return found


class _Reasons:
    """Collects what speaks against a pair, once everything is judged."""

    def __init__(self, judged: Comparison, steps: Steps) -> None:
        self._judged = judged
        self._steps = steps
        self._found: list[Incompatibility] = []
        self._told: set[tuple[int, int]] = set()
        self._waiting: list[Incompatibility | tuple[AvroType, AvroType, Place]] = []
        """What is to be looked at, the next one last; and what is known, in its turn."""

    def collect(self, reader: AvroType, writer: AvroType) -> list[Incompatibility]:
        self._waiting = [(reader, writer, Place())]
        while self._waiting and len(self._found) < MAX_REASONS:
            found = self._waiting.pop()
            if isinstance(found, Incompatibility):
                self._found.append(found)
            else:
                self._look(*found)
        return self._found[:MAX_REASONS]

    def _look(self, reader: AvroType, writer: AvroType, place: Place) -> None:
        self._steps.take()
        if writer.kind == "union" or reader.kind == "union":
            self._look_at_union(reader, writer, place)
        elif reader.kind != writer.kind:
            if reader.kind not in PROMOTIONS.get(writer.kind, ()):
                self._found.append(mismatch(reader, writer, place))
        elif reader.kind in {"array", "map"}:
            part = "items" if reader.kind == "array" else "values"
            self._waiting.append((reader.element, writer.element, place.below(f"/{part}")))
        else:
            self._found += own_reasons(reader, writer, place, self._steps)
            if reader.kind == "record":
                self._look_at_fields(reader, writer, place)

    def _look_at_union(self, reader: AvroType, writer: AvroType, place: Place) -> None:
        if writer.kind != "union":
            if not self._judged.takes(reader, writer):
                self._found.append(lacking(writer, place))
        elif reader.kind != "union":
            self._waiting += [(reader, branch, place) for branch in reversed(writer.branches)]
        else:
            for index, branch in enumerate(writer.branches):
                if len(self._found) < MAX_REASONS and not self._judged.takes(reader, branch):
                    self._found.append(lacking(branch, place.below(f"/{index}")))

    def _look_at_fields(self, reader: AvroType, writer: AvroType, place: Place) -> None:
        key = (id(reader), id(writer))
        if key in self._told:
            return
        self._told.add(key)
        below: list[Incompatibility | tuple[AvroType, AvroType, Place]] = []
        for index, field in enumerate(reader.fields):
            self._steps.take()
            source = field_of_writer(field, writer)
            if source is not None:
                below.append((field.type, source.type, place.below(f"/fields/{index}/type")))
            elif not field.has_default:
                below.append(missing_field(field.name, place.below(f"/fields/{index}")))
        self._waiting += reversed(below)
