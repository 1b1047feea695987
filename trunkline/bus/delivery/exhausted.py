"""What becomes of a record whose attempts are used up."""

from __future__ import annotations

from typing import Protocol

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery.outgoing import Delivery


class Exhausted(Protocol):
    """Called on the event loop for each record that the sink could not settle in the attempts it has."""

    def __call__(self, delivery: Delivery, failure: Failure) -> None:
        """Brings the record where it is safe and has its ticket settled once it is. Its lane goes on right after."""

    @property
    def holding(self) -> bool:
        """Whether records have to be asked about with `takes` before they are delivered."""

    def takes(self, delivery: Delivery) -> bool:
        """True where the record has to wait behind one that is held, and was taken: it is not delivered now."""


class DeadLettering:
    """The record becomes a dead letter, and what follows it goes on."""

    holding = False

    def __call__(self, delivery: Delivery, failure: Failure) -> None:
        """See `Exhausted`."""
        delivery.ticket.save_dead(failure)

    def takes(self, delivery: Delivery) -> bool:
        """See `Exhausted`."""
        return False


dead_letter = DeadLettering()
