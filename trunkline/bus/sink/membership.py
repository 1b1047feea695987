"""A sink's membership in its group: what happens when partitions come and go.

All on the polling thread, as `Member` says. Deliveries belong to the event loop, which may be slow: a partition is given away
only when nothing of it can begin any more, whether or not the loop has answered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from confluent_kafka import Consumer

from trunkline.bus.delivery.outgoing import Ticket
from trunkline.bus.intake import Assigned, Intake, Partition, Reading
from trunkline.bus.parking.parking import Parking
from trunkline.bus.sink.parts import Parts
from trunkline.core.errors import RetriableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
LOOP_SECONDS = 30.0
"""How long the event loop may take to answer. Then the pipeline restarts, and its deliveries stay frozen."""
REVOKE_SECONDS = 10.0
"""How long calls under way may take to end before their partition is another worker's. What ends later counts nowhere here."""


class Group:
    """The group's member, from when the polling thread joined on."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._intake: Intake | None = None

    def join(self, membership: Membership) -> Intake:
        """Becomes a member."""
        self._intake = Intake(self._reading, membership)
        return self._intake

    @property
    def member(self) -> Consumer:
        """The client that is the member. There is one as long as the polling thread runs."""
        assert self._intake is not None
        return self._intake.consumer


class Membership:
    """The `Member` of a sink."""

    def __init__(self, parts: Parts) -> None:
        self._pipeline = parts.pipeline
        self._tickets = parts.tickets
        self._deliveries = parts.deliveries
        self._loop = parts.loop
        self._lifecycle = parts.lifecycle
        self._committing = parts.committing
        self._upkeep = parts.upkeep
        self._parking = parts.parking
        self._park = parts.park

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes partitions up where the group left them."""
        self._tickets.take(partitions)
        if self._park is not None:
            self._park.assigned(partitions)
        self._loop.post(self._deliveries.assigned, partitions)
        log.info(
            "assigned",
            pipeline=self._pipeline,
            partitions=[f"{one.partition[0]}[{one.partition[1]}]" for one in partitions],
        )

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Lets what is under way end, to a deadline; commits; forgets the partitions."""
        mine = set(partitions)

        def of_these(ticket: Ticket) -> bool:
            return ticket.belongs(mine)

        # I33: no call of a partition begins once it is being given away: what waits is dropped, what fails is not tried again.
        self._tickets.withdraw(mine)
        numbers = {number for _, number in mine}
        if self._park is not None:
            self._park.withdraw(numbers)
        answered = self._dropped(of_these, mine, lambda parking: parking.withdraw(numbers))
        try:
            if answered:
                self._upkeep.serve_until(lambda: not self._deliveries.under_way(of_these), REVOKE_SECONDS)
            self._upkeep.flush(5)
            self._committing.commit(only=partitions)
        finally:
            self._let_go(partitions)
            if self._parking is not None:
                self._loop.post(self._parking.forget, numbers)
        self._check(numbers, answered)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Another member has them already: nothing is committed."""
        mine, numbers = set(partitions), {number for _, number in partitions}
        self._let_go(partitions)
        answered = self._dropped(lambda ticket: ticket.belongs(mine), mine, lambda parking: parking.forget(numbers))
        self._check(numbers, answered)

    def _dropped(
        self, gone: Callable[[Ticket], bool], partitions: Collection[Partition], of_parking: Callable[[Parking], None]
    ) -> bool:
        """Has the event loop drop what waits; no call begins meanwhile. False where the loop did not answer in time."""
        self._deliveries.freeze()
        dropped = threading.Event()

        def drop() -> None:
            try:
                if self._parking is not None:
                    of_parking(self._parking)
                self._deliveries.forget(gone, partitions)
            finally:
                dropped.set()

        self._loop.post(drop)
        return self._upkeep.serve_until(dropped.is_set, LOOP_SECONDS)

    def _let_go(self, partitions: Sequence[Partition]) -> None:
        self._tickets.let_go(partitions)
        if self._park is not None:
            self._park.let_go({number for _, number in partitions})

    def _check(self, numbers: Collection[int], answered: bool) -> None:
        """Raises `RetriableError` where the sink can't go on without these partitions."""
        if not answered:
            # Its deliveries stay frozen until the loop has dropped what waits: none of a partition that went away can begin.
            raise RetriableError(
                f"the event loop did not answer for {LOOP_SECONDS:g} s while partitions were given away",
                hint="a plug-in blocks it, or the machine is too busy; the pipeline restarts by itself",
                code="sink.loop_blocked",
            )
        left = sorted(set(numbers) & {number for _, number in self._tickets.works})
        if self._park is not None and left and not self._lifecycle.stop.is_set():
            # Their park is closed, and another worker may have it: what is still read here could not be held back.
            raise RetriableError(f"the inputs' partitions {left} went to different workers", code="parked.divided")
