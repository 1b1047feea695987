"""Reconcile: does the ledger close? The committed range is read again, counted and checked against what the commits say.

Where it does not close, the trace names the records: those that no hop of the pipeline settled, and those that it settled and
that the topic does not have. All of it in memory that does not grow with the number of records.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, Message

from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.settledoffsets import Named, name_offsets
from trunkline.bus.kafka import KafkaSettings, offset_of, read_all, read_range, watermarks
from trunkline.bus.kafka.cluster import Place
from trunkline.bus.knownoffsets import Copy, Reached
from trunkline.bus.ledger import OUTCOMES, Ledger
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicState, topic_states

CHUNK = 10_000
OnProgress = Callable[[str, int, int, int], None]
"""Told of topic, partition, how many offsets of the range are behind, and how many there are."""


@dataclass(frozen=True, slots=True)
class PartitionCheck:
    """One input partition. `present` counts the committed records that are in the topic below the committed offset.

    `unverifiable` says that the range can't be read whole any more (`expired` offsets at its beginning are gone, the topic is compacted,
    or another one of the name), so at most the counts were compared. Where the ledger does not close, `missing` and `extra` are the
    offsets that the trace could name: records without an outcome, and outcomes without a record. `unnamed` counts what is older than
    the trace.
    """

    topic: str
    partition: int
    first: int
    committed: int
    read: int
    present: int
    outcomes: dict[str, int]
    unverifiable: bool
    closes: bool
    problem: str | None = None
    expired: int = 0
    missing: tuple[int, ...] = ()
    extra: tuple[int, ...] = ()
    unnamed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The check as data."""
        return {name: getattr(self, name) for name in self.__slots__}


def reconcile(
    settings: KafkaSettings,
    names: Names,
    pipeline: str,
    *,
    known: Copy | None = None,
    on_progress: OnProgress | None = None,
) -> list[PartitionCheck]:
    """Checks every partition that a pipeline has committed, and those `known` to have had a commit. Raises our error for Kafka's."""
    commits = committed(settings, names, pipeline)
    gone = {place: reached for place, reached in (known or {}).items() if place not in commits}
    topics = topic_states(settings, {topic for topic, _ in [*commits, *gone]})
    reader = settings.reader(eof=True)
    try:
        return [
            *(_without_commit(place, reached, topics.get(place[0])) for place, reached in sorted(gone.items())),
            *(
                _of_another_topic(place, end, ledger, topics.get(place[0]))
                or _check(
                    settings, names, pipeline, reader, place, end, ledger, topics[place[0]].compacted, on_progress
                )
                for place, (end, ledger) in sorted(commits.items())
            ),
        ]
    finally:
        reader.close()


def _of_another_topic(place: Place, end: int, ledger: Ledger, topic: TopicState | None) -> PartitionCheck | None:
    """The check of a commit whose topic is gone, or is another one of its name now; None where it is the one that was read."""
    if topic is not None and ledger.topic_id in {"", topic.id}:
        return None
    outcomes: dict[str, int] = {outcome: getattr(ledger, outcome) for outcome in OUTCOMES}
    problem = _difference(ledger.topic_id, topic)
    return PartitionCheck(*place, ledger.first, end, ledger.read, 0, outcomes, True, False, problem)


def _without_commit(place: Place, known: Mapping[str, Reached], topic: TopicState | None) -> PartitionCheck:
    topic_id, reached = list(known.items())[-1]
    if topic is None or topic_id not in {"", topic.id}:
        problem = _difference(topic_id, topic)
    else:
        problem = f"its commit is gone; it was {reached.offset}"
    return PartitionCheck(*place, 0, reached.offset, 0, 0, {}, True, False, problem)


def _difference(topic_id: str, topic: TopicState | None) -> str:
    if topic is None:
        return "the topic does not exist any more"
    return f"the topic was made anew: what was read had the id {topic_id}, this one's is {topic.id}"


def parked_now(settings: KafkaSettings, topic: str) -> int:
    """How many records wait in a topic of parked records, which is compacted: one for each, and a tombstone when it was settled."""
    parked: set[bytes] = set()
    for message in read_all(settings, topic):
        key = message.key() or b""
        if message.value() is None:
            parked.discard(key)
        else:
            parked.add(key)
    return len(parked)


@dataclass(slots=True)
class RangeSum:
    """Count and checksum of offsets, taken one by one and kept in a chunk."""

    count: int = 0
    checksum: int = 0

    def over(self, messages: Iterator[Message]) -> Iterator[int]:
        """Takes the offsets of messages, and gives each."""
        chunk: array[int] = array("q")
        for message in messages:
            chunk.append(offset_of(message))
            if len(chunk) == CHUNK:
                self._add(chunk)
            yield offset_of(message)
        self._add(chunk)

    def _add(self, chunk: array[int]) -> None:
        self.count += len(chunk)
        self.checksum = zlib.crc32(chunk.tobytes(), self.checksum)
        del chunk[:]


def _check(
    settings: KafkaSettings,
    names: Names,
    pipeline: str,
    reader: Consumer,
    place: tuple[str, int],
    end: int,
    ledger: Ledger,
    compacted: bool,
    on_progress: OnProgress | None,
) -> PartitionCheck:
    topic, partition = place
    lowest, highest = watermarks(reader, topic, partition)
    first = max(ledger.first, lowest)
    found = RangeSum()
    # A topic that was made anew under its name may end before the commit.
    for index, offset in enumerate(found.over(read_range(reader, topic, partition, first, min(end, highest)))):
        if on_progress is not None and index % CHUNK == 0:
            on_progress(topic, partition, offset - ledger.first, end - ledger.first)
    expired = max(0, min(lowest, end) - ledger.first)
    unverifiable = expired > 0 or (compacted and found.count < ledger.read)
    problem = _problem(ledger, found, unverifiable)
    named = Named()
    if problem is not None:
        named = name_offsets(settings, names, pipeline, place, first, min(end, highest))
    outcomes: dict[str, int] = {outcome: getattr(ledger, outcome) for outcome in OUTCOMES}
    return PartitionCheck(
        topic,
        partition,
        ledger.first,
        end,
        ledger.read,
        found.count,
        outcomes,
        unverifiable,
        problem is None,
        problem,
        expired,
        named.missing,
        named.extra,
        named.unnamed,
    )


def _problem(ledger: Ledger, found: RangeSum, unverifiable: bool) -> str | None:
    if ledger.open:
        return f"{ledger.open} records were read and have no outcome"
    if unverifiable:
        if found.count > ledger.read:
            return f"the topic still has {found.count} records of the committed range, the ledger accounts for {ledger.read}"
        return None
    if found.count != ledger.read:
        return f"the topic has {found.count} records in the committed range, the ledger accounts for {ledger.read}"
    if found.checksum != ledger.checksum:
        return "the ledger accounts for other offsets than the topic has"
    return None
