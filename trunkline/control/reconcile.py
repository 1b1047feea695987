"""Comparing a pipeline's ledger with its input."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from trunkline.bus.accounting import reconcile as accounting
from trunkline.bus.accounting.outcomes import Outcomes
from trunkline.bus.accounting.reconcile import OnProgress, PartitionCheck
from trunkline.bus.redrive.counting import count
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


def became(cluster: Cluster, pipeline: str) -> Outcomes | None:
    """What became of its records, as `status` says it, but that every dead letter is looked at; None where nothing was read."""
    kinds = pipelines.known(cluster, pipeline)
    known = reported_offsets(cluster.board.reports())
    return count(
        cluster.kafka, cluster.names, kinds, pipelines.inputs(cluster), known, letters=sys.maxsize
    ).outcomes.get(pipeline)


def judge(pipeline: str, checks: Sequence[PartitionCheck], outcomes: Outcomes | None) -> None:
    """Raises `CheckFailedError` where a partition does not agree with its ledger (`ledger.differs`), or where letters are gone that nobody
    has sent again (`deadletters.gone`)."""
    wrong = [one for one in checks if not one.closes]
    if wrong:
        raise CheckFailedError(
            f"{len(wrong)} of {len(checks)} partitions do not agree with their ledger",
            where=pipeline,
            hint="docs/runbooks/ledger-does-not-close.md says what to do",
            code="ledger.differs",
        )
    if outcomes is not None and outcomes.carried < 0:
        raise CheckFailedError(
            f"{-outcomes.carried} records became dead letters, were not sent again, and have no letter any more",
            where=pipeline,
            hint="docs/runbooks/ledger-does-not-close.md says what to do",
            code="deadletters.gone",
        )
