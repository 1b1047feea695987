"""The ledger: what became of every input record of a partition, committed together with the offset.

The counters are as true as the offset, because they are in its commit metadata. Kafka's limit for that
(`offset.metadata.max.bytes`) is 4,096 by default, and beyond it a transaction aborts: ours stays under 512.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from trunkline.core.errors import ConfigurationError

VERSION = 2
MAX_METADATA = 512

Outcome = Literal["delivered", "filtered", "dead", "absorbed", "parked", "dropped"]
OUTCOMES: tuple[Outcome, ...] = ("delivered", "filtered", "dead", "absorbed", "parked", "dropped")
"""The class that an input record ends in. One record has one class: dead > parked > delivered > absorbed > filtered.

`parked` is not for ever: what was parked ends as delivered, dead, or dropped by a person, and then has that class.
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """A range that a contiguous sink was about to write when the offset was committed: it is built again after a crash."""

    last: int
    """The offset of the last record of the range."""


@dataclass(slots=True)
class Ledger:
    """The counts of one partition since `first`, the offset where this epoch began.

    `checksum` is a CRC-32 over the offsets read, in order, each as eight bytes: a re-reading proves that none is missing.
    `outputs` counts the records written, all branches together. `topic_id` is Kafka's id of the topic that the offsets are of, so
    that they say nothing of a topic that was made anew under its name; empty where a commit does not tell it.
    """

    first: int = 0
    epoch: int = 1
    read: int = 0
    delivered: int = 0
    filtered: int = 0
    dead: int = 0
    absorbed: int = 0
    parked: int = 0
    dropped: int = 0
    outputs: int = 0
    checksum: int = 0
    topic_id: str = ""

    def add(self, offsets: array[int], **counts: int) -> None:
        """Accounts for records that are settled: their offsets in order, and how many ended in each class."""
        self.read += len(offsets)
        self.checksum = zlib.crc32(offsets.tobytes(), self.checksum)
        for outcome, count in counts.items():
            setattr(self, outcome, getattr(self, outcome) + count)

    def released(self, outcome: Outcome, count: int) -> None:
        """So many records that were parked ended so."""
        self.parked -= count
        setattr(self, outcome, getattr(self, outcome) + count)
        self.outputs += count if outcome == "delivered" else 0

    @property
    def settled(self) -> int:
        """Records that have a class."""
        return sum(getattr(self, outcome) for outcome in OUTCOMES)

    @property
    def open(self) -> int:
        """Records read that have no class: 0 in a ledger that closes."""
        return self.read - self.settled

    def copy(self) -> Ledger:
        """Another ledger with the same counts."""
        return replace(self)

    def to_metadata(self, plan: Plan | None = None) -> str:
        """The commit metadata."""
        numbers = (
            self.epoch,
            self.first,
            self.read,
            self.delivered,
            self.filtered,
            self.dead,
            self.absorbed,
            self.parked,
            self.dropped,
            self.outputs,
            self.checksum,
            plan.last if plan is not None else -1,
        )
        text = f"tl{VERSION}:" + ",".join(map(str, (*numbers, self.topic_id)))
        assert len(text) <= MAX_METADATA
        return text

    @classmethod
    def from_metadata(cls, text: str | None, first: int) -> tuple[Ledger, Plan | None]:
        """The ledger and the plan of a commit; a new ledger that begins at `first` where the commit has none of ours.

        Raises `ConfigurationError` for metadata of a newer version.
        """
        if not text or not text.startswith("tl"):
            return cls(first=first), None
        head, _, body = text[2:].partition(":")
        if not head.isdigit() or int(head) > VERSION:
            raise ConfigurationError(
                f"the commit metadata has version {head[:8]!r}, this Trunkline reads up to {VERSION}",
                hint="run a newer Trunkline",
                code="ledger.version",
            )
        fields = body.split(",")
        if int(head) == 1:  # it had neither dropped records nor a topic id
            fields = [*fields[:8], "0", *fields[8:], ""]
        *numbers, topic_id = fields
        epoch, begun, read, delivered, filtered, dead, absorbed, parked, dropped, outputs, checksum, last = map(
            int, numbers
        )
        ledger = cls(
            begun, epoch, read, delivered, filtered, dead, absorbed, parked, dropped, outputs, checksum, topic_id
        )
        return ledger, Plan(last) if last >= 0 else None


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """The sum of the counts over partitions; `first`, `epoch`, `checksum` and `topic_id` mean nothing in it."""
    result = Ledger()
    for ledger in ledgers:
        for name in ("read", *OUTCOMES, "outputs"):
            setattr(result, name, getattr(result, name) + getattr(ledger, name))
    return result
