"""The offset tracker: which offsets of a partition are settled, and how far a commit may go."""

from __future__ import annotations

from array import array
from collections import Counter, deque

from trunkline.bus.ledger import Ledger, Outcome


class OffsetTracker:
    """Tracks one partition during one assignment.

    Offsets are added in the order they are read and settled in any order; `commit` is the highest contiguous settled offset
    plus one. Not thread-safe: its owner holds the partition's lock.
    """

    def __init__(self, position: int, ledger: Ledger) -> None:
        self.commit = position
        """The offset to commit: everything below it is settled."""
        self.ledger = ledger
        """Accounts for exactly the records below `commit`."""
        self._order: deque[int] = deque()
        self._settled: dict[int, tuple[Outcome, int]] = {}
        self._last = position - 1

    def add(self, offset: int) -> None:
        """A record was read. Offsets only grow: gaps are markers, aborted records and compaction."""
        assert offset > self._last, f"offset {offset} after {self._last}"
        self._last = offset
        self._order.append(offset)

    def settle(self, offset: int, outcome: Outcome, outputs: int = 0) -> None:
        """The record at `offset` ended in `outcome`. Raises KeyError for one that is not pending."""
        if offset in self._settled or offset > self._last or not self._order or offset < self._order[0]:
            raise KeyError(offset)
        self._settled[offset] = (outcome, outputs)

    def released(self, offset: int, outcome: Outcome) -> None:
        """The record at `offset`, which was settled as parked, ended so. Behind `commit` the ledger has it: nothing changes."""
        if offset in self._settled:
            self._settled[offset] = (outcome, int(outcome == "delivered"))

    def advance(self) -> bool:
        """Moves `commit` over what is settled without a gap. True when it moved."""
        # I1: no commit passes an offset that is not settled.
        passed: array[int] = array("q")
        counts: Counter[str] = Counter()
        order, settled = self._order, self._settled
        while order and order[0] in settled:
            offset = order.popleft()
            outcome, outputs = settled.pop(offset)
            counts[outcome] += 1
            counts["outputs"] += outputs
            passed.append(offset)
        if not passed:
            return False
        # I13: the ledger accounts for exactly the records below the commit: both move here, together.
        self.ledger.add(passed, **counts)
        self.commit = passed[-1] + 1
        return True

    def passed(self, offset: int) -> bool:
        """Whether every record read below `offset` is behind `commit`."""
        return not self._order or self._order[0] >= offset

    @property
    def pending(self) -> int:
        """Records read that no commit can pass yet."""
        return len(self._order)
