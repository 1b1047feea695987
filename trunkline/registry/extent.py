"""How far a schema spreads when it is followed: by code that is written for it, or by a datum of few bytes.

A named type may be used in many places, each of which uses others: twenty records can stand for a million places.
"""

from __future__ import annotations

from typing import NamedTuple

from trunkline.registry.avrotype import AvroType


class Extent(NamedTuple):
    """What one type spreads to, in a schema without recursion.

    * `values`: the types that it has when each stands where it is used.
    * `alternatives`: the most branches of unions that stand before a place, counted along the way to it.
    * `empty`: the most values that take no bytes in a datum, but for items of arrays and maps, and what a union's branch costs with its
      index.
    """

    values: int = 1
    alternatives: int = 0
    empty: int = 0


class Extents:
    """The extents of the types of one schema, each found once. Where a type holds itself, it counts as nothing there."""

    def __init__(self) -> None:
        self._found: dict[int, Extent] = {}

    def of(self, node: AvroType) -> Extent:
        """The extent of a type."""
        found = self._found.get(id(node))
        if found is None:
            self._found[id(node)] = Extent()
            found = self._found[id(node)] = self._measured(node)
        return found

    def _measured(self, node: AvroType) -> Extent:
        below = [self.of(part) for part in node.parts]
        values = 1 + sum(part.values for part in below)
        if node.kind == "union":
            alternatives = max((index + 1 + part.alternatives for index, part in enumerate(below)), default=0)
            return Extent(values, alternatives, max((part.empty - 1 for part in below if part.empty), default=0))
        alternatives = max((part.alternatives for part in below), default=0)
        if node.kind == "record":
            return Extent(values, alternatives, sum(part.empty for part in below) if below else 1)
        if node.kind in {"array", "map"}:
            return Extent(values, alternatives, 0)
        return Extent(values, alternatives, 1 if node.kind == "null" or (node.kind == "fixed" and not node.size) else 0)
