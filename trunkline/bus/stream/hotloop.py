"""The hot loop: a run of records of one partition through a stream, each with its outputs, its outcome and its line in the trace.

Most records take the short way: the plain form of the stream's work (`plain.py`), their own headers passed on as they are. What
that raises for goes the long way, through `Transform` with an `Event`; there it is decided what becomes of the record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import UNREADABLE, offset_of, produce, wire_headers_of, without_headers
from trunkline.bus.names import Names
from trunkline.bus.records import Output
from trunkline.bus.stream.plain import PlainTransform, UnusualError
from trunkline.bus.stream.transform import FailedRecordError, correlation_of
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.envelope import CE_CORRELATION_ID, CE_SPECVERSION
from trunkline.core.errors import FatalError, HaltError, RetriableError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.registry.wire import PREFIX_SIZE

log = get_logger(__name__)
OnDelivery = Callable[[KafkaError | None, Message], None]


class TransformLike(Protocol):
    """A `Transform`, or what stands for one."""

    plain: dict[bytes, PlainTransform]
    """The short way, by the first bytes of the values that may take it."""

    def __call__(self, message: Message, topic: str, partition: int, offset: int) -> tuple[list[Output], Event]:
        """The long way: the outputs of a record, and the event. Raises FailedRecordError."""


VALUE: Callable[[Any], Any] = Message.value
KEY: Callable[[Any], Any] = Message.key
HEADERS: Callable[[Any], Any] = Message.headers


class Counts(NamedTuple):
    """How many records ended in which class, and how many were written."""

    delivered: int
    filtered: int
    dead: int
    outputs: int


class HotLoop:
    """Processes runs of records for one stream on one worker, on the stream's thread.

    `on_delivery` is told of every dead letter that could not be written, and where `process` is asked to watch of every record.
    """

    def __init__(
        self,
        pipeline: str,
        worker: str,
        names: Names,
        trace: TraceBatch,
        on_delivery: OnDelivery,
        threshold: DeadLetterThreshold,
    ) -> None:
        self._pipeline = pipeline
        self._worker = worker
        self._dead_letters = names.dead_letters(pipeline)
        self._trace = trace
        self._on_delivery = on_delivery
        self._threshold = threshold
        self.halted: HaltError | None = None
        """Set where a record was one dead letter too many: it is the last one that was processed."""
        self._guess = 6
        """Where the correlation id stood among the headers of the last record: the same place for most of a topic."""

    def process(
        self,
        place: Partition,
        offsets: list[int],
        messages: Sequence[Any],
        transform: TransformLike,
        producer: Producer,
        *,
        watch: bool,
        topic_id: str = "",
    ) -> Counts:
        """Hands the outputs of the messages at these offsets to the producer, and notes in the trace what became of each.

        What comes behind one dead letter too many is not processed, and not in the counts.
        """
        on_delivery = self._on_delivery if watch else None
        done, all_ids, outcomes, details = self._trace.part(*place)
        plain, write, guess = transform.plain, producer.produce, self._guess
        ids: list[bytes] = []
        filtered = dead = written = noted = 0
        columns: Iterator[Any] = zip(
            messages, map(VALUE, messages), map(KEY, messages), map(HEADERS, messages), strict=True
        )
        while len(ids) < len(messages) and self.halted is None:
            try:
                for message, value, key, headers in columns:
                    try:
                        outputs: Sequence[Any] = plain[value[:PREFIX_SIZE]](value, key, headers)
                        name, correlation = headers[guess]
                        if name != CE_CORRELATION_ID or headers[0][0] != CE_SPECVERSION:
                            raise UnusualError
                    except Exception:  # noqa: BLE001
                        # I21: whatever the short way raises for is done again the long way, which decides what it means.
                        try:
                            outputs, event = transform(message, *place, offset_of(message))
                            found, guess = correlation_of(event.headers, guess)
                            correlation = found.encode()
                        except FailedRecordError as failed:
                            self._save(message, failed.failure, producer, topic_id)
                            details[str(len(done) + len(ids))] = failed.failure.told
                            found, guess = correlation_of(headers or (), guess)
                            ids.append(found.encode())
                            outcomes.append("dead")
                            dead += 1
                            self._threshold.ended(len(ids) - 1 - noted)
                            noted = len(ids)
                            self.halted = self._threshold.died()
                            if self.halted is not None:
                                break
                            continue
                    ids.append(correlation)
                    if outputs:
                        for topic, out, out_key, own in outputs:
                            try:
                                # By position (partition, two names of the callback, timestamp): names cost a tenth of the call.
                                write(topic, out, out_key, -1, None, on_delivery, 0, own)
                            except BufferError:
                                produce(producer, topic, out, out_key, own, on_delivery=on_delivery)
                        outcomes.append("delivered")
                        written += len(outputs)
                    else:
                        outcomes.append("filtered")
                        filtered += 1
            except UNREADABLE:
                if len(outcomes) != len(done) + len(ids):
                    raise
                # It came from between two records: the next one's headers can't be read. It takes the long way without them.
                message = messages[len(ids)]
                columns = chain([(message, message.value(), message.key(), without_headers(message))], columns)
        self._guess = guess
        self._threshold.ended(len(ids) - noted)
        done += offsets[: len(ids)]
        all_ids += _texts(ids)
        return Counts(len(ids) - filtered - dead, filtered, dead, written)

    def _save(self, message: Message, failure: Failure, producer: Producer, topic_id: str) -> None:
        # I3: a record is saved before any offset passes it: here in the same transaction, or flushed before the commit.
        topic, partition, offset = message.topic() or "", message.partition() or 0, offset_of(message)
        headers = dead_letter_headers(
            wire_headers_of(message),
            pipeline=self._pipeline,
            task=self._worker,
            topic=topic,
            partition=partition,
            offset=offset,
            failure=failure,
            topic_id=topic_id,
        )
        log.warning(
            "dead letter",
            pipeline=self._pipeline,
            topic=topic,
            partition=partition,
            offset=offset,
            stage=failure.stage,
            reason=failure.reason,
        )
        try:
            produce(
                producer,
                self._dead_letters,
                message.value(),
                message.key(),
                headers,
                partition=partition,
                on_delivery=self._on_delivery,
            )
        except (KafkaException, RetriableError) as error:
            if isinstance(error, KafkaException) and error.args[0].code() == KafkaError._STATE:  # noqa: SLF001
                raise  # the transaction had failed already, whatever this record is
            raise FatalError(
                f"a dead letter can't be saved to {self._dead_letters}: {error}",
                where=f"{topic}[{partition}]@{offset}",
                code="deadletters.failed",
            ) from error


def _texts(ids: Sequence[bytes | None]) -> list[str]:
    """Ids as text, all at once where none holds a line's end."""
    try:
        found = b"\n".join(ids).decode("utf-8", "replace").split("\n")  # type: ignore[arg-type]
    except TypeError:  # a header without a value
        found = []
    if len(found) == len(ids):
        return found
    return [(one or b"").decode("utf-8", "replace") for one in ids]
