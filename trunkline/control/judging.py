"""Manifests judged as `validate`, `plan` and `apply` do: alone, or against what a cluster has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trunkline.bus.worker.applied import gather_applied, read_applied
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests.against import examine_against
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.outputs import Registered
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema


def judge_alone(own: Findings, *, run_code: bool) -> Findings:
    """What can be said without a cluster. A topic that declares no schema has none."""
    return examine(own, run_code=run_code, schema_check=Schema, registered=lambda _topic: None)


def judge_against(cluster: Cluster, own: Findings, *, run_code: bool) -> Findings:
    """What can be said beside what is applied, and with the schemas that the registry has. Raises what broker and registry say."""
    applied = read_applied(cluster.kafka, cluster.names)
    with cluster.registry() as registry:
        return judge_beside(own, applied, registry, run_code=run_code)


def judge_beside(
    own: Findings, applied: Mapping[str, dict[str, Any]], registry: RegistryClient, *, run_code: bool = False
) -> Findings:
    """As `judge_against`, beside these applied manifests."""
    return examine_against(
        own, gather_applied(applied), run_code=run_code, schema_check=Schema, registered=registered_schemas(registry)
    )


def registered_schemas(registry: RegistryClient) -> Registered:
    """Asks the registry for the schemas of subjects. Raises what the registry says."""
    known: list[frozenset[str]] = []

    def latest(subject: str) -> Any | None:
        if not known:
            known.append(frozenset(registry.subjects()))
        if subject not in known[0]:
            return None
        try:
            return registry.latest(subject).json
        except ConfigurationError:
            return None  # deleted since

    return latest
