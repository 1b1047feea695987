"""Lag: how far a pipeline is behind, in records and in seconds. The one place from which metric, command line and status have it.

Lag in records is how many committed records lie between the group's commit and the last stable offset; in seconds it is now minus
the timestamp of the first of them; both are 0 where there is none. What can't be known has a name (`Unknown`) and no number.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from confluent_kafka import KafkaError

from trunkline.bus.accounting.backlog import READ_SECONDS, Backlog, Backlogs, Behind
from trunkline.bus.accounting.commits import Commits
from trunkline.bus.accounting.inputs import Inputs, inputs_of
from trunkline.bus.accounting.opentransactions import OpenTransactions
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, offset_of_each
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


class Unknown(StrEnum):
    """Why a lag is not known, or not wholly."""

    BROKER_AWAY = "broker_away"
    NOT_COMMITTED = "not_committed"
    COMMIT_GONE = "commit_gone"
    TOPIC_GONE = "topic_gone"
    TOPIC_REPLACED = "topic_replaced"
    DENIED = "denied"
    NOT_MEASURED = "not_measured"
    NO_TIMESTAMP = "no_timestamp"
    OPEN_TRANSACTION = "open_transaction"


MEANINGS: Mapping[Unknown, str] = {
    Unknown.BROKER_AWAY: "Kafka does not answer",
    Unknown.NOT_COMMITTED: "nothing is committed yet",
    Unknown.COMMIT_GONE: "the commit is gone",
    Unknown.TOPIC_GONE: "the topic is gone",
    Unknown.TOPIC_REPLACED: "the topic is another one than the one that was read: it was deleted and made anew",
    Unknown.DENIED: "the principal may not ask for it",
    Unknown.NOT_MEASURED: "it was not measured in time",
    Unknown.NO_TIMESTAMP: "the first record that waits has no usable timestamp",
    Unknown.OPEN_TRANSACTION: "a transaction that does not end holds back what was written after it began",
}


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """The lag of one group on one partition. What is not known is None, and `unknown` says why.

    `records` wait, about so many where they are not `exact`; `since` is the timestamp of the first of them, in Unix seconds; `end` is the
    last stable offset. `lost` offsets expired unread. `held` offsets behind the end can't be read before the oldest open transaction has
    ended, which began at `held_since`; they are told only where one hangs. `partition` is None of a topic that is gone.
    """

    pipeline: str
    topic: str
    partition: int | None
    committed: int | None = None
    end: int | None = None
    records: int | None = None
    exact: bool = True
    since: float | None = None
    lost: int = 0
    held: int = 0
    held_since: float | None = None
    unknown: Unknown | None = None

    @property
    def place(self) -> Partition:
        """Topic and partition."""
        return self.topic, -1 if self.partition is None else self.partition

    @property
    def seconds(self) -> float | None:
        """The age of the first record that waits, as of now; 0 where none waits."""
        if self.records == 0:
            return 0.0
        return None if self.since is None else max(0.0, time.time() - self.since)

    def as_dict(self) -> dict[str, Any]:
        """The lag as data."""
        return {**asdict(self), "seconds": self.seconds}


@dataclass(frozen=True, slots=True)
class PipelineLag:
    """The lag of a pipeline, all its partitions together.

    Where some partitions are unknown the numbers are those of the others, as long as there is something to tell: at least so much.
    They are None where nothing else is known than that nothing waits on those.
    """

    pipeline: str
    partitions: int
    records: int | None
    exact: bool
    seconds: float | None
    lost: int
    unknown: tuple[Unknown, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The lag as data."""
        return asdict(self)


def summed(pipeline: str, lags: Collection[PartitionLag]) -> PipelineLag:
    """The lag of the partitions of one pipeline together."""
    unknown = tuple(dict.fromkeys(one.unknown for one in lags if one.unknown is not None))
    if not lags:
        unknown = (Unknown.NOT_COMMITTED,)
    counts = [one.records for one in lags if one.records is not None]
    ages = [one.seconds for one in lags if one.seconds is not None]
    records, seconds = sum(counts), max(ages, default=0.0)
    return PipelineLag(
        pipeline,
        len(lags),
        records if records or len(counts) == len(lags) > 0 else None,
        all(one.exact for one in lags),
        seconds if seconds or len(ages) == len(lags) > 0 else None,
        sum(one.lost for one in lags),
        unknown,
    )


