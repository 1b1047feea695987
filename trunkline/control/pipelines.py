"""Which pipelines there are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trunkline.bus.topics import topic_identities
from trunkline.bus.worker.applied import pipelines_of, read_applied, reads
from trunkline.bus.worker.board import Report
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, did_you_mean


def known(cluster: Cluster, only: str | None = None) -> dict[str, str]:
    """Kinds by name of the pipelines that are applied or were reported; with `only` one of them, which may be deleted by now.

    Of one that was forgotten but left its dead letters the kind is empty. Raises `ConfigurationError` when `only` is none of them.
    """
    reports = [one for one in cluster.board.reports() if not one.removed or one.pipeline == only]
    kinds = {one.pipeline: one.kind for one in reports}
    if only is not None and topic_identities(cluster.kafka, [cluster.names.dead_letters(only)]):
        kinds.setdefault(only, "")
    return chosen(kinds, applied(cluster), only)


def present(cluster: Cluster, only: str | None = None) -> dict[str, str]:
    """As `known`, without those that were deleted."""
    return chosen(reported_kinds(cluster.board.reports()), applied(cluster), only)


def reported_kinds(reports: Iterable[Report]) -> dict[str, str]:
    """Kinds by name of the pipelines that workers have told of, without those that were deleted."""
    return {one.pipeline: one.kind for one in reports if not one.removed}


def applied(cluster: Cluster) -> dict[str, str]:
    """Kinds by name of the applied pipelines."""
    return pipelines_of(read_applied(cluster.kafka, cluster.names))


def inputs(cluster: Cluster) -> dict[str, list[str]]:
    """What the applied pipelines that read topics read: names and families."""
    found = read_applied(cluster.kafka, cluster.names).items()
    return {key.partition("/")[2]: reads(manifest) for key, manifest in found if reads(manifest)}


def chosen(reported: Mapping[str, str], applied: Mapping[str, str], only: str | None) -> dict[str, str]:
    """The pipelines of both, by name; one where only that is meant. Raises `ConfigurationError` for one that is in neither."""
    kinds = dict(sorted({**reported, **applied}.items()))
    if only is None:
        return kinds
    if only not in kinds:
        raise ConfigurationError(
            f"no pipeline is called {only!r}", hint=did_you_mean(only, kinds), code="pipeline.unknown"
        )
    return {only: kinds[only]}
