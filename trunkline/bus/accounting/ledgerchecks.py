"""The ledger checked all the time: what a pipeline has committed since the last look is read again, as long as it is little.

A commit says count and checksum of all offsets up to it. So two commits and the records between them prove that none was passed by.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer

from trunkline.bus.accounting.commits import Positions, committed
from trunkline.bus.accounting.reconcile import RangeSum
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings, read_range, watermarks
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_states
from trunkline.core.log import get_logger

log = get_logger(__name__)
RANGE = 10_000
"""Offsets of one partition that are read again at the most. Of a busier one a short stretch is looked at."""
STRETCH_SECONDS = 0.2
Place = tuple[str, Partition]


@dataclass(frozen=True, slots=True)
class _Commit:
    offset: int
    ledger: Ledger


class LedgerChecks:
    """Finds what `trunkline_ledger_mismatch` tells. Blocks; belongs in a thread."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._names = names
        self._admin = settings.admin()
        self._known: dict[Place, _Commit] = {}
        self._wrong: set[Place] = set()
        self._compacted: dict[str, bool] = {}

    def update(self, pipelines: Mapping[str, Positions]) -> dict[str, int]:
        """Checks these partitions of these pipelines, and gives how many of each do not agree. Raises our error for Kafka's.

        The positions are where the worker stands: what has not moved since the last look is not asked for (-1: it is not known).
        """
        self._forget(pipelines)
        busy = self._look(pipelines)
        if busy:
            time.sleep(STRETCH_SECONDS)
            self._look(busy)
        return {pipeline: sum(1 for name, _ in self._wrong if name == pipeline) for pipeline in pipelines}

    def _forget(self, pipelines: Mapping[str, Collection[Partition]]) -> None:
        ours = {(pipeline, partition) for pipeline, partitions in pipelines.items() for partition in partitions}
        self._known = {place: known for place, known in self._known.items() if place in ours}
        self._wrong &= ours

    def _look(self, pipelines: Mapping[str, Positions]) -> dict[str, dict[Partition, int]]:
        """Checks what can be checked, and gives the partitions that went too far since the last look."""
        busy: dict[str, dict[Partition, int]] = {}
        waiting = list(self._moved(pipelines))
        if not waiting:
            return busy
        reader = self._settings.reader(eof=True)
        try:
            for place, before, now in waiting:
                pipeline, partition = place
                if now.offset - before.offset > RANGE:
                    busy.setdefault(pipeline, {})[partition] = -1  # asked for again
                elif not self._agrees(reader, partition, before, now):
                    self._wrong.add(place)
                    log.error(
                        "the ledger does not close",
                        pipeline=pipeline,
                        topic=partition[0],
                        partition=partition[1],
                        first=before.offset,
                        end=now.offset,
                        hint=f"`trunkline reconcile {pipeline}` names the records",
                    )
        finally:
            reader.close()
        return busy

    def _seen(self, pipeline: str, partition: Partition, offset: int) -> bool:
        known = self._known.get((pipeline, partition))
        return known is not None and known.offset == offset

    def _moved(self, pipelines: Mapping[str, Positions]) -> Iterator[tuple[Place, _Commit, _Commit]]:
        """The partitions whose commit is further than at the last look, with both commits."""
        for pipeline, partitions in pipelines.items():
            if all(self._seen(pipeline, place, offset) for place, offset in partitions.items()):
                continue
            commits = committed(self._settings, self._names, pipeline, partitions)
            self._learn({topic for topic, _ in commits})
            for partition in partitions:
                if partition not in commits or self._compacted.get(partition[0], True):
                    continue
                place, now = (pipeline, partition), _Commit(*commits[partition])
                before, self._known[place] = self._known.get(place), now
                if before is None or _reset(before, now):
                    self._wrong.discard(place)
                elif now.offset > before.offset:
                    yield place, before, now

    def _learn(self, topics: set[str]) -> None:
        """Compaction takes records away, so that nothing follows from their number."""
        unknown = topics - set(self._compacted)
        if unknown:
            states = topic_states(self._settings, unknown, admin=self._admin)
            self._compacted.update((name, state.compacted) for name, state in states.items())

    def _agrees(self, reader: Consumer, partition: Partition, before: _Commit, now: _Commit) -> bool:
        if now.ledger.open:
            return False
        lowest, highest = watermarks(reader, *partition)
        if lowest > before.offset or highest < now.offset:
            return True  # it expired meanwhile, or the topic was made anew: nothing follows
        found = RangeSum(before.ledger.read, before.ledger.checksum)
        for _ in found.over(read_range(reader, *partition, before.offset, now.offset)):
            pass
        return (found.count, found.checksum) == (now.ledger.read, now.ledger.checksum)


def _reset(before: _Commit, now: _Commit) -> bool:
    """Whether the two say nothing of each other: offsets were set meanwhile, or the topic was made anew."""
    was, is_ = before.ledger, now.ledger
    same = (was.epoch, was.first, was.topic_id) == (is_.epoch, is_.first, is_.topic_id)
    return not same or now.offset < before.offset
