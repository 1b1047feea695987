"""The last records of a topic and those that arrive, decoded and filtered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from trunkline.bus.deadletters import written_topic
from trunkline.bus.kafka import (
    KafkaSettings,
    end_offsets,
    headers_of,
    offset_of,
    passes,
    records_of,
    translate,
    watermarks,
)
from trunkline.bus.redrive.letters import decoded_value, text_of
from trunkline.control.cluster import Cluster
from trunkline.control.filters import RecordFilter
from trunkline.control.timestamps import utc
from trunkline.control.topics import require_topic
from trunkline.core.event import Event
from trunkline.core.jsonable import to_jsonable
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder

_READ_BACK = 8
"""A partition is read back so many times as far as asked at first where a filter or markers leave too few records."""


@dataclass(frozen=True, slots=True)
class TopicRecord:
    """A record, decoded. `timestamp` is in Unix milliseconds; `undecodable` has the reason where the value could not be decoded."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str | None
    headers: dict[str, str | None]
    value: Any
    undecodable: str | None = None

    @property
    def time(self) -> str | None:
        """The timestamp as RFC 3339."""
        return utc(self.timestamp) if self.timestamp > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """The record as data."""
        data = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "timestamp": self.timestamp,
            "time": self.time,
            "key": self.key,
            "headers": self.headers,
            "value": self.value,
        }
        return data if self.undecodable is None else {**data, "undecodable": self.undecodable}


def tail(
    cluster: Cluster,
    registry: RegistryClient,
    topic: str,
    *,
    count: int,
    follow: bool,
    holds: RecordFilter | None = None,
) -> Iterator[TopicRecord]:
    """The last `count` records for which `holds` is true, oldest first, and with `follow` those that arrive, without an end.

    Raises `ConfigurationError` for an unknown topic.
    """
    require_topic(cluster, topic)
    return _records(cluster.kafka, cluster.decoders(registry), topic, count, holds, follow=follow)


def _records(
    kafka: KafkaSettings,
    decoder_of: Callable[[str], Decoder],
    topic: str,
    count: int,
    holds: RecordFilter | None,
    *,
    follow: bool,
) -> Iterator[TopicRecord]:
    reader = kafka.reader(eof=True)
    try:
        ends = end_offsets(kafka, topic)
        last: list[TopicRecord] = []
        if count:
            for partition, end in ends.items():
                last += _last(reader, topic, partition, end, count, decoder_of, holds)
        last.sort(key=lambda record: (record.timestamp, record.partition, record.offset))
        yield from last[-count:] if count else []
        if follow:
            reader.assign([TopicPartition(topic, partition, end) for partition, end in ends.items()])
            for message in _arriving(reader):
                arrived = decoded(message, decoder_of, holds)
                if arrived is not None:
                    yield arrived
    finally:
        reader.close()


def _last(
    reader: Consumer,
    topic: str,
    partition: int,
    end: int,
    count: int,
    decoder_of: Callable[[str], Decoder],
    holds: RecordFilter | None,
) -> list[TopicRecord]:
    """The last records of one partition, read back further and further until there are enough."""
    first = watermarks(reader, topic, partition)[0]
    back = count
    while True:
        begin = max(first, end - back)
        found = [
            record
            for message in _until(reader, topic, partition, begin, end)
            if (record := decoded(message, decoder_of, holds)) is not None
        ]
        if len(found) >= count or begin <= first:
            return found[-count:]
        back *= _READ_BACK


def _until(reader: Consumer, topic: str, partition: int, begin: int, end: int) -> Iterator[Message]:
    if begin >= end:
        return
    reader.assign([TopicPartition(topic, partition, begin)])
    while True:
        message = reader.poll(10)
        if message is None:
            return  # an open transaction holds the rest back
        error = message.error()
        if error is None:
            if offset_of(message) >= end:
                return
            yield message
            if offset_of(message) == end - 1:
                return
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
            return
        elif not passes(error, member=False):
            raise translate(KafkaException(error), f"{topic}[{partition}] can't be read")


def _arriving(reader: Consumer) -> Iterator[Message]:
    while True:
        message = reader.poll(0.5)
        if message is not None:
            yield from records_of([message], "no more records can be read")


def decoded(
    message: Message, decoder_of: Callable[[str], Decoder], holds: RecordFilter | None = None
) -> TopicRecord | None:
    """A record; None where the filter does not let it pass. What the filter can't be evaluated on does not pass."""
    topic, value, key = message.topic() or "", message.value(), message.key()
    partition, offset = message.partition() or 0, offset_of(message)
    timestamp, headers = message.timestamp()[1], headers_of(message)
    datum, error = decoded_value(value, decoder_of(written_topic(topic, headers)))
    if holds is not None:
        event = Event(
            datum,
            raw=value,
            raw_key=key,
            headers=headers,
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp=timestamp,
        )
        if not holds(datum, event):
            return None
    shown = {name: text_of(content) for name, content in headers}
    return TopicRecord(topic, partition, offset, timestamp, text_of(key), shown, to_jsonable(datum), error)
