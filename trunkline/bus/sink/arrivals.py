"""What is read becomes what a sink takes: decoded, filtered, with its envelope and the key by which a repetition is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Message

from trunkline.bus.deadletters import Failure, idempotency_key
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.delivery.tickets import SinkTicket, Tickets, Work
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import headers_of
from trunkline.bus.ledger import Outcome
from trunkline.bus.records import with_envelope
from trunkline.core.envelope import CE_SPECVERSION
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event

DecoderSource = Callable[[Event], tuple[Any, Any]]
"""Decodes an event's raw value: gives schema and datum. Raises RejectedError."""


class Decoding:
    """How the events of one pipeline are made ready for its sink."""

    def __init__(self, namespace: str, pipeline: str, decode: DecoderSource) -> None:
        self._namespace = namespace
        self._pipeline = pipeline
        self.value_of = decode

    def identify(self, event: Event) -> None:
        """Gives the event the key by which a repeated delivery is known."""
        event.idempotency_key = idempotency_key(self._namespace, self._pipeline, event)

    def decode(self, event: Event) -> None:
        """Fills in schema, value, envelope and idempotency key of an event that was parked. Raises RejectedError."""
        event.schema, event.value = self.value_of(event)
        if not event.headers or event.headers[0][0] != CE_SPECVERSION:
            event.headers = with_envelope(event)
        self.identify(event)


class Arrivals:
    """Prepares the records of one sink pipeline. On the polling thread.

    `parked` tells what became of the record of an offset that was parked before, None of any other; it is None where nothing is parked.
    """

    def __init__(
        self,
        decoding: Decoding,
        tickets: Tickets,
        *,
        topic_ids: Mapping[str, str],
        when: Callable[[Any, Any], Any] | None,
        parked: Callable[[Partition, int], Outcome | None] | None,
    ) -> None:
        self._decoding = decoding
        self._decode = decoding.value_of
        self._tickets = tickets
        self._topic_ids = topic_ids
        self._when = when
        self._parked = parked

    def prepared(self, message: Message, work: Work, offset: int) -> Delivery | None:
        """The record decoded and ready for the sink; None where it is settled already (filtered, or on its way to the dead letters)."""
        topic, partition = work.partition
        raw = message.value()
        event = Event(
            None,
            raw=raw,
            raw_key=message.key(),
            headers=headers_of(message),
            topic=topic,
            topic_id=self._topic_ids.get(topic, ""),
            partition=partition,
            offset=offset,
            timestamp=message.timestamp()[1],
        )
        if not event.headers or event.headers[0][0] != CE_SPECVERSION:
            event.headers = with_envelope(event)
        ticket = SinkTicket(work, message, offset, event.correlation_id, self._tickets)
        if self._parked is not None and (before := self._parked(work.partition, offset)) is not None:
            ticket.settle(before, detail="read again")
            return None
        try:
            if raw is None:
                raise RejectedError(f"a record without a value (a tombstone) in {topic}", code="record.tombstone")
            event.schema, event.value = self._decode(event)
            if self._when is not None and self._when(event.value, event) is not True:
                ticket.settle("filtered")
                return None
        except RejectedError as error:
            ticket.save_dead(Failure("DECODE" if event.schema is None else "FILTER", error.code, str(error)))
            return None
        self._decoding.identify(event)
        return Delivery(event, ticket, len(raw))
