"""What was read of each partition and is not committed yet: the tickets that deliveries answer to, and the way to a commit.

Tickets come back on the event loop or, for dead letters, on the polling thread; `lock` is held for each.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.delivery.offsets import OffsetTracker
from trunkline.bus.intake import Assigned, Partition
from trunkline.bus.kafka import LazyProducer, produce, wire_headers_of
from trunkline.bus.ledger import Ledger, Outcome, Plan
from trunkline.bus.names import Names
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.errors import FatalError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import counter

log = get_logger(__name__)
Place = tuple[str, str, int, int]
"""Topic, its id, partition and offset of a record."""
Ended = tuple[Place, Outcome]
"""Where a parked record was read, and how it ended."""


class Work:
    """One partition during one assignment: its tracker, and the plan of a range that is being written."""

    def __init__(self, assigned: Assigned) -> None:
        self.partition = assigned.partition
        self.tracker = OffsetTracker(assigned.position, assigned.ledger)
        self.committed = assigned.position
        self.reported = self.tracker.ledger.copy()
        """What the metrics have of the ledger."""
        self.plan: Plan | None = assigned.plan
        self.current = True
        self.stays = True
        """False from when the partition is being given away on."""


@dataclass(slots=True, eq=False)
class SinkTicket:
    """What a delivery answers to."""

    work: Work
    message: Message
    offset: int
    correlation: str
    tickets: Tickets

    @property
    def current(self) -> bool:
        """See `Ticket`."""
        return self.work.current

    @property
    def stays(self) -> bool:
        """See `Ticket`."""
        return self.work.stays

    def belongs(self, partitions: Collection[Partition]) -> bool:
        """See `Ticket`."""
        return self.work.partition in partitions

    def settle(self, outcome: Outcome, *, detail: str | None = None) -> None:
        """See `Ticket`."""
        self.tickets.settle(self, outcome, detail)

    def save_dead(self, failure: Failure) -> None:
        """See `Ticket`."""
        self.tickets.save_dead(self, failure)


class Tickets:
    """The partitions that a sink has, and what became of the records read from them."""

    def __init__(
        self,
        names: Names,
        pipeline: str,
        worker: str,
        producer: LazyProducer,
        threshold: DeadLetterThreshold,
        failed: Callable[[TrunklineError], None],
    ) -> None:
        self._names = names
        self._pipeline = pipeline
        self._worker = worker
        self._producer = producer
        self._threshold = threshold
        self._failed = failed
        self.lock = threading.Lock()
        self.works: dict[Partition, Work] = {}
        self.trace = TraceBatch(pipeline, "sink", worker)
        self.releases = 0
        """How many parked records have ended otherwise."""
        self._ended = 0
        """Records that ended otherwise since the last dead letter."""
        self._settled = counter("trunkline_records_settled_total")

    def settle(self, ticket: SinkTicket, outcome: Outcome, detail: str | None) -> None:
        """A record ended so."""
        work = ticket.work
        with self.lock:
            # I4: what ends after the partition went away is not committed here.
            if work.current:
                work.tracker.settle(ticket.offset, outcome, outputs=1 if outcome == "delivered" else 0)
            self._ended += outcome != "dead"
            self.trace.add(*work.partition, ticket.offset, ticket.correlation, outcome, detail)

    def save_dead(self, ticket: SinkTicket, failure: Failure) -> None:
        """Saves a dead letter; the record is settled when the broker has it, and the pipeline fails when it refuses."""
        topic, partition = ticket.work.partition
        message = ticket.message
        headers = dead_letter_headers(
            wire_headers_of(message),
            pipeline=self._pipeline,
            task=self._worker,
            topic=topic,
            partition=partition,
            offset=ticket.offset,
            failure=failure,
            topic_id=ticket.work.tracker.ledger.topic_id,
        )
        log.warning(
            "dead letter",
            pipeline=self._pipeline,
            topic=topic,
            partition=partition,
            offset=ticket.offset,
            correlation_id=ticket.correlation,
            stage=failure.stage,
            reason=failure.reason,
        )
        destination = self._names.dead_letters(self._pipeline)

        def acknowledged(error: KafkaError | None, _message: Message) -> None:
            # I3: a record is saved before any offset passes it.
            if error is None:
                ticket.settle("dead", detail=failure.told)
            else:
                self._failed(_unsaved(destination, str(error), f"{topic}[{partition}]@{ticket.offset}"))

        try:
            produce(
                self._producer,
                destination,
                message.value(),
                message.key(),
                headers,
                partition=partition,
                on_delivery=acknowledged,
            )
        except (KafkaException, TrunklineError) as error:
            self._failed(_unsaved(destination, str(error), f"{topic}[{partition}]@{ticket.offset}"))
        with self.lock:
            self._threshold.ended(self._ended)
            self._ended = 0
            too_many = self._threshold.died()
        if too_many is not None:
            self._failed(too_many)

    # --- partitions ---

    def take(self, partitions: Sequence[Assigned]) -> None:
        """Takes partitions up where the group left them."""
        with self.lock:
            for one in partitions:
                self.works[one.partition] = Work(one)

    def withdraw(self, partitions: Collection[Partition]) -> None:
        """Partitions are being given away: what is under way still counts, and nothing more begins."""
        for partition in partitions:
            work = self.works.get(partition)
            if work is not None:
                work.stays = False

    def let_go(self, partitions: Sequence[Partition]) -> None:
        """Forgets partitions: what comes back for them from now on is not committed."""
        with self.lock:
            for partition in partitions:
                work = self.works.pop(partition, None)
                if work is not None:
                    work.current = work.stays = False

    @property
    def ledgers(self) -> Mapping[Partition, Ledger]:
        """The ledger of each partition that is ours, as far as offsets can be committed."""
        with self.lock:
            return {partition: work.tracker.ledger.copy() for partition, work in self.works.items()}

    @property
    def positions(self) -> Mapping[Partition, int]:
        """The offset to commit of each partition that is ours."""
        with self.lock:
            return {partition: work.tracker.commit for partition, work in self.works.items()}

    @property
    def committed_positions(self) -> Mapping[Partition, int]:
        """The offset of each partition that is ours which Kafka has."""
        with self.lock:
            return {partition: work.committed for partition, work in self.works.items()}

    # --- on the way to a commit ---

    def settled_before(self, work: Work, offset: int) -> bool:
        """Whether everything that was read before an offset is settled and counted."""
        with self.lock:
            work.tracker.advance()
            return work.tracker.passed(offset)

    def planned(self, work: Work, last: int) -> TopicPartition:
        """Notes that a range up to `last` is about to be written, and gives the commit that says so."""
        with self.lock:
            work.plan = Plan(last)
            return TopicPartition(*work.partition, work.tracker.commit, work.tracker.ledger.to_metadata(work.plan))

    def due(self, *, all_of_them: bool, only: Sequence[Partition] | None = None) -> list[TopicPartition]:
        """The commits of the partitions that moved, or of all; their trace goes to the producer, their counts to the metrics."""
        commits = []
        with self.lock:
            for partition, work in self.works.items():
                if only is not None and partition not in only:
                    continue
                work.tracker.advance()
                if work.tracker.commit == work.committed and not all_of_them:
                    continue
                if work.plan is not None and work.tracker.commit > work.plan.last:
                    work.plan = None
                commits.append(
                    TopicPartition(*partition, work.tracker.commit, work.tracker.ledger.to_metadata(work.plan))
                )
                self._count(work)
            traces = self.trace.drain()
        for record in traces:
            self._producer.produce(self._names.trace, record)
        return commits

    def committed(self, commits: Sequence[TopicPartition]) -> None:
        """Kafka has these commits. What it refused stays due."""
        with self.lock:
            for one in commits:
                work = self.works.get((one.topic, one.partition))
                if work is not None and one.error is None:
                    work.committed = one.offset

    def standing(self, numbers: Collection[int], ended: Sequence[Ended] = ()) -> list[TopicPartition]:
        """The commits of all partitions of these numbers, as they are now, for a transaction that has to hold them.

        `ended` are the parked records that this transaction settles.
        """
        found = []
        with self.lock:
            for partition, work in self.works.items():
                if partition[1] in numbers:
                    ledger = work.tracker.ledger.copy()
                    _release(ledger, work.tracker.commit, _of(partition, ledger, ended))
                    found.append(TopicPartition(*partition, work.tracker.commit, ledger.to_metadata(work.plan)))
        return found

    def released(self, ended: Sequence[Ended]) -> None:
        """The transaction that settles these parked records committed."""
        with self.lock:
            for partition, work in self.works.items():
                tracker, own = work.tracker, _of(partition, work.tracker.ledger, ended)
                if own:
                    _release(tracker.ledger, tracker.commit, own)
                    for offset, outcome in own:
                        tracker.released(offset, outcome)
                    self.releases += len(own)
                    self._count(work)

    def _count(self, work: Work) -> None:
        for outcome in ("delivered", "filtered", "dead", "parked", "dropped"):
            count = getattr(work.tracker.ledger, outcome) - getattr(work.reported, outcome)
            if count > 0:  # what was parked and ended otherwise is counted twice, once each way
                self._settled.labels(self._pipeline, outcome).inc(count)
        work.reported = work.tracker.ledger.copy()


def _of(partition: Partition, ledger: Ledger, ended: Sequence[Ended]) -> list[tuple[int, Outcome]]:
    """Offset and outcome of the parked records that were read in this partition, and not in another topic of the name."""
    return [
        (offset, outcome)
        for (topic, topic_id, number, offset), outcome in ended
        if (topic, number) == partition and topic_id == ledger.topic_id
    ]


def _release(ledger: Ledger, commit: int, ended: Sequence[tuple[int, Outcome]]) -> None:
    """Gives the parked records that a ledger accounts for the class that they ended in: those below the commit.

    What was parked in an earlier epoch is not in it.
    """
    # I35: the ledger counts as parked what is parked now, of what the commit has passed.
    counts = Counter(outcome for offset, outcome in ended if ledger.first <= offset < commit)
    for outcome, count in counts.items():
        ledger.released(outcome, count)


def _unsaved(destination: str, reason: str, where: str) -> FatalError:
    return FatalError(
        f"a dead letter can't be saved to {destination}: {reason}",
        where=where,
        hint="mend the dead-letter topic; no offset has passed the record",
        code="deadletters.failed",
    )
