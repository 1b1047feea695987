"""How far pipelines are behind their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trunkline.bus.accounting.commits import positions
from trunkline.bus.accounting.lag import LagReader, PartitionLag
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster


@dataclass(frozen=True, slots=True)
class PipelineLag:
    """One pipeline: `seconds` is that of its partition furthest behind, None where no partition's is known."""

    pipeline: str
    partitions: int
    records: int
    seconds: float | None
    lost: int

    def as_dict(self) -> dict[str, Any]:
        """The lag as data."""
        return asdict(self)


def measure(cluster: Cluster, only: str | None = None) -> list[PartitionLag]:
    """The lag of each partition that was committed. Raises `ConfigurationError` for an unknown pipeline."""
    readers = [name for name, kind in pipelines.known(cluster, only).items() if kind != "Source"]
    return LagReader(cluster.kafka).measure(positions(cluster.kafka, cluster.names, readers))


def by_pipeline(lags: Sequence[PartitionLag]) -> list[PipelineLag]:
    """The lag of each pipeline, all its partitions together, by name."""
    found = []
    for name in sorted({one.pipeline for one in lags}):
        parts = [one for one in lags if one.pipeline == name]
        known = [one.seconds for one in parts if one.seconds is not None]
        records, lost = sum(one.records for one in parts), sum(one.lost for one in parts)
        found.append(PipelineLag(name, len(parts), records, max(known, default=None), lost))
    return found
