"""Comparing a pipeline's ledger with its input."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.bus.accounting import reconcile as accounting
from trunkline.bus.accounting.reconcile import OnProgress, PartitionCheck
from trunkline.bus.worker.reported import reported_offsets
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import CheckFailedError, ConfigurationError


def reconcile(cluster: Cluster, pipeline: str, *, on_progress: OnProgress | None = None) -> list[PartitionCheck]:
    """The checks of every partition. Raises `ConfigurationError` for an unknown pipeline and for a source.

    `on_progress` is called while a partition is read: with topic, partition, and how many of how many records are done.
    """
    if pipelines.known(cluster, pipeline).get(pipeline) == "Source":
        raise ConfigurationError(
            f"{pipeline} is a source: what it reads is no topic that could be read again",
            hint="`trunkline status` shows what it read, delivered and kept in quarantine",
            code="reconcile.source",
        )
    known = reported_offsets(cluster.board.reports()).get(pipeline)
    return accounting.reconcile(cluster.kafka, cluster.names, pipeline, known=known, on_progress=on_progress)


def parked_now(cluster: Cluster, pipeline: str) -> int:
    """How many of its records are parked now: their keys wait until they are settled."""
    return accounting.parked_now(cluster.kafka, cluster.names.parked(pipeline))


def judge(pipeline: str, checks: Sequence[PartitionCheck]) -> None:
    """Raises `CheckFailedError` (`ledger.differs`) where a partition does not agree with its ledger."""
    wrong = [one for one in checks if not one.closes]
    if wrong:
        raise CheckFailedError(
            f"{len(wrong)} of {len(checks)} partitions do not agree with their ledger",
            where=pipeline,
            hint="docs/runbooks/ledger-does-not-close.md says what to do",
            code="ledger.differs",
        )
