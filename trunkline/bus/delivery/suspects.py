"""Refusals that may be ours: a 403 or 404 of one record is the record's fault, of many in a row it is our access that is wrong."""

from __future__ import annotations

from collections.abc import Callable

from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.core.errors import FatalError
from trunkline.core.verdicts import Dead

PATIENCE = 3.0
"""Seconds without any other delivery after which a refused record is taken to be at fault itself."""


class Suspects:
    """The refused records in a row, held until it is known whose fault it is."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: list[tuple[Delivery, Dead]] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, delivery: Delivery, verdict: Dead) -> FatalError | None:
        """One more. The error to stop with when they are so many, of two or more keys, that our access is wrong."""
        self._held.append((delivery, verdict))
        if len(self._held) < self._limit:
            return None
        keys = {
            suspect.event.raw_key if suspect.event.raw_key is not None else suspect.event.place
            for suspect, _ in self._held
        }
        if len(keys) < 2:
            return None
        return FatalError(
            f"{len(self._held)} records in a row were refused; the last: {verdict.reason}",
            hint="check the account's rights and the address; nothing was dead-lettered",
            code="sink.access",
        )

    def clear(self) -> list[tuple[Delivery, Dead]]:
        """Something else was answered: these are at fault themselves, and are suspects no more."""
        held, self._held = self._held, []
        return held

    def forget(self, gone: Callable[[Ticket], bool]) -> list[Delivery]:
        """Drops those of partitions that went away, and gives them."""
        dropped = [delivery for delivery, _ in self._held if gone(delivery.ticket)]
        self._held = [(delivery, verdict) for delivery, verdict in self._held if not gone(delivery.ticket)]
        return dropped
