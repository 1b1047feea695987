"""Whether one schema can read what another one wrote, in work that is near to linear in the two.

Branches of unions are found by their names, and two records are compared once, however often and in however many places they meet.
"""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.registry.avrotype import AvroType
from trunkline.registry.incompatibility import Place, own_reasons
from trunkline.registry.matching import PROMOTIONS, Branches, field_of_writer, names_match
from trunkline.registry.steps import Steps

_Pair = tuple[AvroType, AvroType]
_Key = tuple[int, int]
_NOWHERE = Place()


class Comparison:
    """Compares readers with writers; of two records it is found once whether one can read the other.

    A record that holds itself leads back to a pair that is not judged yet. Every pair counts as readable until it is found not to be;
    then those are judged again that relied on it. What is left holds, for nothing speaks against it.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._bad: set[_Key] = set()
        self._seen: dict[_Key, _Pair] = {}
        self._relying: dict[_Key, set[_Key]] = {}
        """By a pair of records those whose judgement relies on it."""
        self._new: list[_Key] = []
        self._again: set[_Key] = set()
        self._judged: _Key | None = None
        self._branches: dict[int, Branches] = {}

    def can_read(self, reader: AvroType, writer: AvroType) -> bool:
        """Whether `reader` can read all that `writer` wrote."""
        while True:
            self._judged = None
            found = self._fits(reader, writer)
            if not self._new and not self._again:
                return found
            self._settle()

    def takes(self, union: AvroType, writer: AvroType) -> bool:
        """Whether a branch of the reader's union reads what the writer wrote, as far as is known."""
        branches = self._branches.get(id(union))
        if branches is None:
            branches = self._branches[id(union)] = Branches(union, self._steps)
        return any(self._fits(branch, writer) for branch in branches.reading(writer))

    def _settle(self) -> None:
        while self._new or self._again:
            if self._new:
                waiting: Iterable[_Key] = self._new
                self._new = []
            else:
                waiting, self._again = self._again, set()
            for key in waiting:
                if key not in self._bad and not self._judge(key):
                    self._bad.add(key)
                    self._again |= self._relying.pop(key, set()) - self._bad

    def _judge(self, key: _Key) -> bool:
        reader, writer = self._seen[key]
        self._judged = key
        self._steps.take(len(reader.fields))
        for field in reader.fields:
            source = field_of_writer(field, writer)
            if source is not None:
                if not self._fits(field.type, source.type):
                    return False
            elif not field.has_default:
                return False
        return True

    def _fits(self, reader: AvroType, writer: AvroType) -> bool:
        self._steps.take()
        if writer.kind == "union":
            return all(
                self.takes(reader, branch) if reader.kind == "union" else self._fits(reader, branch)
                for branch in writer.branches
            )
        if reader.kind == "union":
            return self.takes(reader, writer)
        if reader.kind != writer.kind:
            return reader.kind in PROMOTIONS.get(writer.kind, ())
        if reader.kind in {"array", "map"}:
            return self._fits(reader.element, writer.element)
        if reader.kind == "record":
            return names_match(reader, writer) and self._records_fit(reader, writer)
        return next(own_reasons(reader, writer, _NOWHERE, self._steps), None) is None

    def _records_fit(self, reader: AvroType, writer: AvroType) -> bool:
        key = (id(reader), id(writer))
        self._steps.take(3)  # what is kept of it takes room
        if key in self._bad:
            return False
        if key not in self._seen:
            self._seen[key] = (reader, writer)
            self._new.append(key)
        if self._judged is not None:
            self._relying.setdefault(key, set()).add(self._judged)
        return True
