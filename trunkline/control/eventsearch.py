"""Finding events in topics: by what is true of them, by key, or by id; within bounds, and with what was looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from confluent_kafka import Message

from trunkline.bus.accounting.trace import first_since
from trunkline.bus.deadletters import written_topic
from trunkline.bus.kafka import end_offsets, headers_of, offset_of, read_range, watermarks
from trunkline.bus.redrive.letters import decoded_value
from trunkline.bus.topics import topic_identities
from trunkline.control.cluster import Cluster
from trunkline.control.timestamps import utc
from trunkline.core.envelope import CE_ID, made_at
from trunkline.core.event import Event
from trunkline.registry.client import RegistryClient

MOST = 200_000
"""So many records are looked at, unless somebody asks for more."""
EVENTS = 10
"""Of so many events the way is shown: the last ones."""
_SKEW_MS = 60_000
"""So much earlier than an id says its record may have been written: the clocks of two machines differ."""

Matches = Callable[[Event], bool]


@dataclass(frozen=True, slots=True)
class FoundEvent:
    """An event that was found, by its place. `at` is when it was written, in Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    at: int
    key: str | None
    id: str
    correlation_id: str

    @property
    def place(self) -> str:
        """As people write it: `orders[0]@17`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def as_dict(self) -> dict[str, Any]:
        """The event as data."""
        return {**asdict(self), "place": self.place, "time": utc(self.at) if self.at > 0 else None}


@dataclass(frozen=True, slots=True)
class Looked:
    """What a search looked at: `records` of `topics`, since a time (Unix milliseconds) where it sought one. `older` counts the offsets
    before what it looked at, `left` those behind it that were too many."""

    topics: tuple[str, ...]
    records: int
    since: int | None
    older: int
    left: int

    def __str__(self) -> str:
        """In words."""
        topics = ", ".join(self.topics) if 0 < len(self.topics) < 4 else f"{len(self.topics)} topics"
        since = f" written since {utc(self.since)}" if self.since is not None else ""
        text = f"looked at {self.records:,} records of {topics}{since}"
        if self.older:
            text += f"; about {self.older:,} older ones were not looked at"
        if self.left:
            text += f"; about {self.left:,} newer ones were not looked at"
        return text

    def as_dict(self) -> dict[str, Any]:
        """The same as data."""
        return {**asdict(self), "since": utc(self.since) if self.since is not None else None}


@dataclass(frozen=True, slots=True)
class Search:
    """What was found, the oldest first, and where it was looked for. `more` counts those that were found besides."""

    events: list[FoundEvent]
    more: int
    looked: Looked


def by_key(key: str) -> Matches:
    """Whether an event has this key."""
    return lambda event: event.key == key


def by_id(identity: str) -> Matches:
    """Whether an event has this id, or is a part of the event that had it."""
    exact, part = identity.encode(), f"{identity}.".encode()

    def matches(event: Event) -> bool:
        found = next((value for name, value in event.headers if name == CE_ID and value), None)
        if found is None:
            return event.envelope.id == identity
        return found == exact or found.startswith(part)

    return matches


def search(
    cluster: Cluster,
    topics: Sequence[str],
    matches: Matches,
    *,
    registry: RegistryClient | None,
    since: int | None = None,
    most: int = MOST,
    events: int = EVENTS,
) -> Search:
    """The last events of topics for which `matches` is true, among the last `most` records, or those since a time (Unix milliseconds).

    Values are decoded where a registry is given; of other events `value` is None. Raises our error for Kafka's.
    """
    looking = _Looking(cluster, topics, matches, registry, max(1, most))
    return looking.newest(since, events)


def search_id(cluster: Cluster, topics: Sequence[str], identity: str, *, most: int = MOST) -> Search:
    """The events with an id.

    One of ours says when it was made: then nothing older is read, and each topic is read until it has given one.
    """
    made = made_at(identity)
    looking = _Looking(cluster, topics, by_id(identity), None, max(1, most))
    return looking.newest(None, EVENTS) if made is None else looking.first_since(made - _SKEW_MS)


def _by_time(event: FoundEvent) -> tuple[int, str, int, int]:
    return event.at, event.topic, event.partition, event.offset


class _Looking:
    """One search, which counts what it looks at."""

    def __init__(
        self, cluster: Cluster, topics: Sequence[str], matches: Matches, registry: RegistryClient | None, most: int
    ) -> None:
        self._kafka = cluster.kafka
        self._topics = tuple(topics)
        self._matches = matches
        self._decoder_of = cluster.decoders(registry) if registry is not None else None
        self._ids = topic_identities(cluster.kafka, topics)
        # Ends of what is committed: what an open transaction holds back is waited for by nobody who only looks.
        ends = {topic: end_offsets(cluster.kafka, topic, committed_only=True) for topic in topics}
        self._places = [(topic, number, end) for topic, found in ends.items() for number, end in sorted(found.items())]
        self._share = max(1, most // max(1, len(self._places)))
        self._records = self._older = self._left = 0

    def newest(self, since: int | None, events: int) -> Search:
        """The last ones among the last records of each partition."""
        reader, found, count = self._kafka.reader(eof=True), list[FoundEvent](), 0
        try:
            for topic, partition, end in self._places:
                oldest = watermarks(reader, topic, partition)[0]
                begin = oldest if since is None else min(end, max(oldest, first_since(reader, topic, partition, since)))
                first = max(begin, end - self._share)
                self._older += first - oldest
                last = deque[FoundEvent](maxlen=events)
                for one in self._matching(read_range(reader, topic, partition, first, end)):
                    count += 1
                    last.append(one)
                found += last
        finally:
            reader.close()
        shown = sorted(found, key=_by_time)[-events:]
        return Search(shown, count - len(shown), self._looked(since))

    def first_since(self, since: int) -> Search:
        """The first one of each topic since a time."""
        reader, found = self._kafka.reader(eof=True), list[FoundEvent]()
        done: set[str] = set()
        try:
            for topic, partition, end in self._places:
                if topic in done:
                    continue
                oldest = watermarks(reader, topic, partition)[0]
                first = min(end, max(oldest, first_since(reader, topic, partition, since)))
                upto = min(end, first + self._share)
                self._left += end - upto
                for one in self._matching(read_range(reader, topic, partition, first, upto)):
                    found.append(one)
                    done.add(topic)
                    break
        finally:
            reader.close()
        return Search(sorted(found, key=_by_time), 0, self._looked(since))

    def _matching(self, messages: Iterable[Message]) -> Iterator[FoundEvent]:
        for message in messages:
            self._records += 1
            event = self._event(message)
            if self._matches(event):
                identity = event.envelope.id
                yield FoundEvent(
                    event.topic,
                    event.partition,
                    event.offset,
                    event.timestamp,
                    event.key,
                    identity,
                    event.correlation_id,
                )

    def _event(self, message: Message) -> Event:
        topic, headers, value = message.topic() or "", headers_of(message), message.value()
        datum = None
        if self._decoder_of is not None:
            datum, _ = decoded_value(value, self._decoder_of(written_topic(topic, headers)))
        identity = self._ids.get(topic)
        return Event(
            datum,
            raw=value,
            raw_key=message.key(),
            headers=headers,
            topic=topic,
            topic_id=identity.id if identity is not None else "",
            partition=message.partition() or 0,
            offset=offset_of(message),
            timestamp=message.timestamp()[1],
        )

    def _looked(self, since: int | None) -> Looked:
        return Looked(self._topics, self._records, since, self._older, self._left)
