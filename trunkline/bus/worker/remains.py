"""What a pipeline that is deleted leaves on the cluster: counted before it goes, and forgotten where that is asked for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from confluent_kafka import KafkaException

from trunkline.bus.accounting.audit import Entry, announced
from trunkline.bus.accounting.backlog import Backlogs
from trunkline.bus.accounting.commits import Commits, all_committed
from trunkline.bus.accounting.reconcile import parked_now
from trunkline.bus.commands import Effect, Latest, Write, carry_out
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, answered, offset_of_each, translate
from trunkline.bus.names import Names
from trunkline.bus.redrive.jobs import JobLog
from trunkline.bus.source.positions import position_key, read_positions
from trunkline.bus.topics import topic_identities
from trunkline.bus.worker.board import Board, Report, record_of
from trunkline.core.errors import ConfigurationError

TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Remains:
    """What is left of one pipeline: records of its topics, about so many where they are not `exact`, and how far it had come.

    `dead` are all its dead letters, of which `redriven` were sent again and `dropped` dropped; `retry` were sent again and not read yet.
    `partitions` have a committed offset, `splits` a position.
    """

    pipeline: str
    topics: tuple[str, ...] = ()
    dead: int = 0
    redriven: int = 0
    dropped: int = 0
    parked: int = 0
    retry: int = 0
    exact: bool = True
    partitions: int = 0
    splits: int = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is left but topics without records."""
        return not (self.dead or self.parked or self.retry or self.partitions or self.splits)

    def as_dict(self) -> dict[str, Any]:
        """The remains as data."""
        return asdict(self)


