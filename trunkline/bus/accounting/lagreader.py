"""Measuring lag: of partitions that are not behind by two questions to the cluster, of others by reading what little waits.

The one way to it: metric, command line and status all measure here.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError

from trunkline.bus.accounting.backlog import READ_SECONDS, Backlog, Backlogs, Behind
from trunkline.bus.accounting.commits import Commits
from trunkline.bus.accounting.inputs import Inputs, inputs_of
from trunkline.bus.accounting.lag import PartitionLag, Unknown
from trunkline.bus.accounting.opentransactions import OpenTransactions
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, offset_of_each
from trunkline.bus.kafka.cluster import Asked, offsets_of_each
from trunkline.bus.knownoffsets import Copy
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_identities
from trunkline.core.errors import TrunklineError

TIMEOUT = 15.0
LEAST_READ = 100
"""So many offsets must be behind a commit before their records an offset say something of those to come."""
HANGING_SECONDS = 60.0
"""A transaction that is open for longer holds its readers up: it is the time-out that producers have by default."""
AHEAD_SECONDS = 2.0
"""How far the clock of a record's writer may be ahead of ours before its timestamp says nothing about an age."""
_ABSENT = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001
}


@dataclass(slots=True)
class _Told:
    """What Kafka told of the partitions: their last stable offsets, or why not; where they begin, and where open transactions end, of
    those for which it matters; and the ids of their topics."""

    ends: dict[Partition, int]
    refused: dict[Partition, KafkaError]
    starts: dict[Partition, int]
    last: dict[Partition, int]
    ids: dict[str, str] = field(default_factory=dict)

    def lost(self, place: Partition, offset: int) -> int:
        """How many offsets expired behind a commit."""
        return max(0, self.starts.get(place, 0) - offset)

    def is_other(self, place: Partition, topic_id: str) -> bool:
        """Whether the topic is another one than that with the id, as far as both are known."""
        return bool(topic_id) and self.ids.get(place[0], topic_id) != topic_id


class LagReader:
    """Measures lag, and remembers between measurements what it read. Belongs to one thread."""

    def __init__(
        self, settings: KafkaSettings, *, timeout: float = TIMEOUT, read_seconds: float = READ_SECONDS
    ) -> None:
        self._settings = settings
        self._timeout = timeout
        self._admin = settings.admin()  # kept, so that each measurement is given this one
        self._late: set[Partition] = set()
        """Where something followed the commit at the last measurement."""
        self._backlogs = Backlogs(settings, read_seconds)
        self._transactions = OpenTransactions(settings, read_seconds)

    def measure(
        self,
        committed: Mapping[str, Commits],
        inputs: Mapping[str, Inputs] | None = None,
        known: Mapping[str, Copy] | None = None,
    ) -> list[PartitionLag]:
        """The lag behind what these pipelines have committed; of their other `inputs` it is not known.

        `known` is the second copy of their offsets, which tells a commit that is gone from one that never was. Raises nothing of Kafka's:
        what Kafka does not say is unknown.
        """
        told = self._ask(committed)
        without = {name: own.partitions - set(committed.get(name, ())) for name, own in (inputs or {}).items()}
        copies = {name: (known or {}).get(name, {}) for name in without}
        told.ids = self._topic_ids(
            committed, {place[0] for name in without for place in without[name] & set(copies[name])}
        )
        waiting = self._backlogs.look(dict(_behind(committed, told)))
        since = self._held(committed, told, waiting)
        found = [
            _lag(pipeline, place, commit, told, waiting, since)
            for pipeline, commits in committed.items()
            for place, commit in sorted(commits.items())
        ]
        for pipeline, places in without.items():
            found += [_without_commit(pipeline, place, copies[pipeline].get(place), told) for place in sorted(places)]
        for pipeline, own in (inputs or {}).items():
            found += [PartitionLag(pipeline, topic, None, unknown=Unknown.TOPIC_GONE) for topic in own.missing]
        return found

    def offsets(self, committed: Mapping[str, Commits]) -> dict[tuple[str, Partition], int]:
        """How many offsets follow each commit whose partition Kafka tells the end of: all that lag can be, without reading anything."""
        ends = self._ask(committed).ends
        return {
            (pipeline, place): max(0, ends[place] - offset)
            for pipeline, commits in committed.items()
            for place, (offset, _) in commits.items()
            if place in ends
        }

    def _ask(self, committed: Mapping[str, Commits]) -> _Told:
        places = sorted({place for commits in committed.values() for place in commits})
        # Nearly all are as they were: behind, and then it matters where they begin, or not, and then what lies behind their ends.
        (ends, refused), (starts, _), (last, _) = offsets_of_each(
            self._settings,
            [
                Asked(LATEST, places),
                Asked(EARLIEST, [place for place in places if place in self._late]),
                Asked(LATEST, [place for place in places if place not in self._late], committed_only=False),
            ],
            timeout=self._timeout,
        )
        self._late = {
            place
            for commits in committed.values()
            for place, (offset, _) in commits.items()
            if offset < ends.get(place, 0)
        }
        if more := self._late - starts.keys():
            starts |= offset_of_each(self._settings, more, EARLIEST, timeout=self._timeout)[0]
        return _Told(ends, refused, starts, last)

    def _topic_ids(self, committed: Mapping[str, Commits], others: Collection[str]) -> dict[str, str]:
        """The ids of the topics that commits tell the ids of, and of others; empty where Kafka does not say."""
        told = {
            topic for commits in committed.values() for (topic, _), (_, ledger) in commits.items() if ledger.topic_id
        }
        try:
            found = topic_identities(self._settings, told | set(others), admin=self._admin, timeout=self._timeout)
        except TrunklineError:
            return {}
        return {topic: identity.id for topic, identity in found.items()}

    def _held(
        self, committed: Mapping[str, Commits], told: _Told, waiting: Mapping[Behind, Backlog]
    ) -> Mapping[Behind, float]:
        """Where nothing waits: since when transactions are open there that hold back what lies behind the last stable offset."""
        late = {
            behind[:2]
            for behind, backlog in waiting.items()
            if backlog.count or not backlog.complete(told.ends[behind[:2]])
        }
        idle = {
            place for commits in committed.values() for place in commits if place in told.ends and place not in late
        }
        if more := idle - told.last.keys():
            told.last |= offset_of_each(self._settings, more, LATEST, committed_only=False, timeout=self._timeout)[0]
        stable = {place: told.ends[place] for place in idle if told.last.get(place, 0) > told.ends[place]}
        return self._transactions.look({(*place, end): told.last[place] for place, end in stable.items()})


