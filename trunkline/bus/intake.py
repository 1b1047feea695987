"""The intake of a pipeline: its membership in the consumer group, where each partition begins, and what a rebalance means.

Used by one thread, the pipeline's polling thread. `Member` is told of every change and answers on the same thread.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from trunkline.bus.kafka import KafkaSettings, translate, watermarks
from trunkline.bus.ledger import Ledger, Plan
from trunkline.bus.names import Names
from trunkline.core.errors import FatalError
from trunkline.core.log import get_logger

Partition = tuple[str, int]
"""Topic and partition number."""

log = get_logger(__name__)
CALL_TIMEOUT = 15.0
POLL_SECONDS = 0.1
IDLE_SECONDS = 2.0
QUIET_SECONDS = 5.0
"""After this long without a record a pipeline is idle: its thread looks for a stop or a pause only each IDLE_SECONDS."""
_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001 (librdkafka's own codes have no other name)
_PASSING = {KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._TIMED_OUT}  # noqa: SLF001


@dataclass(frozen=True, slots=True)
class Assigned:
    """A partition that came to this member: it reads from `position`, and the ledger goes on from there."""

    partition: Partition
    position: int
    ledger: Ledger
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a pipeline reads, as whom, and from where.

    `topics` are names, or families that end in `.*`; the pipeline's retry topic comes on top. `started_at` is when the pipeline
    ran first (Unix seconds), None for now. `saved` is the second copy of its offsets.
    """

    settings: KafkaSettings
    names: Names
    pipeline: str
    topics: Sequence[str]
    start: str | datetime
    worker: str
    started_at: float | None = None
    saved: Mapping[Partition, int] | None = None


class Member(Protocol):
    """Who uses an intake. All calls come on the polling thread, inside `Intake.poll`."""

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        """These partitions are ours from now on."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These are about to go: settle what is in flight, commit, and forget them before returning."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These are gone already: forget them without committing."""


