"""Reads a history back from where it lies: topics, dead letters, commits, positions. Nothing here asks the engine for its opinion."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from tests.chaos.history import Acknowledged, Committed, DeadLetter, Effect, Filtered, Placed
from trunkline.bus.deadletters import DeadLetter as Letter
from trunkline.bus.kafka import KafkaSettings, end_offsets, offset_of, read_all, translate
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.source.positions import read_positions
from trunkline.core.errors import RetriableError

OFFSETS_TOPIC = "__consumer_offsets"
READ_ATTEMPTS = 4
Naming = Callable[[Message], str]
"""The id of the event in a record."""


def placed(settings: KafkaSettings, topic: str, name: Naming) -> Iterator[Placed]:
    """Every committed record of a topic."""
    for message in _read(settings, topic):
        yield Placed(name(message), topic, message.partition() or 0, offset_of(message), _moment(message))


def published(settings: KafkaSettings, topic: str, route: str, name: Naming) -> Iterator[Effect]:
    """The committed records of a topic as the effects of the route that wrote them."""
    for message in _read(settings, topic):
        yield Effect(name(message), route, _moment(message))


def passed_on(settings: KafkaSettings, topic: str, route: str, name: Naming) -> Iterator[Placed | Effect]:
    """Every committed record of a topic, both as `placed` and as `published` by the route that wrote them; read once."""
    for message in _read(settings, topic):
        identity, moment = name(message), _moment(message)
        yield Placed(identity, topic, message.partition() or 0, offset_of(message), moment)
        yield Effect(identity, route, moment)


def committed(settings: KafkaSettings, topic: str) -> list[Message]:
    """Every committed record of a topic. A broker that just came back is asked again."""
    return _read(settings, topic)


def dead_letters(
    settings: KafkaSettings, names: Names, pipeline: str, name: Callable[[Letter], str]
) -> Iterator[DeadLetter]:
    """The dead letters of a pipeline; `name` finds the event's id, by its bytes or by `origin`."""
    for message in _read(settings, names.dead_letters(pipeline)):
        letter = Letter.from_message(message)
        yield DeadLetter(
            name(letter),
            pipeline,
            _moment(message),
            letter.value,
            letter.key,
            tuple((header, value or b"") for header, value in letter.original_headers()),
        )


def acknowledged(settings: KafkaSettings, names: Names, source: str, ids: Iterable[str]) -> Iterator[Acknowledged]:
    """What a polled source took responsibility for: as many of `ids`, in their order, as its committed positions count."""
    positions = read_positions(settings, names)
    count = sum(position.read for (pipeline, _), position in positions.items() if pipeline == source)
    for _, one in zip(range(count), ids, strict=False):
        yield Acknowledged(one, source, by="position")


def filtered(route: str, ids: Iterable[str], commits: Iterable[Committed], counted: int) -> Iterator[Filtered]:
    """The events that a route should leave out, where its ledger counts just as many as left out; else none of them."""
    wanted = list(ids)
    if len(wanted) == counted:
        first = min((commit.at for commit in commits if commit.route == route), default=0.0)
        yield from (Filtered(one, route, first) for one in wanted)


def commits(settings: KafkaSettings, names: Names, pipelines: Iterable[str]) -> Iterator[Committed]:
    """Every commit that the groups of these pipelines ever made, in order, from the broker's own log of them."""
    routes = {names.group(pipeline): pipeline for pipeline in pipelines}
    count = len(end_offsets(settings, OFFSETS_TOPIC))
    wanted = sorted({_partition_of(group, count) for group in routes}) if count else []
    for message in _read(settings, OFFSETS_TOPIC, partitions=wanted):
        found = _commit(message, routes)
        if found is not None:
            yield found


class Ledgers:
    """The ledgers that groups have committed, asked for again and again.

    By a consumer of each group that never joins it: the administrator's call for this (`list_consumer_group_offsets`) ends the
    process by SIGSEGV in librdkafka 2.16 while the group's coordinator is not ready, as after a broker's start (librdkafka#5040).
    """

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._names = names
        self._consumers: dict[str, Consumer] = {}

    def of(self, pipeline: str, topic: str) -> dict[int, Ledger]:
        """The ledger of each partition of a topic. Raises our error for Kafka's."""
        consumer = self._consumers.get(pipeline)
        if consumer is None:
            consumer = self._consumers[pipeline] = self._settings.consumer(self._names.group(pipeline))
        try:
            partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
            parts = consumer.committed([TopicPartition(topic, partition) for partition in partitions], timeout=10)
        except KafkaException as error:
            raise translate(error, f"the commits of {pipeline} can't be read") from error
        return {
            part.partition: Ledger.from_metadata(part.metadata, part.offset)[0] for part in parts if part.offset >= 0
        }

    def close(self) -> None:
        """Ends the consumers."""
        for consumer in self._consumers.values():
            consumer.close()

    def read(self, pipeline: str, topic: str) -> int:
        """How many records of a topic the ledgers account for at this moment."""
        return sum(ledger.read for ledger in self.of(pipeline, topic).values())


def _read(settings: KafkaSettings, topic: str, partitions: Iterable[int] | None = None) -> list[Message]:
    """Every committed record of a topic. A broker that just came back is asked again."""
    wanted = None if partitions is None else list(partitions)
    for attempt in range(READ_ATTEMPTS):
        try:
            return list(read_all(settings, topic, partitions=wanted))
        except RetriableError:
            if attempt == READ_ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _moment(message: Message) -> float:
    return message.timestamp()[1] / 1000


def _partition_of(group: str, count: int) -> int:
    """Where a group's commits are: `abs(hash(group)) % count` (Kafka's `GroupCoordinatorService.partitionFor`)."""
    code = 0
    for unit in group.encode("utf-16-be")[1::2]:  # names of groups are ASCII
        code = (31 * code + unit) & 0xFFFFFFFF
    signed = code - 2**32 if code >= 2**31 else code
    return (0 if signed == -(2**31) else abs(signed)) % count


def _commit(message: Message, routes: dict[str, str]) -> Committed | None:
    """A record of the offsets topic (Kafka's `OffsetCommitKey.json` and `OffsetCommitValue.json`), if it is one of these groups."""
    key, value = message.key(), message.value()
    if key is None or value is None:
        return None
    assert isinstance(key, bytes)
    (version,) = struct.unpack_from(">h", key)
    if version not in (0, 1):
        return None  # a group's metadata
    group, at = _string(key, 2)
    route = routes.get(group)
    if route is None:
        return None
    topic, at = _string(key, at)
    (partition,) = struct.unpack_from(">i", key, at)
    version, offset = struct.unpack_from(">hq", value)
    at = 10 + (4 if version >= 3 else 0)  # the leader's epoch
    if version >= 4:
        length = value[at] - 1
        size = 1
        if value[at] & 0x80:
            length, size = ((value[at] & 0x7F) | (value[at + 1] << 7)) - 1, 2
        metadata = value[at + size : at + size + length].decode()
        at += size + length
    else:
        metadata, at = _string(value, at)
    (moment,) = struct.unpack_from(">q", value, at)
    ledger, _ = Ledger.from_metadata(metadata.rstrip("\0"), offset)  # librdkafka writes C's end of text as well
    at_latest = (moment + 1) / 1000  # whole milliseconds, rounded down
    return Committed(
        route, topic, partition, offset, at_latest, first=ledger.first, read=ledger.read, settled=ledger.settled
    )


def _string(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