def remains_of(settings: KafkaSettings, names: Names, pipelines: Mapping[str, str]) -> list[Remains]:
    """What these pipelines, kinds by name, leave. Raises our error for Kafka's."""
    if not pipelines:
        return []
    own = {name: (names.dead_letters(name), names.retry(name), names.parked(name)) for name in pipelines}
    there = topic_identities(settings, {topic for topics in own.values() for topic in topics})
    commits = all_committed(settings, names, [name for name, kind in pipelines.items() if kind != "Source"])
    positions = read_positions(settings, names) if "Source" in pipelines.values() else {}
    jobs = JobLog.read(settings, names, patient=False)
    counted = _counted(
        settings,
        {
            (topic, number): {} if topic == dead else commits.get(name, {})
            for name, (dead, retry, _) in own.items()
            for topic in (dead, retry)
            if topic in there
            for number in range(there[topic].partitions)
        },
    )
    found = []
    for name, (dead, retry, parked) in own.items():
        letters, exact_letters = _sum(counted, dead)
        unread, exact_unread = _sum(counted, retry)
        found.append(
            Remains(
                name,
                tuple(topic for topic in own[name] if topic in there),
                dead=letters,
                redriven=min(letters, jobs.redriven.get(name, 0)),
                dropped=min(letters, jobs.dropped.get(name, 0)),
                parked=parked_now(settings, parked) if parked in there else 0,
                retry=unread,
                exact=exact_letters and exact_unread,
                partitions=len(commits.get(name, {})),
                splits=sum(1 for pipeline, _ in positions if pipeline == name),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Count:
    """A number of records, about so many where it is not `exact`."""

    records: int = 0
    exact: bool = True


def records_in(settings: KafkaSettings, topics: Iterable[str]) -> dict[str, Count]:
    """How many records topics have; those that do not exist are left out. Raises our error for Kafka's."""
    there = topic_identities(settings, topics)
    places: dict[Partition, Commits] = {
        (topic, number): {} for topic, one in there.items() for number in range(one.partitions)
    }
    counted = _counted(settings, places)
    return {topic: Count(*_sum(counted, topic)) for topic in there}


def mark_removed(settings: KafkaSettings, names: Names, pipelines: Collection[str]) -> None:
    """Notes in the reports of workers that are gone that these pipelines are deleted: they end nowhere else.

    Workers that live say so themselves. The offsets in the reports stay, should the pipelines come back.
    """
    board = Board(settings, names)
    for report in _removed(board, pipelines):
        board.report(report)
    board.flush()


def remove_ended(settings: KafkaSettings, names: Names, pipelines: Collection[str], *, by: str) -> None:
    """As `mark_removed`, of pipelines that are not applied any more: that is all their deletion is, and so it is in the audit trail.

    Raises our error for Kafka's.
    """
    records = [Write(names.status, *record_of(report)) for report in _removed(Board(settings, names), pipelines)]
    entries = [Entry(time.time(), by, "pipeline.remove", name) for name in sorted(pipelines)]

    def decide(_latest: Latest) -> Effect[None]:
        return Effect(None, records, entries)

    carry_out(settings, names, names.control, decide, by=by, what="what is deleted can't be noted")


def _removed(board: Board, pipelines: Collection[str]) -> list[Report]:
    reports = [one for one in board.reports() if one.pipeline in pipelines and not (one.lives or one.removed)]
    return [replace(one, removed=True) for one in reports]


def forget(settings: KafkaSettings, names: Names, pipeline: str, *, by: str) -> None:
    """Forgets how far a pipeline had come, and what was said of it: one of its name that is applied later begins as its manifest says.

    Its topics stay. Raises `ConfigurationError` (`offsets.in_use`) while a worker runs it, and our error for Kafka's.
    """
    # Where this ends half-way, one of its name stops and says that its commits are gone.
    with announced(settings, names, Entry(time.time(), by, "pipeline.forget", pipeline)):
        _delete_group(settings, names, pipeline)
        splits = [split for name, split in read_positions(settings, names) if name == pipeline]

        def decide(latest: Latest) -> Effect[None]:
            keys = [key for key, _ in latest.items() if key == pipeline or key.startswith(f"{pipeline}/")]
            records = [Write(names.status, key.encode(), None) for key in keys]
            records += [Write(names.positions, position_key(pipeline, split), None) for split in splits]
            return Effect(None, records)

        carry_out(settings, names, names.status, decide, by=by, what=f"{pipeline} can't be forgotten")


def _delete_group(settings: KafkaSettings, names: Names, pipeline: str) -> None:
    admin, group = settings.admin(), names.group(pipeline)
    try:
        answered(admin.delete_consumer_groups([group], request_timeout=TIMEOUT)[group], TIMEOUT)
    except KafkaException as error:
        name = error.args[0].name()
        if name == "GROUP_ID_NOT_FOUND":
            return
        if name == "NON_EMPTY_GROUP":
            raise ConfigurationError(
                f"a worker still runs {pipeline}",
                hint=f"wait until `trunkline status {pipeline}` no longer shows it, and ask again",
                code="offsets.in_use",
            ) from error
        raise translate(error, f"the offsets of {pipeline} can't be forgotten") from error


def _counted(settings: KafkaSettings, places: Mapping[Partition, Commits]) -> dict[Partition, tuple[int, bool]]:
    """How many records each partition has from its commit on, or from its beginning, and whether that is exact."""
    firsts, _ = offset_of_each(settings, places, EARLIEST, timeout=TIMEOUT)
    ends, _ = offset_of_each(settings, places, LATEST, timeout=TIMEOUT)
    begins = {
        place: max(firsts.get(place, 0), commits[place][0] if place in commits else 0)
        for place, commits in places.items()
        if place in ends
    }
    known = Backlogs(settings).look(
        {(*place, begin): ends[place] for place, begin in begins.items() if begin < ends[place]}
    )
    found = {}
    for place, begin in begins.items():
        backlog = known.get((*place, begin))
        if backlog is not None:
            complete = backlog.complete(ends[place])
            found[place] = (backlog.count if complete else backlog.estimate(ends[place], None), complete)
    return found


def _sum(counted: Mapping[Partition, tuple[int, bool]], topic: str) -> tuple[int, bool]:
    own = [one for (name, _), one in counted.items() if name == topic]
    return sum(records for records, _ in own), all(exact for _, exact in own)
