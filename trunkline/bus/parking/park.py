"""The parked records of one pipeline on one worker: kept in a store a partition, written in transactions. On the polling thread.

Every order of the event loop waits in the backlog until a transaction with it committed; one that was aborted is made anew
from the same backlog. So stores, tickets and event loop hear only of what is committed.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from confluent_kafka import Consumer

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.delivery.tickets import Tickets
from trunkline.bus.intake import Assigned, Partition, Reading
from trunkline.bus.kafka import end_offsets
from trunkline.bus.ledger import Outcome
from trunkline.bus.parking.batch import Batch
from trunkline.bus.parking.decisions import waiting
from trunkline.bus.parking.lot import Lot
from trunkline.bus.parking.orders import Carry, Hold, Load, Note, Order, ParkTicket, Settle
from trunkline.bus.parking.parking import Parking
from trunkline.bus.parking.writing import Writer
from trunkline.bus.state import Changelog
from trunkline.core.errors import RejectedError, TrunklineError
from trunkline.core.event import Event

AGAIN_SECONDS = 0.2
"""How long to wait after a transaction was refused."""
NOTE_SECONDS = 1.0
PURGE_SECONDS = 1.0
"""How often marks that a commit has passed are looked for when nothing else is written."""


class Surroundings(Protocol):
    """What the sink runtime does for its park."""

    def commit_now(self) -> None:
        """Commits what is settled, and returns when the broker has it: no commit of the consumer is under way then."""

    def decode(self, event: Event) -> None:
        """Fills in schema, value and idempotency key. Raises RejectedError for what can't be read."""

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function on the event loop, in the order of the calls."""

    @property
    def group_member(self) -> Consumer:
        """The client that is the group's member."""


