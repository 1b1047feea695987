"""Lag: how far a pipeline is behind, in records and in seconds. The one place from which metric, command line and status have it.

Lag in records is how many committed records lie between the group's commit and the last stable offset; in seconds it is now minus
the timestamp of the first of them; both are 0 where there is none. What can't be known has a name (`Unknown`) and no number.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from trunkline.bus.intake import Partition


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
    # I34: what is not known of lag is no 0: a sum of nothing but what is known to be 0 says nothing of the rest.
    return PipelineLag(
        pipeline,
        len(lags),
        records if records or len(counts) == len(lags) > 0 else None,
        all(one.exact for one in lags),
        seconds if seconds or len(ages) == len(lags) > 0 else None,
        sum(one.lost for one in lags),
        unknown,
    )
