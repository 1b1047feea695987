"""Eight buses with one promise broken each: the real engine with a small piece of it replaced.

Each comes with a fault that the real bus survives and the mutant does not, and with what the checker must say of it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, cast
from unittest.mock import patch

from confluent_kafka import Message

from tests.chaos.faults.http_sink import Rule
from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.delivery import calls, tickets
from trunkline.bus.delivery import delivery as delivery_room
from trunkline.bus.delivery.delivery import Delivering
from trunkline.bus.delivery.lanes import Lanes
from trunkline.bus.delivery.offsets import OffsetTracker
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.delivery.tickets import SinkTicket, Tickets
from trunkline.bus.kafka import headers_of, produce
from trunkline.bus.ledger import Outcome
from trunkline.core.contracts import Batch, Sink
from trunkline.core.verdicts import Verdict

SLOW = Rule(200, delay=0.4)
REFUSED = Rule(400, share=0.3)
PASSING = Rule(503, share=0.3, attempts=1)
CUT_AFTER_EFFECT = Rule("effect-then-drop", share=0.3, attempts=1)


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is replaced, the fault that shows it, and what must be found. `small_dead_letters`: the broker refuses those."""

    name: str
    replaced: Callable[[], AbstractContextManager[Any]]
    fault: Rule
    found: tuple[str, ...]
    small_dead_letters: bool = False


class _EarlyTracker(OffsetTracker):
    """Takes what is read for settled."""

    def add(self, offset: int) -> None:
        super().add(offset)
        super().settle(offset, "delivered", 1)

    def settle(self, offset: int, outcome: Outcome, outputs: int = 0) -> None:
        """Does nothing: it was settled when it was read."""


class _MiscountingTracker(OffsetTracker):
    """Forgets to count every record that is not delivered at once."""

    def advance(self) -> bool:
        moved = super().advance()
        if moved:
            self.ledger.read -= 1
        return moved


def _early_commit() -> AbstractContextManager[Any]:
    return patch.object(tickets, "OffsetTracker", _EarlyTracker)


def _miscounted() -> AbstractContextManager[Any]:
    return patch.object(tickets, "OffsetTracker", _MiscountingTracker)


def _dead_letter_not_awaited() -> AbstractContextManager[Any]:
    def save_dead(self: Tickets, ticket: SinkTicket, failure: Failure) -> None:
        message, (topic, partition) = ticket.message, ticket.work.partition
        headers = dead_letter_headers(
            headers_of(message),
            pipeline=self._pipeline,
            task="mutant",
            topic=topic,
            partition=partition,
            offset=ticket.offset,
            failure=failure,
        )
        destination = self._names.dead_letters(self._pipeline)
        produce(self._producer, destination, message.value(), message.key(), headers, partition=partition)
        ticket.settle("dead")

    return patch.object(Tickets, "save_dead", save_dead)


def _skipped_when_exhausted() -> AbstractContextManager[Any]:
    def save_dead(_self: Tickets, ticket: SinkTicket, failure: Failure) -> None:
        ticket.settle("dead", detail=failure.told)

    return patch.object(Tickets, "save_dead", save_dead)


def _forgotten_retry() -> AbstractContextManager[Any]:
    def retry_now(self: Delivering, delivery: Delivery) -> None:
        delivery.ticket.settle("delivered")
        self._lanes.release(delivery)
        self._pump()

    return patch.object(Delivering, "_retry_now", retry_now)


def _new_key_for_each_call() -> AbstractContextManager[Any]:
    async def verdicts_of(sink: Sink, batch: Batch, pipeline: str) -> Sequence[Verdict]:
        for event in batch.events:
            event.idempotency_key = uuid.uuid4().hex
        return await calls.verdicts_of(sink, batch, pipeline)

    return patch.object(delivery_room, "verdicts_of", verdicts_of)


@contextmanager
def _no_lanes() -> Iterator[None]:
    original = Lanes.add

    def add(self: Lanes, deliveries: Sequence[Delivery]) -> None:
        self._order = "none"
        original(self, deliveries)

    with patch.object(Lanes, "add", add):
        yield


class _Trimmed:
    """A message that lost its last byte."""

    def __init__(self, message: Any) -> None:
        self._message = message

    def value(self) -> bytes:
        whole: bytes = self._message.value()
        return whole[:-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._message, name)


@contextmanager
def _altered_dead_letter() -> Iterator[None]:
    original = Tickets.save_dead

    def save_dead(self: Tickets, ticket: SinkTicket, failure: Failure) -> None:
        ticket.message = cast(Message, _Trimmed(ticket.message))
        original(self, ticket, failure)

    with patch.object(Tickets, "save_dead", save_dead):
        yield


MUTANTS: tuple[Mutant, ...] = (
    Mutant("early commit", _early_commit, SLOW, ("committed before it was settled",)),
    Mutant("dead letter not awaited", _dead_letter_not_awaited, REFUSED, ("lost",), small_dead_letters=True),
    Mutant("skip on exhaustion", _skipped_when_exhausted, REFUSED, ("lost",)),
    Mutant("a retry forgotten", _forgotten_retry, PASSING, ("lost",)),
    Mutant("no dedupe", _new_key_for_each_call, CUT_AFTER_EFFECT, ("more than one effect",)),
    Mutant("no lanes", _no_lanes, PASSING, ("swapped",)),
    Mutant("dead letter altered", _altered_dead_letter, REFUSED, ("dead letter altered",)),
    Mutant("ledger miscounted", _miscounted, SLOW, ("the ledger does not close",)),
)
