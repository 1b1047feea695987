"""The stream runtime: consume, process, produce, with outputs, dead letters, trace and offsets in one Kafka transaction.

One thread does everything. A transaction spans what was read until the input has a pause or `TRANSACTION_SECONDS` have
passed, so it is short when little comes (latency) and long when much does (throughput).
"""

from __future__ import annotations

import threading
import time
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.intake import Assigned, Intake, Partition, Reading
from trunkline.bus.kafka import (
    OFFSETS_SECONDS,
    BoundedCalls,
    RestingProducer,
    offset_of,
    produce,
    transactional_producer,
    translate,
)
from trunkline.bus.ledger import Ledger
from trunkline.bus.runtime import LedgerCounts, RuntimeReport
from trunkline.bus.stream.hotloop import HotLoop, TransformLike
from trunkline.bus.threads import in_own_thread
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.cause import Cause
from trunkline.core.errors import FatalError, HaltError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import counter, histogram

log = get_logger(__name__)
TRANSACTION_SECONDS = 0.2
SHORT_SECONDS = 0.02
FEW = 200
"""A transaction with fewer records than this after SHORT_SECONDS is committed at once: the input is slow."""
GATHER_SECONDS = 0.01
"""The most that little input gathers after a commit, which is for as long as that took: a transaction costs the broker as much as
dozens of records, and one that is busy is asked for fewer."""
READ_AT_ONCE = 2000
TRANSACTION_TIMEOUT = 15.0


@dataclass(slots=True)
class _PartitionState:
    """One partition that is ours: the ledger as committed, and what the open transaction adds to it."""

    ledger: Ledger
    position: int
    committed: int
    offsets: array[int] = field(default_factory=lambda: array("q"))
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, **counts: int) -> None:
        for outcome, count in counts.items():
            if count:
                self.counts[outcome] = self.counts.get(outcome, 0) + count

    def pending_ledger(self) -> Ledger:
        ledger = self.ledger.copy()
        ledger.add(self.offsets, **self.counts)
        return ledger

    def accept(self, ledger: Ledger) -> None:
        self.ledger, self.committed = ledger, self.position
        self.offsets, self.counts = array("q"), {}

    def discard(self) -> None:
        self.position = self.committed
        self.offsets, self.counts = array("q"), {}


