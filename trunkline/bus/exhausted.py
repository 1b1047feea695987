"""What becomes of a record whose attempts are used up."""

from __future__ import annotations

from typing import Protocol

from trunkline.bus.deadletters import Failure
from trunkline.bus.outgoing import Delivery


class Exhausted(Protocol):
    """Called on the event loop for each record that the sink could not settle in the attempts it has."""

    def __call__(self, delivery: Delivery, failure: Failure) -> None:
        """Brings the record where it is safe and has its ticket settled once it is. Its lane goes on right after."""


def dead_letter(delivery: Delivery, failure: Failure) -> None:
    """The record becomes a dead letter."""
    delivery.ticket.save_dead(failure)