def lags_behind(
    settings: KafkaSettings,
    names: Names,
    committed: Mapping[str, Commits],
    reads: Mapping[str, Iterable[str]],
    known: Mapping[str, Copy],
) -> dict[str, list[PartitionLag]]:
    """One measurement, by pipeline. `reads` says of some what they read, so that what they never committed is named too; `known` is as
    in `LagReader.measure`.

    Raises our error for Kafka's where it does not even say which topics there are.
    """
    inputs = inputs_of(settings, names, {name: topics for name, topics in reads.items() if name in committed})
    found: dict[str, list[PartitionLag]] = {name: [] for name in committed}
    for one in LagReader(settings).measure(committed, inputs, known):
        found[one.pipeline].append(one)
    return found


def _behind(committed: Mapping[str, Commits], told: _Told) -> Iterator[tuple[Behind, int]]:
    """Where the first record that waits may be, after those that expired unread, and the end of its partition."""
    for commits in committed.values():
        for place, (offset, ledger) in commits.items():
            end = told.ends.get(place, 0)
            if offset < end and not told.is_other(place, ledger.topic_id):
                yield (*place, offset + told.lost(place, offset)), end


def _lag(
    pipeline: str,
    place: Partition,
    commit: tuple[int, Ledger],
    told: _Told,
    waiting: Mapping[Behind, Backlog],
    since: Mapping[Behind, float],
) -> PartitionLag:
    (topic, number), (offset, ledger) = place, commit
    if place not in told.ends:
        return PartitionLag(pipeline, topic, number, offset, unknown=_reason(told.refused.get(place)))
    end, last = told.ends[place], told.last.get(place)
    if told.is_other(place, ledger.topic_id) or (offset >= end and last is not None and offset > last):
        return PartitionLag(pipeline, topic, number, offset, end, unknown=Unknown.TOPIC_REPLACED)
    if offset < end:
        lost = told.lost(place, offset)
        backlog = waiting[(*place, offset + lost)]
        if backlog.count or not backlog.complete(end):
            return _late(pipeline, place, commit, end, lost, backlog)
    else:
        lost = 0
    begun = since.get((*place, end))
    if begun is None or last is None or time.time() - begun < HANGING_SECONDS:
        return PartitionLag(pipeline, topic, number, offset, end, 0, lost=lost)
    return PartitionLag(
        pipeline,
        topic,
        number,
        offset,
        end,
        0,
        lost=lost,
        held=last - end,
        held_since=begun,
        unknown=Unknown.OPEN_TRANSACTION,
    )


def _late(
    pipeline: str, place: Partition, commit: tuple[int, Ledger], end: int, lost: int, backlog: Backlog
) -> PartitionLag:
    """Where records wait, or may wait."""
    offset, ledger = commit
    exact = backlog.complete(end)
    if exact:
        records = backlog.count
    else:
        read = offset - ledger.first
        records = backlog.estimate(end, min(1.0, ledger.read / read) if read >= LEAST_READ else None)
    since, unknown = backlog.since, None
    if since is None:
        unknown = Unknown.NOT_MEASURED
    elif not 0 < since <= time.time() + AHEAD_SECONDS:
        since, unknown = None, Unknown.NO_TIMESTAMP
    return PartitionLag(pipeline, *place, offset, end, records, exact, since, lost, unknown=unknown)


def _without_commit(pipeline: str, place: Partition, copy: Mapping[str, object] | None, told: _Told) -> PartitionLag:
    """Of a partition that the pipeline reads and that has no commit of it."""
    reason = Unknown.COMMIT_GONE if copy else Unknown.NOT_COMMITTED
    if copy and told.is_other(place, list(copy)[-1]):
        reason = Unknown.TOPIC_REPLACED
    return PartitionLag(pipeline, *place, unknown=reason)


def _reason(error: KafkaError | None) -> Unknown:
    """Why the end of a partition is not known."""
    if error is not None and error.code() in _ABSENT:
        return Unknown.TOPIC_GONE
    return Unknown.DENIED if error is not None and error.code() in _DENIED else Unknown.BROKER_AWAY