class StreamRuntime:
    """Runs one stream on one worker, in a thread of its own."""

    def __init__(
        self,
        reading: Reading,
        transform_of: Callable[[str], TransformLike],
        *,
        exactly_once: bool = True,
        threshold: DeadLetterThreshold,
    ) -> None:
        self._reading = reading
        self._settings = reading.settings
        self._names = reading.names
        self._pipeline = pipeline = reading.pipeline
        self._worker = reading.worker
        self._transform_of = transform_of
        self._exactly_once = exactly_once
        self._threshold = threshold
        self._states: dict[Partition, _PartitionState] = {}
        self._transforms: dict[str, TransformLike] = {}
        self._trace = TraceBatch(pipeline, "stream", reading.worker)
        self._loop = HotLoop(pipeline, reading.worker, reading.names, self._trace, self._on_delivery, threshold)
        self._producers = RestingProducer(self._new_producer)
        self._stop = threading.Event()
        self._paused = threading.Event()
        self._topics_in_doubt = threading.Event()
        self._begun: float | None = None
        self._not_before = 0.0
        """When the next commit is due at the earliest, where little comes."""
        self._in_transaction = 0
        self._needs_rewind = False
        self._bounded = BoundedCalls(f"offsets-{self._pipeline}")
        self._watching = False
        self._delivery_failure: KafkaError | None = None
        self._summed = LedgerCounts(lambda: self.positions, lambda: self.ledgers)
        self._cause: Cause | None = None
        """Why its transactions do not commit now."""
        self._read = counter("trunkline_records_in_total").labels(pipeline)
        self._settled = counter("trunkline_records_settled_total")
        self._seconds = histogram("trunkline_transaction_seconds").labels(pipeline)
        self._aborted = counter("trunkline_transactions_aborted_total").labels(pipeline)

    # --- called from anywhere ---

    async def run(self) -> None:
        """See `Runtime`."""
        await in_own_thread(self._work, f"stream-{self._pipeline}")

    def stop(self) -> None:
        """Asks `run` to commit what it has and return."""
        self._stop.set()

    def pause(self) -> None:
        """Stops reading; partitions stay assigned."""
        self._paused.set()

    def check_topics(self) -> None:
        """See `Runtime`."""
        self._topics_in_doubt.set()

    def resume(self) -> None:
        """Reads on."""
        self._paused.clear()

    def report(self) -> RuntimeReport:
        """See `Runtime`."""
        summed = self._summed.look()
        return RuntimeReport(
            counts=summed.counts,
            open=summed.open,
            positions=summed.positions,
            ledgers=summed.ledgers,
            cause=self._cause,
        )

    @property
    def ledgers(self) -> Mapping[Partition, Ledger]:
        """The committed ledger of each partition that is ours."""
        return {partition: state.ledger for partition, state in list(self._states.items())}

    @property
    def positions(self) -> Mapping[Partition, int]:
        """The committed offset of each partition that is ours."""
        return {partition: state.committed for partition, state in list(self._states.items())}

    # --- the thread ---

    def _work(self) -> None:
        """Reads, processes and writes until `stop`. Raises `TrunklineError` when the pipeline can't go on."""
        # Before joining the group: an open transaction of our former life is ended now, and its holder fenced.
        self._producers.renew()
        self._intake = Intake(self._reading, self)
        try:
            self._read_on()
            self._commit_last()
        except KafkaException as error:
            raise translate(error, f"the stream {self._pipeline} can't go on") from error
        finally:
            self._close()

    def _new_producer(self) -> Producer:
        if not self._exactly_once:
            return self._settings.producer(linger_ms=20, only_failures=True)
        transactional_id = self._names.transactional_id(self._pipeline, self._worker, "0")
        # It lingers for long: a commit sends at once what waits.
        return transactional_producer(self._settings, transactional_id, linger_ms=20, only_failures=True)

    def _read_on(self) -> None:
        applied_pause = False
        while not self._stop.is_set():
            if self._topics_in_doubt.is_set():
                self._topics_in_doubt.clear()
                self._intake.check_topics()
            if self._needs_rewind:
                self._needs_rewind = False
                self._rewind()
            paused = self._paused.is_set()
            if paused != applied_pause:
                self._commit()
                self._apply_pause(paused)
                applied_pause = paused
            wait = self._intake.patience if self._begun is None else max(0.0, self._not_before - time.monotonic())
            messages = self._intake.poll(READ_AT_ONCE, wait)
            if self._needs_rewind:
                continue  # what was just read comes again
            if messages and not self._process(messages):
                continue
            if self._loop.halted is not None:
                self._halt(self._loop.halted)
                continue
            if self._begun is None:
                self._producers.rest()
            else:
                self._producers.current.poll(0)
                if self._is_due(messages):
                    self._commit()
            if applied_pause:
                self._apply_pause(True)

    def _halt(self, error: HaltError) -> None:
        """Commits what came up to one dead letter too many, and raises; unless none of it counted, and it is done again."""
        self._commit()
        if not self._needs_rewind:
            raise error

    def _is_due(self, messages: list[Message]) -> bool:
        """Little to do: commit soon, for latency. Much to do: commit seldom, for throughput."""
        now = time.monotonic()
        if not messages:
            return now >= self._not_before
        assert self._begun is not None
        age = now - self._begun
        self._in_transaction += len(messages)
        if age >= SHORT_SECONDS and self._in_transaction < FEW:
            return True
        return age >= TRANSACTION_SECONDS

    def _apply_pause(self, paused: bool) -> None:
        partitions = [TopicPartition(*partition) for partition in self._states]
        if partitions:
            (self._intake.consumer.pause if paused else self._intake.consumer.resume)(partitions)

    def _process(self, messages: list[Message]) -> bool:
        """Processes what was read, a run of one partition at a time; False when the transaction had failed meanwhile."""
        try:
            if self._begun is None:
                producer = self._producers.use()
                self._begun = time.monotonic()
                if self._exactly_once:
                    producer.begin_transaction()
            self._read.inc(len(messages))
            for (topic, partition), run in groupby(messages, _place):
                state = self._states.get((topic, partition))
                if state is not None:  # else it was handed over meanwhile
                    self._process_run(topic, partition, state, list(run))
                    if self._loop.halted is not None:
                        break
        except KafkaException as error:
            if not self._exactly_once:
                raise
            # A record of this transaction could not be written: from then on the client takes no other one (`_STATE`).
            self._begun = None
            self._undo(error)
            return False
        return True

    def _process_run(self, topic: str, partition: int, state: _PartitionState, messages: list[Message]) -> None:
        offsets = [offset_of(message) for message in messages]
        if offsets[0] < state.position:  # read again after a rewind
            first = bisect_left(offsets, state.position)
            offsets, messages = offsets[first:], messages[first:]
            if not offsets:
                return
        transform = self._transforms.get(topic) or self._learn(topic)
        # In a transaction the commit tells of failures; which one it was is asked only when there is one.
        watch = self._watching or not self._exactly_once
        counts = self._loop.process(
            (topic, partition),
            offsets,
            messages,
            transform,
            self._producers.current,
            watch=watch,
            topic_id=state.ledger.topic_id,
        )
        processed = counts.delivered + counts.filtered + counts.dead
        state.offsets.extend(offsets[:processed])
        state.position = offsets[processed - 1] + 1
        state.count(**counts._asdict())

    def _on_delivery(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None and self._delivery_failure is None:
            self._delivery_failure = error

    def _learn(self, topic: str) -> TransformLike:
        """The transform of an input topic. The retry topic's records are those of the inputs."""
        transform = self._transform_of(topic)
        self._transforms[topic] = transform
        return transform

    def _commit(self) -> None:
        """Ends the open transaction: everything in it counts, or nothing does and it is done again."""
        if self._begun is None:
            return
        begun, self._begun = self._begun, None
        asked = time.monotonic()
        ledgers = {partition: state.pending_ledger() for partition, state in self._states.items() if state.offsets}
        commits = [
            TopicPartition(*part, self._states[part].position, ledger.to_metadata()) for part, ledger in ledgers.items()
        ]
        producer = self._producers.current
        try:
            for record in self._trace.drain():
                produce(producer, self._names.trace, record, None, [])
            if self._exactly_once:
                # I9: outputs, dead letters, trace and offsets with their ledger are one transaction.
                if commits:
                    metadata = self._intake.consumer.consumer_group_metadata()
                    send = producer.send_offsets_to_transaction
                    self._bounded(send, commits, metadata, OFFSETS_SECONDS, seconds=OFFSETS_SECONDS)
                producer.commit_transaction(TRANSACTION_TIMEOUT)
            else:
                self._flush()
                if commits:
                    self._settings.commit(self._intake.consumer, commits)
        except KafkaException as error:
            self._undo(error)
            return
        counts: Counter[str] = Counter()
        for partition, ledger in ledgers.items():
            counts.update(self._states[partition].counts)
            self._states[partition].accept(ledger)
        self._reading.known.advance({partition: self._states[partition].committed for partition in ledgers})
        self._in_transaction = 0
        self._watching = False
        self._cause = None
        ended = time.monotonic()
        self._not_before = ended + min(ended - asked, GATHER_SECONDS)
        self._seconds.observe(ended - begun)
        self._report(counts)

    def _report(self, counts: Mapping[str, int]) -> None:
        for outcome in ("delivered", "filtered", "dead"):
            if counts.get(outcome):
                self._settled.labels(self._pipeline, outcome).inc(counts[outcome])

    def _flush(self) -> None:
        left = self._producers.current.flush(TRANSACTION_TIMEOUT)
        failure, self._delivery_failure = self._delivery_failure, None
        if failure is not None:
            raise KafkaException(failure)
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001

    def _undo(self, error: KafkaException) -> None:
        """The transaction did not commit, or we can't know: what is committed is asked for, and the rest is done again.

        Not here: this may be a callback of the consumer, which would wait for its coordinator while the consumer closes.
        """
        cause = error.args[0]
        self._aborted.inc()
        self._tell(cause)
        log.warning("transaction undone", pipeline=self._pipeline, error=cause.str())
        try:
            self._producers.current.poll(0)
        except KafkaException:
            # A producer that can't go on may say so here too: in exactly-once another one takes its place.
            if not self._exactly_once:
                raise
        failure = self._delivery_failure
        if self._exactly_once and not self._aborts(cause):
            # The outcome is unknown or the producer is unusable: a new one with the same id settles it either way.
            self._producers.renew()
        self._loop.halted = None
        self._threshold.forget()
        # Only now: an abort reports every record that it throws away.
        self._delivery_failure = None
        self._watching = failure is None
        self._in_transaction = 0
        self._trace.drain()
        self._raise_for_delivery(failure if failure is not None else cause)
        if cause.fatal() and not self._exactly_once:
            raise translate(error, "the producer can't go on")
        self._needs_rewind = True

    def _tell(self, cause: KafkaError) -> None:
        """People are told from now on why its transactions are undone, until one commits."""
        before, now = self._cause, time.time()
        found = translate(cause, "a transaction was undone and is done again")
        attempt = (before.attempt or 0) + 1 if before is not None else 1
        self._cause = Cause.of(found, since=before.since if before is not None else now, attempt=attempt)

    def _aborts(self, cause: KafkaError) -> bool:
        """Aborts the transaction; False where it may not be aborted, or could not be."""
        if not cause.txn_requires_abort() and cause.code() != KafkaError._STATE:  # noqa: SLF001
            return False
        try:
            self._producers.current.abort_transaction(TRANSACTION_TIMEOUT)
        except KafkaException as error:
            log.warning("the transaction can't be aborted", pipeline=self._pipeline, error=str(error))
            return False
        return True

    def _raise_for_delivery(self, failure: KafkaError) -> None:
        translated: TrunklineError = translate(failure, f"the stream {self._pipeline} can't write")
        if isinstance(translated, FatalError):
            raise translated

    def _rewind(self) -> None:
        """Reads again from the committed offsets; they are asked for, because an unknown outcome may have been a commit."""
        partitions = [TopicPartition(*partition) for partition in self._states]
        if not partitions:
            return
        for part in self._intake.consumer.committed(partitions, timeout=TRANSACTION_TIMEOUT):
            state = self._states[part.topic, part.partition]
            if part.offset >= 0:
                state.ledger, _ = Ledger.from_metadata(part.metadata, part.offset)
                state.committed = part.offset
            state.discard()
            self._intake.consumer.seek(TopicPartition(part.topic, part.partition, state.position))

    def _commit_last(self) -> None:
        try:
            self._commit()
        except (KafkaException, TrunklineError) as error:
            log.warning("the last transaction was not committed", pipeline=self._pipeline, error=str(error))

    def _close(self) -> None:
        try:
            # I9: what is open now broke off among records whose outputs are written and whose offsets are not noted: none of it may
            # count, and giving the partitions up would commit it.
            self._abandon()
        except KafkaException as error:
            log.warning("the transaction can't be aborted", pipeline=self._pipeline, error=str(error))
        finally:
            try:
                self._intake.close()
            finally:
                self._bounded.close()
            if not self._exactly_once and not self._producers.resting:
                self._producers.current.flush(5)

    def _abandon(self) -> bool:
        """Gives the open transaction up; False where none is open. Raises KafkaException where it could not be aborted."""
        if self._begun is None:
            return False
        self._begun = None
        self._trace.drain()
        if self._exactly_once:
            self._producers.current.abort_transaction(TRANSACTION_TIMEOUT)
        return True

    # --- the intake's member ---

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """Takes partitions up where the group left them."""
        for one in partitions:
            self._states[one.partition] = _PartitionState(one.ledger, one.position, one.position)
        log.info(
            "assigned",
            pipeline=self._pipeline,
            partitions=[f"{one.partition[0]}[{one.partition[1]}]" for one in partitions],
        )

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """Commits what was done, then lets go."""
        self._commit()
        self._forget(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """Another member has them already: what is in the open transaction must not count."""
        self._forget(partitions)
        if self._exactly_once and self._abandon():
            # The other partitions' records were in the same transaction: they are read again, outside of this callback.
            self._needs_rewind = True

    def _forget(self, partitions: Sequence[Partition]) -> None:
        for partition in partitions:
            self._states.pop(partition, None)


def _place(message: Message) -> Partition:
    return message.topic() or "", message.partition() or 0
