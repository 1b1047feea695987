"""Which pipelines there are."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.bus.worker.applied import read_applied
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.manifests.kinds import PIPELINE_KINDS


def known(cluster: Cluster, only: str | None = None) -> dict[str, str]:
    """Kinds by name of the pipelines that are applied or were reported. Raises `ConfigurationError` when `only` is none of them."""
    reported = {report.pipeline: report.kind for report in cluster.board.reports()}
    return chosen(reported, applied(cluster), only)


def applied(cluster: Cluster) -> dict[str, str]:
    """Kinds by name of the applied pipelines."""
    found = (key.split("/", 1) for key in read_applied(cluster.kafka, cluster.names))
    return {name: kind for kind, name in found if kind in PIPELINE_KINDS}


def inputs(cluster: Cluster) -> dict[str, list[str]]:
    """What the applied pipelines that read topics read: names and families."""
    found = read_applied(cluster.kafka, cluster.names).items()
    return {
        key.partition("/")[2]: manifest["spec"]["from"]
        for key, manifest in found
        if key.partition("/")[0] in PIPELINE_KINDS and "from" in manifest["spec"]
    }


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
