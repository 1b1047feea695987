"""A record on its way out, and the place in Kafka that it answers for."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Protocol

from trunkline.bus.deadletters import Failure
from trunkline.bus.intake import Partition
from trunkline.bus.ledger import Outcome
from trunkline.core.event import Event


class Ticket(Protocol):
    """The place in Kafka that a delivery answers for."""

    def settle(self, outcome: Outcome, *, detail: str | None = None) -> None:
        """The record ended so."""

    def save_dead(self, failure: Failure) -> None:
        """Saves the record as a dead letter, and settles it when the broker has acknowledged that."""

    def belongs(self, partitions: Collection[Partition]) -> bool:
        """Whether it goes away with these partitions."""

    @property
    def current(self) -> bool:
        """False once the partition has gone to another worker: what happens now must not be committed here."""

    @property
    def stays(self) -> bool:
        """False once the partition is being given away: no call begins for it any more, while one under way still counts."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A record on its way out. `size` is in bytes, `ready_at` on the monotonic clock."""

    event: Event
    ticket: Ticket
    size: int
    attempts: int = 0
    first_failed_at: float | None = None
    lane: Hashable = None
    ready_at: float = 0.0
    doubtful: bool = False
    """It failed often enough before: that it fails again says nothing of the account."""
