"""Lag: how far a pipeline is behind, in records and in seconds.

Lag in seconds is now minus the timestamp of the first record that is not committed; 0 where there is none. The timestamp is
kept by its offset, so a partition costs a read only when its committed offset moves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, translate
from trunkline.bus.names import Names
from trunkline.core.metrics import gauge

TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """The lag of one group on one partition. `seconds` is None where it is not known yet. `lost` counts records that expired unread."""

    pipeline: str
    topic: str
    partition: int
    committed: int
    end: int
    seconds: float | None
    lost: int = 0

    @property
    def records(self) -> int:
        """Offsets between the commit and the end; 0 where only markers of transactions follow, which Kafka counts too."""
        return 0 if self.seconds == 0.0 else max(0, self.end - self.committed)

    def as_dict(self) -> dict[str, Any]:
        """The lag as data."""
        names = ("pipeline", "topic", "partition", "committed", "end", "seconds", "lost")
        return {**{name: getattr(self, name) for name in names}, "records": self.records}


class LagReader:
    """Measures lag, and remembers timestamps between measurements."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._names = names
        self._admin = settings.admin()
        self._timestamps: dict[tuple[str, int, int], float] = {}

    def measure(self, pipelines: Sequence[str]) -> list[PartitionLag]:
        """The lag of every partition that these pipelines have committed. Raises our error for Kafka's."""
        try:
            committed = {pipeline: self._committed(pipeline) for pipeline in pipelines}
            partitions = sorted({(part.topic, part.partition) for parts in committed.values() for part in parts})
            ends = self._offsets(partitions, LATEST)
            starts = self._offsets(partitions, EARLIEST)
        except KafkaException as error:
            raise translate(error, "the lag can't be measured") from error
        behind = {
            (part.topic, part.partition, part.offset)
            for parts in committed.values()
            for part in parts
            if part.offset < ends.get((part.topic, part.partition), 0)
        }
        self._read_timestamps(behind)
        now = time.time()
        found = []
        for pipeline, parts in committed.items():
            for part in parts:
                place = (part.topic, part.partition)
                end = ends.get(place, part.offset)
                stamp = self._timestamps.get((*place, part.offset))
                seconds = 0.0 if part.offset >= end else (max(0.0, now - stamp) if stamp is not None else None)
                if stamp is not None and stamp == END_OF_RECORDS:
                    seconds = 0.0
                lost = max(0, starts.get(place, 0) - part.offset)
                found.append(PartitionLag(pipeline, *place, part.offset, end, seconds, lost))
        return found

    def _committed(self, pipeline: str) -> list[TopicPartition]:
        group = self._names.group(pipeline)
        future = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT
        )[group]
        return [part for part in future.result(TIMEOUT).topic_partitions if part.offset >= 0]

    def _offsets(self, partitions: Sequence[tuple[str, int]], spec: OffsetSpec) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        asked = {TopicPartition(*place): spec for place in partitions}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=TIMEOUT
        )
        return {(part.topic, part.partition): future.result(TIMEOUT).offset for part, future in answers.items()}

    def _read_timestamps(self, behind: set[tuple[str, int, int]]) -> None:
        """The timestamp of the first record at or after each offset that is not known yet."""
        self._timestamps = {place: stamp for place, stamp in self._timestamps.items() if place in behind}
        unknown = sorted(behind - set(self._timestamps))
        if not unknown:
            return
        reader = self._settings.reader(eof=True)
        try:
            for topic, partition, offset in unknown:
                self._timestamps[topic, partition, offset] = _timestamp_at(reader, topic, partition, offset)
        finally:
            reader.close()


END_OF_RECORDS = -1.0
"""Stands for: only transaction markers follow, nothing is waiting."""


def _timestamp_at(reader: Consumer, topic: str, partition: int, offset: int) -> float:
    reader.assign([TopicPartition(topic, partition, offset)])
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        message = reader.poll(0.2)
        if message is None:
            continue
        if message.error() is None:
            return message.timestamp()[1] / 1000
        return END_OF_RECORDS
    return time.time()


class LagMetrics:
    """Keeps the lag gauges up to date."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._reader = LagReader(settings, names)
        self._names = names

    def update(self, pipelines: Sequence[str]) -> None:
        """Measures, and sets the gauges."""
        found = self._reader.measure(pipelines)
        records, seconds = gauge("kafka_consumergroup_lag"), gauge("kafka_consumergroup_group_lag_seconds")
        largest: dict[str, float] = {}
        for one in found:
            group = self._names.group(one.pipeline)
            records.labels(group, one.topic, str(one.partition)).set(one.records)
            if one.seconds is not None:
                seconds.labels(group, one.topic, str(one.partition)).set(one.seconds)
                largest[group] = max(largest.get(group, 0.0), one.seconds)
        for group, value in largest.items():
            gauge("kafka_consumergroup_group_max_lag_seconds").labels(group).set(value)
