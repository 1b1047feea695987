"""What setting a pipeline's offsets would do, partition by partition, worked out before anything is changed. Knows no Kafka client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from trunkline.bus.kafka.cluster import Place
from trunkline.bus.knownoffsets import Reached
from trunkline.bus.ledger import Ledger

Word = Literal["earliest", "latest", "saved", "after-gap", "adopt"]
Target = Word | datetime | int
"""Where to: the first record, the end, what workers reported last, behind records that were deleted unread, the offset that was
reached in another topic of the name, the first record of a time, or an offset."""


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a pipeline stands in one partition, and what the partition has.

    `committed` is None where there is no commit; `ledger` is that of the commit. `known` is the second copy, by topic id. `at` is the
    offset that a time means here, None where no time was asked for.
    """

    place: Place
    topic_id: str
    first: int
    end: int
    committed: int | None
    ledger: Ledger
    known: Mapping[str, Reached]
    at: int | None = None

    @property
    def position(self) -> int | None:
        """Where it would go on without a change; None where it would not: nothing is committed in this topic."""
        return self.committed if self.ledger.topic_id in {"", self.topic_id} else None

    @property
    def former(self) -> tuple[str, int] | None:
        """The other topic of this name that it read before, and how far; None where it read none."""
        if self.position is not None:
            return None
        if self.committed is not None:
            return self.ledger.topic_id, self.committed
        others = [(topic_id, reached.offset) for topic_id, reached in self.known.items() if topic_id]
        return others[-1] if others and self.topic_id not in self.known else None

    @property
    def saved(self) -> int | None:
        """What workers reported last of this topic."""
        reached = self.known.get(self.topic_id, self.known.get(""))
        return reached.offset if reached is not None else None

    @property
    def epoch(self) -> int:
        """The epoch that a change begins."""
        known = max((reached.epoch for reached in self.known.values()), default=0)
        return max(known, self.ledger.epoch if self.committed is not None else 0) + 1


@dataclass(frozen=True, slots=True)
class Move:
    """What becomes of one partition. Records are counted between offsets; `exact` says that they are, and not their offsets."""

    topic: str
    partition: int
    topic_id: str
    committed: int | None
    """The commit before, of whatever topic; None where there was none."""
    offset: int
    epoch: int
    first: int
    end: int
    again: int = 0
    """Records that were read and will be read once more."""
    skipped: int = 0
    """Records that were not read and never will be."""
    lost: int = 0
    """Offsets that were deleted before they were read."""
    exact: bool = True

    @property
    def place(self) -> Place:
        """Topic and partition."""
        return self.topic, self.partition

    def commit(self) -> tuple[int, str]:
        """The offset and the metadata of the commit that does it."""
        return self.offset, Ledger(first=self.offset, epoch=self.epoch, topic_id=self.topic_id).to_metadata()

    def as_dict(self) -> dict[str, Any]:
        """The move as data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Ranges:
    """The offsets that a move passes over: from `again` on they are read once more, from `skipped` on they are not read. End exclusive."""

    again: tuple[int, int]
    skipped: tuple[int, int]


def move(stand: Stand, target: Target) -> Move | None:
    """The move of one partition; None where it stays. Its records are not counted yet: see `ranges` and `counted`."""
    offset = _offset(stand, target)
    if offset is None or (offset == stand.position and stand.committed is not None):
        return None
    reached = stand.position if stand.position is not None else stand.saved
    lost = max(0, stand.first - reached) if reached is not None else 0
    return Move(*stand.place, stand.topic_id, stand.committed, offset, stand.epoch, stand.first, stand.end, lost=lost)


def ranges(stand: Stand, moved: Move) -> Ranges:
    """What is read again and what is passed over."""
    reached = stand.position if stand.position is not None else stand.saved
    low = max(stand.first, reached if reached is not None else stand.first)
    return Ranges((max(moved.offset, stand.first), min(low, stand.end)), (low, moved.offset))


def gap(stand: Stand) -> int:
    """How many offsets were deleted before they were read."""
    return max(0, stand.first - stand.position) if stand.position is not None else 0


def _offset(stand: Stand, target: Target) -> int | None:
    """The offset that the target means in this partition; None where nothing is to be done."""
    if target == "earliest":
        return stand.first
    if target == "latest":
        return stand.end
    if target == "saved":
        return max(stand.saved, stand.first) if stand.position is None and stand.saved is not None else None
    if target == "after-gap":
        return stand.first if gap(stand) else None
    if target == "adopt":
        return stand.former[1] if stand.former is not None else None
    if isinstance(target, int):
        return target
    return stand.at if stand.at is not None else stand.end