class Park:
    """Carries out the orders of `Parking`."""

    def __init__(
        self,
        reading: Reading,
        changelog: Changelog,
        tickets: Tickets,
        parking: Parking,
        orders: queue.SimpleQueue[Order],
        around: Surroundings,
        *,
        attempts: int,
        topic_ids: Mapping[str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = reading.settings
        self._names = reading.names
        self._pipeline = reading.pipeline
        self._worker = reading.worker
        self._changelog = changelog
        self._tickets = tickets
        self._parking = parking
        self._attempts = attempts
        self._around = around
        self._topic_ids = topic_ids
        self._clock = clock
        self._writer = Writer(reading.settings, reading.names, reading.pipeline, reading.worker)
        self._lots: dict[int, Lot] = {}
        self._orders = orders
        self._backlog: list[Hold | Settle | Carry] = []
        self._notes: dict[tuple[int, int], Note] = {}
        """By partition number and sequence, what is to be noted of a parked record."""
        self._note_at = 0.0
        self._loads: list[Load] = []
        self._not_before = 0.0
        self._purge_at = 0.0
        self._broken = False

    @property
    def waiting(self) -> bool:
        """Whether there is something to do."""
        due = self._clock() >= self._not_before
        return due and not self._broken and (not self._orders.empty() or bool(self._loads or self._backlog))

    # --- partitions ---

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Opens the lots of partitions that came to this worker, before any record of them is read."""
        numbers = sorted({one.partition[1] for one in partitions})
        ends = end_offsets(self._settings, self._changelog.topic)
        used = [number for number in numbers if ends.get(number, 0) or self._changelog.has_copy(number)]
        if used:
            self._writer.begin()  # first: what an earlier life of this worker left open would have to be waited for
        decisions = waiting(self._settings, self._names, self._pipeline)
        for number in numbers:
            lot = self._lots.setdefault(number, Lot(number, self._changelog, self._topic_ids))
            positions = {one.partition: one.position for one in partitions if one.partition[1] == number}
            known = lot.take_stock(positions)[0]
            if number in used:
                # Open already: another input of its number came from a worker that may have parked here until now.
                lot.open()
            mine = [decision for decision in decisions if decision.partition == number]
            counts, heads = lot.take_stock(positions)
            self._around.post(self._parking.opened, number, counts - known, heads, mine)

    def became(self, partition: Partition, offset: int) -> Outcome | None:
        """What became of a record that is read again after a crash: it is in the park still, or ended there. None of any other record."""
        lot = self._lots.get(partition[1])
        return lot.known.get(partition, {}).get(offset) if lot is not None else None

    def withdraw(self, numbers: Collection[int]) -> None:
        """These partitions are being given away: what is under way still counts, and nothing more begins."""
        for number in numbers:
            lot = self._lots.get(number)
            if lot is not None:
                lot.tenure.stays = False

    def let_go(self, numbers: Collection[int]) -> None:
        """Closes lots. Orders for them that are not committed are forgotten: the records are read again."""
        self._take_orders()
        for number in numbers:
            lot = self._lots.pop(number, None)
            if lot is not None:
                lot.close()
        dropped = [order for order in self._backlog if order.number in numbers]
        self._backlog = [order for order in self._backlog if order.number not in numbers]
        self._loads = [load for load in self._loads if load.number not in numbers]
        self._notes = {place: note for place, note in self._notes.items() if note.number not in numbers}
        self._say_saved(dropped)

    def close(self) -> None:
        """Closes everything."""
        self.let_go(list(self._lots))
        self._writer.close()

    # --- orders ---

    def serve(self) -> None:
        """Writes what waits in one transaction, then brings the records that are asked for. Raises as `Writer.write`."""
        if self._broken:
            return
        self._take_orders()
        now = self._clock()
        if now < self._not_before:
            return
        try:
            if (self._backlog or self._notes_are_due(now) or self._purge_is_due(now)) and not self._write():
                self._not_before = now + AGAIN_SECONDS
                return
            loads, self._loads = self._loads, []
            for load in loads:
                self._bring(load)
        except TrunklineError:
            self._broken = True
            raise

    def _take_orders(self) -> None:
        while not self._orders.empty():
            order = self._orders.get()
            if order.number not in self._lots:
                if isinstance(order, Hold):
                    self._say_saved([order])
            elif isinstance(order, Load):
                self._loads.append(order)
            elif isinstance(order, Note):
                self._notes[order.number, order.ticket.record.sequence] = order
            else:
                self._backlog.append(order)

    def _notes_are_due(self, now: float) -> bool:
        """Notes alone are written no more often than once in NOTE_SECONDS: a transaction costs as much as dozens of records."""
        if not self._notes or now < self._note_at:
            return False
        self._note_at = now + NOTE_SECONDS
        return True

    def _purge_is_due(self, now: float) -> bool:
        if now < self._purge_at:
            return False
        self._purge_at = now + PURGE_SECONDS
        positions = self._tickets.positions
        return any(lot.has_passed_marks(positions) for lot in self._lots.values())

    def _write(self) -> bool:
        """One transaction with the whole backlog. False where it was refused, and has to be tried again."""
        # A commit of the consumer that is still under way could overtake the transaction's and take the group back.
        self._around.commit_now()
        orders, notes = list(self._backlog), dict(self._notes)
        numbers = {order.number for order in (*orders, *notes.values())} or set(self._lots)
        offsets = self._tickets.standing(numbers)
        if not offsets:
            return False  # the partitions are about to go
        passed = {(part.topic, part.partition): part.offset for part in offsets}
        batch = Batch(self._names, self._pipeline, self._worker, self._tickets, passed)
        lots = [self._lots[number] for number in numbers]
        for order in orders:
            batch.add(self._lots[order.number], order)
        for note in notes.values():
            batch.note(self._lots[note.number], note)
        batch.complete(self._changelog.topic, lots)
        if batch.ended:
            offsets = self._tickets.standing(numbers, batch.ended)
        member, changelog = self._around.group_member, self._changelog.topic
        reached = self._writer.write(batch.records, offsets, member, changelog, batch.entries)
        if reached is None:
            for lot in lots:
                lot.discard()
            return False
        # I15: a record is parked before its input counts as settled, and settled in the park before anybody hears of it.
        for lot in lots:
            lot.apply(reached.get(lot.number))
        if batch.ended:
            self._tickets.released(batch.ended)
        for say in batch.committed:
            say()
        self._backlog = self._backlog[len(orders) :]
        self._notes = {place: note for place, note in self._notes.items() if notes.get(place) is not note}
        self._say_saved(orders)
        for key, settled, again in batch.decided:
            self._around.post(self._parking.decided, key, settled, again)
        return True

    def _say_saved(self, orders: Sequence[Order]) -> None:
        held = sum(isinstance(order, Hold) for order in orders)
        if held:
            self._around.post(self._parking.saved, held)

    def _bring(self, load: Load) -> None:
        lot = self._lots[load.number]
        deliveries: list[Delivery] = []
        unreadable = 0
        for record in lot.first(load.key, load.most):
            event = record.event()
            ticket = ParkTicket(record, load.number, lot.tenure, self._parking)
            try:
                self._around.decode(event)
            except RejectedError as error:
                if deliveries:
                    break  # it is a dead letter when it is the first
                failure = Failure("DECODE", error.code, str(error), attempts=record.attempts)
                self._backlog.append(Settle(load.number, ticket, "dead", failure.told, failure))
                unreadable += 1
                continue
            deliveries.append(
                Delivery(
                    event,
                    ticket,
                    len(record.value),
                    attempts=self._attempts - 1,  # one try at a time
                    first_failed_at=record.first_failed_at,
                    doubtful=True,
                )
            )
        self._around.post(self._parking.brought, (load.number, load.key), deliveries, unreadable)
