"""The intake of a pipeline: its membership in the consumer group, where each partition begins, and what a rebalance means.

Used by one thread, the pipeline's polling thread. `Member` is told of every change and answers on the same thread.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Collection, Sequence
from typing import Protocol

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from trunkline.bus.beginnings import Assigned, Beginnings, Partition, Reading
from trunkline.bus.kafka import offset_of, passes, translate
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger

__all__ = ["Assigned", "Intake", "Member", "Partition", "Reading"]

log = get_logger(__name__)
POLL_SECONDS = 0.1
IDLE_SECONDS = 2.0
QUIET_SECONDS = 5.0
"""After this long without a record a pipeline is idle: its thread looks for a stop or a pause only each IDLE_SECONDS."""
TURN_SECONDS = 5.0
JOIN_SECONDS = 2.0
REVOKE_SECONDS = 3.0
"""How long a rebalance waits for an answer whether the topics are still those that were read."""
_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}  # noqa: SLF001 (librdkafka's own codes have no other name)


class Turn:
    """A turn to begin: where hundreds of pipelines do at once, some at a time make a client and join their group.

    All of them at the same time would keep each other, and everything else in the process, waiting for seconds. A turn is waited for at
    most some seconds, and given back after some, so that one that can't join holds up nobody for long.
    """

    _free = threading.BoundedSemaphore(8)

    def __init__(self) -> None:
        self._held = self._free.acquire(timeout=TURN_SECONDS)
        self._begun = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether it took its time."""
        return time.monotonic() - self._begun > JOIN_SECONDS

    def end(self) -> None:
        """Another one's turn. May be called again."""
        if self._held:
            self._held = False
            self._free.release()


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
        self._settings = reading.settings
        self._beginnings = Beginnings(reading)
        self._member = member
        self._begun: dict[Partition, int] = {}
        """Where each partition that is ours was begun."""
        self._closing = False
        self._failure: Exception | None = None
        self._last_record = time.monotonic()
        self._flows = False
        """Whether the last poll found something: the next one will, without waiting."""
        patterns = [
            name if not name.endswith(".*") else "^" + re.escape(name[:-2]) + "[.].+" for name in reading.topics
        ]
        self._turn = Turn()
        try:
            self._consumer: Consumer = reading.settings.consumer(reading.names.group(reading.pipeline))
            self._consumer.subscribe(
                [*patterns, reading.retry], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
        except BaseException:
            self._turn.end()
            raise

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
        messages = self._consume(most, timeout)
        if messages or self._turn.over:
            self._turn.end()
        self.raise_failure()
        if not messages:
            return messages
        self._last_record = time.monotonic()
        good = [message for message in messages if message.error() is None]
        if len(good) != len(messages):
            for message in messages:
                error = message.error()
                if error is not None:
                    self._judge(error, message)
        return good

    def _consume(self, most: int, timeout: float) -> list[Message]:
        # consume() waits for the whole time unless it gets `most`, so the wait is for one record only. It is not poll() that
        # waits: the client's wakes up each 200 ms to look for signals, which is most of what an idle pipeline costs.
        messages: list[Message] = self._consumer.consume(most, 0) if self._flows or not timeout else []
        if not messages and timeout:
            messages = self._consumer.consume(1, timeout)
            if messages:
                messages += self._consumer.consume(most - 1, 0)
        self._flows = bool(messages)
        return messages

    def raise_failure(self) -> None:
        """Raises what went wrong in a callback: an exception inside one would be lost in the client."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    def check_topics(self) -> None:
        """Raises where a topic is gone or was made anew, after its partitions were given up as lost. Our error for Kafka's otherwise."""
        changed = self._beginnings.changed({topic for topic, _ in self._begun})
        if changed:
            gone = self._of(changed)
            error = self._beginnings.error_for(self._consumer, self._read_to(gone))
            with contextlib.suppress(TrunklineError):  # whatever giving them up leads to follows from this
                self._member.lost(gone)
            raise error

    def close(self) -> None:
        """Leaves the group; `revoked` is called for what is still assigned."""
        self._turn.end()
        self._closing = True
        self._consumer.close()

    def _judge(self, error: KafkaError, message: Message) -> None:
        if error.code() in _ABSENT or passes(error):
            # The client goes on by itself, also with a topic that is made later; meanwhile nothing of it is read.
            self._settings.report(error, about=message.topic() or "")
            return
        if error.code() == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            place = (message.topic() or "", message.partition() or 0)
            raise self._beginnings.error_for(
                self._consumer, {**self._read_to(list(self._begun)), place: offset_of(message)}
            )
        raise translate(error, "reading failed")

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            # Who ends, or is about to for a failure, begins nothing more. Asking a client that closes where to begin gets no answer, and
            # for as long as that takes nobody would be told of the failure.
            if not partitions or self._closing or self._failure is not None:
                return
            assigned = self._beginnings.of(consumer, partitions)
            self._begun |= {one.partition: one.position for one in assigned}
            self._settings.take(consumer, [TopicPartition(*one.partition, one.position) for one in assigned])
            self._member.assigned(assigned)
        except Exception as error:  # noqa: BLE001 (raised again by poll)
            self._failure = error
        finally:
            self._turn.end()

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            going = [(part.topic, part.partition) for part in partitions]
            changed = set() if self._closing else self._changed({topic for topic, _ in going})
            gone = [place for place in going if place[0] in changed]
            if gone:
                # I31: what was read of a topic that is gone is not committed in the one that has its name now.
                self._failure = self._beginnings.error_for(consumer, self._read_to(gone))
                self._member.lost(gone)
            left = [place for place in going if place[0] not in changed]
            if left:
                self._member.revoked(left)
        except Exception as error:  # noqa: BLE001
            self._failure = (
                self._failure or error
            )  # that a topic is gone comes first: what giving up led to follows from it
        finally:
            self._give_up(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        try:
            self._member.lost([(part.topic, part.partition) for part in partitions])
        except Exception as error:  # noqa: BLE001
            self._failure = error
        finally:
            self._give_up(consumer, partitions)

    def _give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for part in partitions:
            self._begun.pop((part.topic, part.partition), None)
        self._settings.give_up(consumer, partitions)

    def _changed(self, topics: Collection[str]) -> set[str]:
        try:
            return self._beginnings.changed(topics, timeout=REVOKE_SECONDS)
        except TrunklineError as error:
            # The commit says which topic it was made in, and the next beginning compares.
            log.warning("it is not known whether the topics are still the same", reason=str(error))
            return set()

    def _of(self, topics: Collection[str]) -> list[Partition]:
        return [place for place in self._begun if place[0] in topics]

    def _read_to(self, places: Sequence[Partition]) -> dict[Partition, int]:
        """How far these partitions were read."""
        reached = self._consumer.position([TopicPartition(*place) for place in places])
        return {
            (part.topic, part.partition): max(part.offset, self._begun[part.topic, part.partition]) for part in reached
        }
