"""The lag that a worker tells of, measured when it is asked for: nothing is measured while nobody asks, and nothing old is told.

Of each partition one worker tells: the one that has it. What no worker has, as of a pipeline that is stopped or failed everywhere,
one of those tells that have the pipeline (`Neighbours.speaks_for`). So the sum over workers is the lag, and a worker that dies leaves
a gap only until the others have its partitions or have missed its reports.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from trunkline.bus.accounting.commits import Commits, committed
from trunkline.bus.accounting.inputs import Inputs, inputs_of
from trunkline.bus.accounting.lag import PartitionLag, Unknown, summed
from trunkline.bus.accounting.lagreader import LagReader
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.knownoffsets import Copy
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.neighbours import Neighbours
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import Sample

log = get_logger(__name__)
FRESH_SECONDS = 1.0
"""A measurement that is younger is told again."""
KEPT_SECONDS = 5.0
"""One that is older is not told any more: then the lag is unknown."""
WAIT_SECONDS = 4.0
"""How long whoever asks waits for a measurement: Prometheus gives up after 10 s by default."""
ASK_SECONDS = 2.0
"""How long Kafka may take to answer each question of one."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One pipeline as it stands here: what it reads, what it has and has committed, and whether this worker speaks for the rest,
    of which other workers have some."""

    reads: tuple[str, ...]
    own: Commits
    speaks: bool
    others: frozenset[Partition]
    known: Copy


class LagMetrics:
    """Measures on request, and gives the samples of the last measurement. On the event loop; what blocks runs in a thread."""

    def __init__(
        self,
        settings: KafkaSettings,
        names: Names,
        hosts: Callable[[], Iterable[PipelineHost]],
        neighbours: Neighbours,
    ) -> None:
        self._settings = settings
        self._names = names
        self._hosts = hosts
        self._neighbours = neighbours
        self._reader = LagReader(settings, timeout=ASK_SECONDS, read_seconds=ASK_SECONDS)
        self._lags: Mapping[str, list[PartitionLag]] = {}
        self._measured_at: float | None = None
        self._away_since: float | None = None
        self._under_way: asyncio.Future[Mapping[str, list[PartitionLag]]] | None = None

    async def refresh(self) -> None:
        """Measures, unless that was done just now. What does not end in time is unknown, and goes on for who asks next."""
        if self._age < FRESH_SECONDS and all(host.name in self._lags for host in self._readers()):
            return
        if self._under_way is None:
            loop = asyncio.get_running_loop()
            self._under_way = loop.run_in_executor(None, self._measure, self._watched())
        under_way = self._under_way
        done, _ = await asyncio.wait({under_way}, timeout=WAIT_SECONDS)
        if done and self._under_way is under_way:
            self._under_way = None
            self._take(under_way)

    async def close(self) -> None:
        """Waits for a measurement that is under way: it would ask a broker in vain that ends after the worker."""
        if self._under_way is not None:
            await asyncio.wait({self._under_way}, timeout=3 * WAIT_SECONDS)

    def samples(self) -> Iterator[Sample]:
        """The lag as of now, of the pipelines that are here now."""
        fresh = self._age < KEPT_SECONDS
        for host in self._readers():
            if fresh and host.name in self._lags:
                yield from _samples(self._names.group(host.name), host.name, self._lags[host.name])
            else:
                reason = Unknown.NOT_MEASURED if fresh else Unknown.BROKER_AWAY
                yield "trunkline_lag_unknown", (host.name, reason), 1.0

    @property
    def _age(self) -> float:
        """Of the last measurement, in seconds."""
        return math.inf if self._measured_at is None else time.monotonic() - self._measured_at

    def _readers(self) -> list[PipelineHost]:
        return [host for host in self._hosts() if host.inputs]

    def _watched(self) -> dict[str, Watched]:
        near = self._neighbours
        return {
            host.name: Watched(
                tuple(host.inputs),
                host.commits,
                near.speaks_for(host.name, has_it=host.state is not State.UNASSIGNED),
                near.partitions(host.name),
                host.known,
            )
            for host in self._readers()
        }

    def _take(self, measured: asyncio.Future[Mapping[str, list[PartitionLag]]]) -> None:
        """A measurement has ended."""
        try:
            self._lags, self._measured_at = measured.result(), time.monotonic()
        except TrunklineError as error:
            self._measured_at = None
            if self._away_since is None:
                self._away_since = time.time()
                log.warning("the lag is not known: Kafka does not answer", reason=str(error), code=error.code)
            return
        if self._away_since is not None:
            log.info("the lag is known again", after=round(time.time() - self._away_since, 1))
            self._away_since = None

    # --- in the thread ---

    def _measure(self, watched: Mapping[str, Watched]) -> dict[str, list[PartitionLag]]:
        """The lag of what this worker tells of. Raises our error for Kafka's where it does not even say which topics there are."""
        spoken_for = {name: one for name, one in watched.items() if one.speaks}
        inputs = inputs_of(
            self._settings, self._names, {name: one.reads for name, one in spoken_for.items()}, ASK_SECONDS
        )
        commits: dict[str, Commits] = {name: one.own for name, one in watched.items()}
        tells: dict[str, Inputs] = {}
        found: dict[str, list[PartitionLag]] = {name: [] for name in watched}
        for name, one in spoken_for.items():
            nobodys = inputs[name].partitions - set(one.own) - one.others
            try:
                stored = committed(self._settings, self._names, name, nobodys, ASK_SECONDS) if nobodys else {}
            except TrunklineError:
                found[name] += [PartitionLag(name, *place, unknown=Unknown.BROKER_AWAY) for place in sorted(nobodys)]
                nobodys, stored = frozenset(), {}
            commits[name] = {**stored, **one.own}
            tells[name] = replace(inputs[name], partitions=nobodys)
        known = {name: one.known for name, one in spoken_for.items()}
        for lag in self._reader.measure(commits, tells, known):
            found[lag.pipeline].append(lag)
        return found


def _samples(group: str, pipeline: str, lags: list[PartitionLag]) -> Iterator[Sample]:
    if not lags:
        return  # other workers tell of it
    for one in lags:
        place = (one.topic, str(one.partition))
        if one.records is not None:
            yield "kafka_consumergroup_lag", (group, *place), one.records
        if one.seconds is not None:
            yield "kafka_consumergroup_group_lag_seconds", (group, *place), one.seconds
        if one.held_since is not None:
            yield "trunkline_open_transaction_seconds", (pipeline, *place), max(0.0, time.time() - one.held_since)
    together = summed(pipeline, lags)
    if together.seconds is not None:
        yield "kafka_consumergroup_group_max_lag_seconds", (group,), together.seconds
    if not together.exact:
        yield "trunkline_lag_estimated", (pipeline,), 1.0
    for reason in together.unknown:
        yield "trunkline_lag_unknown", (pipeline, reason), 1.0
