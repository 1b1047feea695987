"""What pipelines would read first if they were applied now: records between where each begins and the ends of its inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin._listoffsets import OffsetSpec

from trunkline.bus.accounting.backlog import Backlogs
from trunkline.bus.accounting.commits import Commits, all_committed
from trunkline.bus.accounting.inputs import inputs_of
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, answered, offset_of_each, translate
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_identities
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.reported import reported_offsets
from trunkline.core.manifests import Pipeline, Sink, Stream

TIMEOUT = 15.0


class Begins(StrEnum):
    """Where a pipeline begins in a topic."""

    EARLIEST = "earliest"
    LATEST = "latest"
    TIME = "time"
    COMMITTED = "committed"
    """Where it stood when it was deleted."""
    STOPS = "stops"
    """Nowhere: it stood in a topic that was made anew since, or its commits have expired. A person must choose."""


@dataclass(frozen=True, slots=True)
class FirstRead:
    """What a pipeline would read of one topic: `records`, about so many where they are not `exact`. `since` is the time it begins at."""

    pipeline: str
    topic: str
    begins: Begins
    records: int = 0
    exact: bool = True
    since: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """What it would read as data."""
        return {name: getattr(self, name) for name in self.__slots__}


def first_reads(
    settings: KafkaSettings, names: Names, pipelines: Iterable[Pipeline], reports: Collection[Report]
) -> list[FirstRead]:
    """What these streams and sinks would read, by topic; of sources nothing is known. Raises our error for Kafka's.

    Inputs that do not exist yet are left out. Reads a few seconds at the most: much is estimated.
    """
    readers = {one.metadata.name: one for one in pipelines if isinstance(one, (Stream, Sink))}
    if not readers:
        return []
    inputs = inputs_of(settings, names, {name: one.spec.from_ for name, one in readers.items()}, TIMEOUT)
    places = {place for one in inputs.values() for place in one.partitions}
    commits = all_committed(settings, names, _known_groups(settings, names, readers))
    firsts, _ = offset_of_each(settings, places, EARLIEST, timeout=TIMEOUT)
    ends, _ = offset_of_each(settings, places, LATEST, timeout=TIMEOUT)
    ids = {topic: one.id for topic, one in topic_identities(settings, {topic for topic, _ in places}).items()}
    reported = reported_offsets(reports)
    times = _times(settings, readers.values(), inputs_of_each={name: one.partitions for name, one in inputs.items()})
    begun: dict[tuple[str, str], list[tuple[Begins, Partition, int]]] = {}
    for name, reader in readers.items():
        own = commits.get(name, {})
        for place in inputs[name].partitions:
            if place not in ends:
                continue
            begins = _begins(reader, place, own, ids, known=place in reported.get(name, {}))
            if place[0] == names.retry(name) and place not in own:
                begins = Begins.EARLIEST
            offset = {
                Begins.COMMITTED: own[place][0] if place in own else ends[place],
                Begins.EARLIEST: firsts.get(place, 0),
                Begins.TIME: times.get((reader.spec.start, place), ends[place]),
            }.get(begins, ends[place])
            begun.setdefault((name, place[0]), []).append((begins, place, max(offset, firsts.get(place, 0))))
    return _counted(settings, names, readers, begun, ends)


def _begins(
    reader: Stream | Sink, place: Partition, commits: Commits, ids: Mapping[str, str], *, known: bool
) -> Begins:
    if place in commits:
        topic_id = commits[place][1].topic_id
        return Begins.COMMITTED if topic_id in {"", ids.get(place[0])} else Begins.STOPS
    if known:
        return Begins.STOPS
    return Begins.TIME if isinstance(reader.spec.start, datetime) else Begins(str(reader.spec.start))


def _known_groups(settings: KafkaSettings, names: Names, readers: Iterable[str]) -> list[str]:
    """Those that Kafka has a group of: of a thousand new pipelines none is asked for one by one."""
    admin = settings.admin()
    try:
        listed = answered(admin.list_consumer_groups(request_timeout=TIMEOUT), TIMEOUT)
    except KafkaException as error:
        raise translate(error, "the consumer groups can't be listed") from error
    there = {one.group_id for one in listed.valid}
    return [name for name in readers if names.group(name) in there]


def _times(
    settings: KafkaSettings, readers: Iterable[Stream | Sink], inputs_of_each: Mapping[str, Collection[Partition]]
) -> dict[tuple[object, Partition], int]:
    """The offsets that times mean in the partitions of those that begin at one."""
    wanted: dict[datetime, set[Partition]] = {}
    for reader in readers:
        if isinstance(reader.spec.start, datetime):
            wanted.setdefault(reader.spec.start, set()).update(inputs_of_each[reader.metadata.name])
    found: dict[tuple[object, Partition], int] = {}
    for moment, places in wanted.items():
        spec = OffsetSpec.for_timestamp(int(moment.timestamp() * 1000))
        offsets, _ = offset_of_each(settings, places, spec, timeout=TIMEOUT)
        found.update({(moment, place): offset for place, offset in offsets.items() if offset >= 0})
    return found


def _counted(
    settings: KafkaSettings,
    names: Names,
    readers: Mapping[str, Stream | Sink],
    begun: Mapping[tuple[str, str], list[tuple[Begins, Partition, int]]],
    ends: Mapping[Partition, int],
) -> list[FirstRead]:
    wanted = {
        (*place, offset): ends[place] for parts in begun.values() for _, place, offset in parts if offset < ends[place]
    }
    known = Backlogs(settings).look(wanted)
    found = []
    for (name, topic), parts in sorted(begun.items()):
        records, exact = 0, True
        for _, place, offset in parts:
            backlog = known.get((*place, offset))
            if backlog is not None:
                complete = backlog.complete(ends[place])
                records += backlog.count if complete else backlog.estimate(ends[place], None)
                exact = exact and complete
        words = {begins for begins, _, _ in parts}
        begins = Begins.STOPS if Begins.STOPS in words else parts[0][0]
        if topic == names.retry(name) and not records:
            continue
        start = readers[name].spec.start
        since = start.isoformat() if begins is Begins.TIME and isinstance(start, datetime) else None
        found.append(FirstRead(name, topic, begins, records, exact, since))
    return found
