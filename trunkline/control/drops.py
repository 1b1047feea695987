"""Dropping dead letters: counted first, then marked as settled, with who decided so and why in the audit trail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trunkline.bus.redrive import dropping
from trunkline.bus.redrive.dropping import DropOrder
from trunkline.bus.redrive.jobs import JobLog
from trunkline.bus.redrive.letters import compile_filter
from trunkline.bus.redrive.plan import Plan
from trunkline.control.cluster import Cluster
from trunkline.control.filters import check_letter_filter, raise_unjudged
from trunkline.control.redrives import order_of
from trunkline.core.errors import ConfigurationError
from trunkline.core.redaction import redact

_HOWEVER_OFTEN = 2**31
"""A letter is dropped however often it was sent again."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The letters that a drop means, as they were counted."""

    pipeline: str
    order: DropOrder
    plan: Plan

    def as_dict(self) -> dict[str, Any]:
        """The counts as data."""
        plan = self.plan
        return {
            "pipeline": self.pipeline,
            "letters": plan.total,
            "unjudged": plan.unjudged,
            "settled_before": plan.settled_before,
            "reason": self.order.reason,
        }


@contextmanager
def proposed(
    cluster: Cluster, pipeline: str, places: Sequence[str], *, where: str | None, limit: int | None, reason: str
) -> Iterator[Proposal]:
    """What a drop would drop, while the context lasts. Raises `ConfigurationError` for a missing reason, a wrong filter, places without a
    letter, and while a job sends letters of the pipeline."""
    if not reason.strip():
        raise ConfigurationError(
            "dead letters are not dropped without a reason",
            where="--reason",
            hint="say why: the audit trail keeps it",
            code="option.reason",
        )
    cluster.ensure_internal_topics()
    letters = order_of(cluster, pipeline, places, where=where, limit=limit, rate=None, cap=_HOWEVER_OFTEN, edit=None)
    dropping.refuse_redriven(JobLog.read(cluster.kafka, cluster.names, patient=False), pipeline)
    with cluster.registry() as registry:
        if where is not None:
            check_letter_filter(cluster, registry, pipeline, where, "--filter")
        decoders = cluster.decoders(registry)
        order = DropOrder(
            letters, redact(reason), cluster.actor, lambda: None if where is None else compile_filter(where, decoders)
        )
        yield Proposal(pipeline, order, dropping.chosen(cluster.kafka, cluster.names, pipeline, order))


def carry_out(cluster: Cluster, proposal: Proposal) -> int:
    """Drops what was proposed, but what was settled meanwhile; how many that were. Raises as `dropping.drop`."""
    return dropping.drop(cluster.kafka, cluster.names, proposal.pipeline, proposal.order)


def judge(proposal: Proposal) -> None:
    """Raises `CheckFailedError` where nothing was chosen, and a filter could not be evaluated on some."""
    plan = proposal.plan
    raise_unjudged(plan.total, plan.unjudged, plan.first_unjudged, "--filter")
