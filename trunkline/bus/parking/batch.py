"""One transaction of parking, made of the orders that wait: what it writes, and what is said once it committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.deadletters import dead_letter_headers
from trunkline.bus.delivery.tickets import Place, SinkTicket, Tickets
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import headers_of
from trunkline.bus.ledger import Outcome
from trunkline.bus.names import Names
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.lot import Lot
from trunkline.bus.parking.orders import Carry, Hold, Key, Note, Settle
from trunkline.bus.parking.records import ParkedRecord
from trunkline.bus.parking.writing import Outgoing
from trunkline.core.log import get_logger

log = get_logger(__name__)
PLACES = 20
"""How many places of dropped records the audit trail names."""


class Batch:
    """The records of one transaction. `passed` is, by input partition, the offset that it commits."""

    def __init__(
        self, names: Names, pipeline: str, worker: str, tickets: Tickets, passed: Mapping[Partition, int]
    ) -> None:
        self._names = names
        self._pipeline = pipeline
        self._worker = worker
        self._tickets = tickets
        self._passed = passed
        self._lots: list[Lot] = []
        self.records: list[Outgoing] = []
        self.entries: list[Entry] = []
        """What of it is in the audit trail."""
        self.committed: list[Callable[[], object]] = []
        """What is to be done once it committed."""
        self.ended: list[tuple[Place, Outcome]] = []
        """Where the parked records were read that are settled now, and how they ended."""
        self.decided: list[tuple[Key, int, bool]] = []
        """By decision: the key, how many records it settled, and whether the head is to be tried now."""

    def note(self, lot: Lot, order: Note) -> None:
        """Adds why a head failed again. One that was settled meanwhile needs no note, and its value may be another by now."""
        wanted = order.ticket.record
        for record in lot.first(wanted.key, 1):
            if record.sequence == wanted.sequence:
                lot.put(record.failed_again(order.failure))

    def add(self, lot: Lot, order: Hold | Settle | Carry) -> None:
        """Adds an order."""
        if lot not in self._lots:
            self._lots.append(lot)
        if isinstance(order, Hold):
            self._hold(lot, order)
        elif isinstance(order, Settle):
            self._settle(lot, order)
        else:
            self._carry_out(lot, order.decision)

    def complete(self, topic: str, lots: Sequence[Lot]) -> None:
        """Adds what is due besides: marks that this transaction's offsets pass, and then the changelog of all that changed."""
        for lot in lots:
            lot.remove_passed_marks(self._passed)
            for store_key, entry in lot.changed():
                value, headers = (entry.value, entry.headers) if entry is not None else (None, [])
                self.records.append(Outgoing(topic, value, store_key, headers, lot.number))

    def _hold(self, lot: Lot, order: Hold) -> None:
        event, ticket, failure = order.delivery.event, order.delivery.ticket, order.failure
        assert isinstance(ticket, SinkTicket)
        lot.put(ParkedRecord.parked(event, lot.next_sequence(), headers_of(ticket.message), failure))
        self.committed.append(lambda: ticket.settle("parked", detail=failure.told))

    def _settle(self, lot: Lot, order: Settle) -> None:
        record = order.ticket.record
        lot.settle(record, order.outcome, self._passed)
        if order.failure is not None:
            origin = record.origin
            headers = dead_letter_headers(
                record.headers,
                pipeline=self._pipeline,
                task=self._worker,
                topic=origin.topic,
                partition=origin.partition,
                offset=origin.offset,
                failure=order.failure,
                topic_id=origin.topic_id,
            )
            destination = self._names.dead_letters(self._pipeline)
            self.records.append(Outgoing(destination, record.value, record.key, headers, lot.number))
            log.warning("dead letter", pipeline=self._pipeline, place=origin.place, reason=order.failure.reason)
        self._end(record, order.outcome, order.detail)

    def _carry_out(self, lot: Lot, decision: Decision) -> None:
        known = lot.first(decision.key)
        settled: list[ParkedRecord] = []
        found = bool(known)
        if decision.action == "drop":
            settled = [record for record in known if record.sequence <= decision.upto]
            found = bool(settled)
            for record in settled:
                lot.settle(record, "dropped", self._passed)
                self._end(record, "dropped", f"by {decision.by}: {decision.reason}")
        elif decision.action == "edit":
            edited = [record for record in known if record.sequence == decision.upto]
            found = bool(edited)
            for record in edited:
                lot.put(record.edited(decision.value, decision.by))
        self.records.append(Outgoing(self._names.decisions, None, decision.record_key, []))
        self.entries.append(self._entry(decision, settled, found))
        self.decided.append(((lot.number, decision.key), len(settled), found and decision.action != "drop"))
        log.info(
            "a decision on a parked key",
            pipeline=self._pipeline,
            action=decision.action,
            by=decision.by,
            settled=len(settled),
        )

    @staticmethod
    def _entry(decision: Decision, settled: Sequence[ParkedRecord], found: bool) -> Entry:
        details: dict[str, Any] = {
            "key": decision.key.decode("utf-8", "backslashreplace"),
            "partition": decision.partition,
            "reason": decision.reason,
            "decision": decision.id,
            "decided_at": decision.at,
            "outcome": "done" if found else "nothing was left to do",
        }
        if decision.action == "drop":
            details |= {"count": len(settled), "places": [record.origin.place for record in settled[:PLACES]]}
        return Entry(time.time(), decision.by, f"parked.{decision.action}", decision.pipeline, details)

    def _end(self, record: ParkedRecord, outcome: Outcome, detail: str | None) -> None:
        """A parked record is settled: the ledger and the trace say so."""
        origin, correlation = record.origin, record.event().correlation_id
        self.ended.append(((origin.topic, origin.topic_id, origin.partition, origin.offset), outcome))

        def note() -> None:
            with self._tickets.lock:
                self._tickets.trace.add(origin.topic, origin.partition, origin.offset, correlation, outcome, detail)

        self.committed.append(note)
