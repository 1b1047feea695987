"""Lag: how far a pipeline is behind, in records and in seconds.

Lag in seconds is now minus the timestamp of the first record that is not committed; 0 where there is none. The timestamp is
kept by its offset, so a partition costs a read only when its committed offset moves.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    TopicPartition,
)

from trunkline.bus.accounting.commits import Positions, positions
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, offsets_of
from trunkline.bus.names import Names
from trunkline.core.metrics import gauge

TIMEOUT = 15.0
READ_SECONDS = 3.0
"""How long a measurement may read first records; a partition that it did not come to has its age the next time."""
FIRST_RECORD_BYTES = 16 * 1024
Partition = tuple[str, int]


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
    def place(self) -> Partition:
        """Topic and partition."""
        return self.topic, self.partition

    @property
    def first(self) -> int:
        """Where the first record that is not committed may be: after those that expired unread."""
        return self.committed + self.lost

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

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._admin = settings.admin()  # kept, so that each measurement is given this one
        self._timestamps: dict[tuple[str, int, int], float] = {}

    def measure(self, committed: Mapping[str, Positions]) -> list[PartitionLag]:
        """The lag behind what these pipelines have committed. Raises our error for Kafka's."""
        offsets = self.offsets(committed)
        self._read_timestamps({(*one.place, one.first) for one in offsets if one.committed < one.end})
        now = time.time()
        found = []
        for one in offsets:
            stamp = self._timestamps.get((*one.place, one.first))
            if one.committed >= one.end or stamp == END_OF_RECORDS:
                found.append(replace(one, seconds=0.0))
            else:
                found.append(replace(one, seconds=max(0.0, now - stamp) if stamp is not None else None))
        return found

    def offsets(self, committed: Mapping[str, Positions]) -> list[PartitionLag]:
        """The lag in offsets alone: two questions to the cluster, however many partitions there are. Raises our error for Kafka's."""
        partitions = sorted({place for places in committed.values() for place in places})
        ends, starts = offsets_of(
            self._settings, partitions, [LATEST, EARLIEST], "the lag can't be measured", timeout=TIMEOUT
        )
        found = []
        for pipeline, places in committed.items():
            for place, offset in places.items():
                lost = max(0, starts.get(place, 0) - offset)
                found.append(PartitionLag(pipeline, *place, offset, ends.get(place, offset), None, lost))
        return found

    def _read_timestamps(self, behind: set[tuple[str, int, int]]) -> None:
        """The timestamp of the first record at or after each offset that is not known yet; what time does not allow, the next time."""
        self._timestamps = {place: stamp for place, stamp in self._timestamps.items() if place in behind}
        unknown = sorted(behind - set(self._timestamps))
        if not unknown:
            return
        deadline = time.monotonic() + READ_SECONDS
        reader = self._settings.reader(eof=True, fetch_bytes=FIRST_RECORD_BYTES)
        try:
            while unknown and time.monotonic() < deadline:
                # Of several pipelines at different offsets of a partition, one is looked after in a round.
                round_ = {(topic, partition): offset for topic, partition, offset in reversed(unknown)}
                stamps = _first_timestamps(reader, round_, deadline)
                self._timestamps.update({(*place, round_[place]): stamp for place, stamp in stamps.items()})
                unknown = [place for place in unknown if round_[place[:2]] != place[2]]
        finally:
            reader.close()


END_OF_RECORDS = -1.0
"""Stands for: only transaction markers follow, nothing is waiting."""


def _first_timestamps(reader: Consumer, offsets: Mapping[Partition, int], deadline: float) -> dict[Partition, float]:
    """The timestamp of the first record at or after each offset, in Unix seconds: all partitions are read at once."""
    found: dict[Partition, float] = {}
    reader.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])
    while len(found) < len(offsets) and time.monotonic() < deadline:
        done = []
        for message in [*reader.consume(1, 0.1), *reader.consume(1000, 0)]:
            place = (message.topic() or "", message.partition() or 0)
            if place in found:
                continue
            error = message.error()
            if error is None:
                found[place] = message.timestamp()[1] / 1000
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                found[place] = END_OF_RECORDS
            else:
                continue  # a broker that is away, or a record that expired meanwhile: the next measurement will tell
            done.append(TopicPartition(*place))
        if done:
            reader.pause(done)  # one record is all that is wanted of each
    reader.resume([TopicPartition(*place) for place in found])  # a pause outlives an assignment
    return found


class LagMetrics:
    """Keeps the lag gauges up to date."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._reader = LagReader(settings)
        self._names = names

    def update(self, committed: Mapping[str, Positions], unknown: Sequence[str] = ()) -> None:
        """Measures, and sets the gauges; of the `unknown` pipelines Kafka is asked first. Raises our error for Kafka's."""
        found = self._reader.measure({**committed, **positions(self._settings, self._names, unknown)})
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
