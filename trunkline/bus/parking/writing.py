"""The transactions of parking: parked records, settlements, dead letters, decisions and offsets of one pipeline, together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from trunkline.bus.accounting import audit
from trunkline.bus.accounting.audit import Chain, Entry
from trunkline.bus.kafka import (
    OFFSETS_SECONDS,
    BoundedCalls,
    KafkaSettings,
    produce,
    transactional_producer,
    translate,
)
from trunkline.bus.names import Names
from trunkline.core.envelope import WireHeaders
from trunkline.core.errors import FatalError, RetriableError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import counter

log = get_logger(__name__)
TIMEOUT = 15.0
TRIES = 5


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to write. A `partition` of -1 leaves the choice to the key."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: WireHeaders
    partition: int = -1


class Writer:
    """Writes transactions of one pipeline on one worker. Blocks; belongs to the polling thread."""

    def __init__(self, settings: KafkaSettings, names: Names, pipeline: str, worker: str) -> None:
        self._settings = settings
        self._names = names
        self._pipeline = pipeline
        self._id = names.transactional_id(pipeline, worker, "park")
        self._producer: Producer | None = None
        self._chain = Chain()
        self._bounded = BoundedCalls(f"offsets-{pipeline}-park")
        self._refusals = 0
        self._aborted = counter("trunkline_transactions_aborted_total").labels(pipeline)

    def begin(self) -> None:
        """Makes the producer, which ends what an earlier life of this worker left open. Pipelines that never park have none."""
        if self._producer is None:
            what = "the transactional producer of parking can't start"
            self._producer = transactional_producer(self._settings, self._id, what)

    def write(
        self,
        records: Sequence[Outgoing],
        offsets: Sequence[TopicPartition],
        consumer: Consumer,
        changelog: str,
        entries: Sequence[Entry] = (),
    ) -> dict[int, int] | None:
        """One transaction, with its entries in the audit trail. Returns, by partition of the changelog, the offset after its last record.

        None where the transaction was aborted and may be tried again: the group is about to take partitions away, or the
        broker could not do it now. Raises `RetriableError` when nobody knows whether it committed, and after TRIES refusals;
        `FatalError` for what a person must mend.
        """
        self.begin()
        assert self._producer is not None
        reached: dict[int, int] = {}
        failures: list[KafkaError] = []

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                failures.append(error)
            elif message.topic() == changelog:
                partition, offset = message.partition() or 0, message.offset() or 0
                reached[partition] = max(reached.get(partition, 0), offset + 1)

        try:
            self._producer.begin_transaction()
            for one in records:
                produce(
                    self._producer,
                    one.topic,
                    one.value,
                    one.key,
                    one.headers,
                    partition=one.partition,
                    on_delivery=acknowledged,
                )
            for entry in entries:
                audit.write(self._producer, self._names, self._chain, entry, on_delivery=acknowledged)
            self._producer.flush(TIMEOUT)
            if failures:
                raise KafkaException(failures[0])
            # I16: who lost the partition can neither park nor release: the group refuses the offsets of a former generation.
            send, member = self._producer.send_offsets_to_transaction, consumer.consumer_group_metadata()
            self._bounded(send, list(offsets), member, OFFSETS_SECONDS, seconds=OFFSETS_SECONDS)
            self._producer.commit_transaction(TIMEOUT)
        except KafkaException as error:
            self._undo(error.args[0], failures)
            return None
        self._refusals = 0
        return reached

    def close(self) -> None:
        """Writes nothing more."""
        self._bounded.close()

    def _undo(self, cause: KafkaError, failures: list[KafkaError]) -> None:
        """Aborts what can be aborted; raises for the rest."""
        assert self._producer is not None
        self._chain = Chain()
        self._aborted.inc()
        self._refusals += 1
        log.warning("parking: transaction undone", pipeline=self._pipeline, error=cause.str())
        problem = self._problem(failures[0] if failures else cause)
        if isinstance(problem, FatalError):
            raise problem
        if not (cause.txn_requires_abort() or failures) or self._refusals >= TRIES:
            # The outcome is unknown, or the producer is of no use: a restart begins at what is committed.
            raise RetriableError(str(problem.message), code="parked.unwritten")
        try:
            self._producer.abort_transaction(TIMEOUT)
        except KafkaException as error:
            raise RetriableError(
                f"a transaction of parking can't be ended: {error}", code="parked.unwritten"
            ) from error

    def _problem(self, cause: KafkaError) -> TrunklineError:
        found: Any = translate(cause, f"the parked records of {self._pipeline} can't be written")
        return found  # type: ignore[no-any-return]
