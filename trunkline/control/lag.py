"""How far pipelines are behind their inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trunkline.bus.accounting.commits import all_committed
from trunkline.bus.accounting.lag import PartitionLag, PipelineLag, summed
from trunkline.bus.accounting.lagreader import lags_behind
from trunkline.bus.worker.reported import reported_offsets
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster


def measure(cluster: Cluster, only: str | None = None) -> dict[str, list[PartitionLag]]:
    """The lag of each partition by pipeline, sources left out. Raises `ConfigurationError` for an unknown pipeline."""
    readers = [name for name, kind in pipelines.present(cluster, only).items() if kind != "Source"]
    commits = all_committed(cluster.kafka, cluster.names, readers)
    known = reported_offsets(cluster.board.reports())
    return lags_behind(cluster.kafka, cluster.names, commits, pipelines.inputs(cluster), known)


def by_pipeline(lags: Mapping[str, Collection[PartitionLag]]) -> list[PipelineLag]:
    """The lag of each pipeline, all its partitions together, by name."""
    return [summed(name, lags[name]) for name in sorted(lags)]