class Intake:
    """A member of a pipeline's consumer group."""

    def __init__(self, reading: Reading, member: Member) -> None:
        self._saved = reading.saved or {}
        self._pipeline = reading.pipeline
        self._settings = reading.settings
        self._consumer: Consumer = reading.settings.consumer(reading.names.group(reading.pipeline))
        self._start = reading.start
        self._started_at = reading.started_at if reading.started_at is not None else time.time()
        self._first_run = reading.started_at is None
        self._retry = reading.names.retry(reading.pipeline)
        self._member = member
        self._failure: Exception | None = None
        self._last_record = time.monotonic()
        self._flows = False
        """Whether the last poll found something: the next one will, without waiting."""
        patterns = [
            name if not name.endswith(".*") else "^" + re.escape(name[:-2]) + "[.].+" for name in reading.topics
        ]
        self._consumer.subscribe(
            [*patterns, self._retry], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    @property
    def consumer(self) -> Consumer:
        """The client itself, for pausing, committing and group metadata."""
        return self._consumer

    @property
    def patience(self) -> float:
        """How long a poll should wait: a record ends the wait at once, and each look of an idle pipeline costs CPU time."""
        return POLL_SECONDS if time.monotonic() - self._last_record < QUIET_SECONDS else IDLE_SECONDS

    def poll(self, most: int, timeout: float) -> list[Message]:
        """What is there now, up to `most` records; waits for the first one at most `timeout` seconds.

        Raises our error for what Kafka reports and does not heal by itself.
        """
        # consume() waits for the whole time unless it gets `most`, so the wait is for one record only. It is not poll() that
        # waits: the client's wakes up each 200 ms to look for signals, which is most of what an idle pipeline costs.
        messages: list[Message] = self._consumer.consume(most, 0) if self._flows or not timeout else []
        if not messages and timeout:
            messages = self._consumer.consume(1, timeout)
            if messages:
                messages += self._consumer.consume(most - 1, 0)
        self._flows = bool(messages)
        self.raise_failure()
        if not messages:
            return messages
        self._last_record = time.monotonic()
        good = [message for message in messages if message.error() is None]
        if len(good) != len(messages):
            for message in messages:
                error = message.error()
                if error is not None:
                    self._judge(error)
        return good

    def raise_failure(self) -> None:
        """Raises what went wrong in a callback: an exception inside one would be lost in the client."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def close(self) -> None:
        """Leaves the group; `revoked` is called for what is still assigned."""
        self._consumer.close()

    def _judge(self, error: KafkaError) -> None:
        if error.code() in _ABSENT or error.code() in _PASSING or error.retriable():
            log.debug("kafka reports", error=error.str())
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            raise FatalError(
                f"the committed offset is no longer there: {error.str()}",
                hint=f"records expired before they were read: `trunkline offsets set {self._pipeline} --to earliest` goes on after them",
                code="offsets.out_of_range",
            )
        raise translate(error, "reading failed")

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            if not partitions:
                return
            assigned = self._positions(consumer, partitions)
            self._first_run = False
            self._settings.take(consumer, [TopicPartition(*one.partition, one.position) for one in assigned])
            self._member.assigned(assigned)
        except Exception as error:  # noqa: BLE001 (raised again by poll)
            self._failure = error

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            if partitions:
                self._member.revoked([(part.topic, part.partition) for part in partitions])
        except Exception as error:  # noqa: BLE001
            self._failure = error
        finally:
            self._settings.give_up(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._member.lost([(part.topic, part.partition) for part in partitions])
        except Exception as error:  # noqa: BLE001
            self._failure = error
        finally:
            self._settings.give_up(consumer, partitions)

    def _positions(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[Assigned]:
        """Committed positions, and for partitions never read the manifest's start, committed at once.

        From then on there always is a commit, and `auto.offset.reset=error` tells when it is lost.
        """
        try:
            committed = consumer.committed(partitions, timeout=CALL_TIMEOUT)
        except KafkaException as error:
            raise translate(error, "the committed offsets can't be read") from error
        found, new = [], []
        for part in committed:
            if part.error is not None:
                raise translate(part.error, f"the commit of {part.topic}[{part.partition}] can't be read")
            if part.offset >= 0:
                ledger, plan = Ledger.from_metadata(part.metadata, part.offset)
                found.append(Assigned((part.topic, part.partition), part.offset, ledger, plan))
            elif (part.topic, part.partition) in self._saved:
                # `start` is for the first time: applied again it would repeat a topic's history, or skip what has come since.
                raise FatalError(
                    f"the committed offset of {part.topic}[{part.partition}] is gone; it was {self._saved[part.topic, part.partition]}",
                    hint=f"Kafka forgets those of a group that is idle for long: `trunkline offsets set {self._pipeline} --to saved`",
                    code="offsets.missing",
                )
            else:
                new.append(part)
        if new:
            starts = self._starts(consumer, new)
            first = [
                TopicPartition(topic, number, offset, Ledger(first=offset).to_metadata())
                for (topic, number), offset in starts.items()
            ]
            try:
                consumer.commit(offsets=first, asynchronous=False)
            except KafkaException as error:
                raise translate(error, "the first offsets can't be committed") from error
            found += [Assigned(partition, offset, Ledger(first=offset), None) for partition, offset in starts.items()]
        return found

    def _starts(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> Mapping[Partition, int]:
        starts: dict[Partition, int] = {}
        for part in partitions:
            partition = (part.topic, part.partition)
            low, high = watermarks(consumer, part.topic, part.partition, CALL_TIMEOUT)
            if part.topic == self._retry or self._start == "earliest":
                starts[partition] = low
                continue
            if self._start == "latest" and self._first_run:
                starts[partition] = high
                continue
            # `latest` means the moment when the pipeline first ran: a partition or a topic that appears later is read whole.
            moment = self._started_at if self._start == "latest" else self._start.timestamp()  # type: ignore[union-attr]
            asked = TopicPartition(part.topic, part.partition, int(moment * 1000))
            try:
                answer = consumer.offsets_for_times([asked], timeout=CALL_TIMEOUT)[0]
            except KafkaException as error:
                raise translate(
                    error, f"the offset of a time in {part.topic}[{part.partition}] can't be found"
                ) from error
            starts[partition] = answer.offset if answer.offset not in {OFFSET_INVALID, -1} else high
        return starts