class LagReader:
    """Measures lag, and remembers between measurements what it read. Belongs to one thread.

    Of partitions that are not behind it asks two questions of the cluster, however many there are; of others it reads what little
    waits, or the first record of much.
    """

    def __init__(
        self, settings: KafkaSettings, *, timeout: float = TIMEOUT, read_seconds: float = READ_SECONDS
    ) -> None:
        self._settings = settings
        self._timeout = timeout
        self._admin = settings.admin()  # kept, so that each measurement is given this one
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
        found = self.offsets(committed)
        without = {
            (pipeline, place)
            for pipeline, own in (inputs or {}).items()
            for place in own.partitions - set(committed.get(pipeline, ()))
        }
        reached = {
            (pipeline, place): copy[place] for pipeline, copy in (known or {}).items() for place in copy if copy[place]
        }
        ids = self._topic_ids(committed, {topic for pipeline, (topic, _) in without & set(reached)})
        found = [_of_its_topic(one, committed[one.pipeline][one.place][1].topic_id, ids) for one in found]
        found = self._held(self._behind(found, committed))
        for pipeline, place in sorted(without):
            copy = reached.get((pipeline, place))
            reason = Unknown.NOT_COMMITTED if copy is None else Unknown.COMMIT_GONE
            found.append(_of_its_topic(PartitionLag(pipeline, *place, unknown=reason), list(copy or [""])[-1], ids))
        for pipeline, own in (inputs or {}).items():
            found += [PartitionLag(pipeline, topic, None, unknown=Unknown.TOPIC_GONE) for topic in own.missing]
        return found

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

    def offsets(self, committed: Mapping[str, Commits]) -> list[PartitionLag]:
        """Where each partition ends, and what of it expired unread; where nothing follows the commit, nothing waits."""
        places = sorted({place for commits in committed.values() for place in commits})
        ends, refused = offset_of_each(self._settings, places, LATEST, timeout=self._timeout)
        behind = {
            place
            for commits in committed.values()
            for place, (offset, _) in commits.items()
            if place in ends and offset < ends[place]
        }
        starts, _ = offset_of_each(self._settings, sorted(behind), EARLIEST, timeout=self._timeout)
        found = []
        for pipeline, commits in committed.items():
            for place, (offset, _) in sorted(commits.items()):
                if place not in ends:
                    found.append(PartitionLag(pipeline, *place, offset, unknown=_reason(refused.get(place))))
                    continue
                end, lost = ends[place], max(0, starts.get(place, 0) - offset)
                found.append(PartitionLag(pipeline, *place, offset, end, None if offset < end else 0, lost=lost))
        return found

    def _behind(self, lags: Sequence[PartitionLag], committed: Mapping[str, Commits]) -> list[PartitionLag]:
        """The lags with how many records wait, and since when."""
        ends = {_first(one): one.end or 0 for one in lags if one.records is None and one.unknown is None}
        known = self._backlogs.look(ends)
        return [
            _with_backlog(one, known[_first(one)], committed[one.pipeline][one.place][1])
            if one.records is None and one.unknown is None
            else one
            for one in lags
        ]

    def _held(self, lags: Sequence[PartitionLag]) -> list[PartitionLag]:
        """Where nothing waits: whether a transaction that does not end holds something back, or the commit can't be true."""
        idle = {one.place: one.end or 0 for one in lags if one.records == 0}
        last, _ = offset_of_each(self._settings, sorted(idle), LATEST, committed_only=False, timeout=self._timeout)
        since = self._transactions.look(
            {(*place, end): last[place] for place, end in idle.items() if last.get(place, 0) > end}
        )
        return [self._judged(one, last.get(one.place), since) if one.records == 0 else one for one in lags]

    @staticmethod
    def _judged(lag: PartitionLag, last: int | None, since: Mapping[Behind, float]) -> PartitionLag:
        committed, end = lag.committed or 0, lag.end or 0
        if last is not None and committed > last:
            return replace(lag, records=None, unknown=Unknown.TOPIC_REPLACED)
        begun = since.get((*lag.place, end))
        if last is None or begun is None or time.time() - begun < HANGING_SECONDS:
            return lag
        return replace(lag, held=last - end, held_since=begun, unknown=Unknown.OPEN_TRANSACTION)


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


def _of_its_topic(lag: PartitionLag, topic_id: str, ids: Mapping[str, str]) -> PartitionLag:
    """The lag where the topic is the one of this id, as far as either is known; else it is unknown."""
    now = ids.get(lag.topic, topic_id)
    if not topic_id or topic_id == now:
        return lag
    return replace(lag, records=None, lost=0, unknown=Unknown.TOPIC_REPLACED)


def _first(lag: PartitionLag) -> Behind:
    """Where the first record that waits may be: after those that expired unread."""
    return (*lag.place, (lag.committed or 0) + lag.lost)


def _with_backlog(lag: PartitionLag, backlog: Backlog, ledger: Ledger) -> PartitionLag:
    end = lag.end or 0
    if backlog.complete(end):
        lag = replace(lag, records=backlog.count)
    else:
        read = (lag.committed or 0) - ledger.first
        density = min(1.0, ledger.read / read) if read >= LEAST_READ else None
        lag = replace(lag, records=backlog.estimate(end, density), exact=False)
    if not lag.records:
        return lag
    if backlog.since is None:
        return replace(lag, unknown=Unknown.NOT_MEASURED)
    if backlog.since <= 0 or backlog.since > time.time() + AHEAD_SECONDS:
        return replace(lag, unknown=Unknown.NO_TIMESTAMP)
    return replace(lag, since=backlog.since)


def _reason(error: KafkaError | None) -> Unknown:
    """Why the end of a partition is not known."""
    if error is not None and error.code() in _ABSENT:
        return Unknown.TOPIC_GONE
    return Unknown.DENIED if error is not None and error.code() in _DENIED else Unknown.BROKER_AWAY
