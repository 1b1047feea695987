"""What the event loop asks of the polling thread about parked records. Orders of one partition are carried out as they were given."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Protocol

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.intake import Partition
from trunkline.bus.ledger import Outcome
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.records import ParkedRecord

Key = tuple[int, bytes]
"""What is held back: an event key within a partition number. The same key in another partition has no order with it."""


class Desk(Protocol):
    """Who is told what became of a parked record that was tried again. On the event loop."""

    def settled(self, ticket: ParkTicket, detail: str | None) -> None:
        """It was delivered."""

    def buried(self, ticket: ParkTicket, failure: Failure) -> None:
        """It is a dead letter."""


class Tenure:
    """One partition number during one assignment."""

    current = True
    """False as soon as another worker may have it."""
    stays = True
    """False from when it is being given away on."""


@dataclass(slots=True, eq=False)
class ParkTicket:
    """What the delivery of a parked record answers to."""

    record: ParkedRecord
    number: int
    tenure: Tenure
    desk: Desk

    @property
    def key(self) -> Key:
        """What is held back until this is settled."""
        return self.number, self.record.key

    @property
    def current(self) -> bool:
        """See `Ticket`."""
        return self.tenure.current

    @property
    def stays(self) -> bool:
        """See `Ticket`."""
        return self.tenure.stays

    def belongs(self, partitions: Collection[Partition]) -> bool:
        """See `Ticket`: all inputs of one partition number share its park."""
        return any(number == self.number for _, number in partitions)

    def settle(self, outcome: Outcome, *, detail: str | None = None) -> None:
        """See `Ticket`."""
        self.desk.settled(self, detail)

    def save_dead(self, failure: Failure) -> None:
        """See `Ticket`."""
        self.desk.buried(self, failure)


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """Park a record. Its own ticket is settled as parked once it is saved."""

    number: int
    delivery: Delivery
    failure: Failure


@dataclass(frozen=True, slots=True, eq=False)
class Settle:
    """A parked record was delivered, or is to be a dead letter."""

    number: int
    ticket: ParkTicket
    outcome: Literal["delivered", "dead"]
    detail: str | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Carry:
    """Carry out a decision, and say how many records of the key are settled by it."""

    number: int
    decision: Decision


@dataclass(frozen=True, slots=True, eq=False)
class Note:
    """A parked record was tried once more and failed: it is written down why, when there is something else to write or after a moment.

    `failure` has the attempts in all.
    """

    number: int
    ticket: ParkTicket
    failure: Failure


@dataclass(frozen=True, slots=True, eq=False)
class Load:
    """Bring the first records of a key, at most so many, ready for delivery."""

    number: int
    key: bytes
    most: int


Order = Hold | Settle | Carry | Note | Load
