"""The audit trail: who changed what."""

from __future__ import annotations

from collections import deque

from trunkline.bus.accounting import audit
from trunkline.bus.accounting.audit import Entry
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster


def entries(cluster: Cluster, *, pipeline: str | None, limit: int | None) -> list[Entry]:
    """The last `limit` entries, oldest first, or all; of one pipeline where named, which may be one that is no more.

    Raises `ConfigurationError` for a pipeline that neither is nor has any.
    """
    found = list(deque(audit.entries(cluster.kafka, cluster.names, pipeline), limit))
    if pipeline is not None and not found:
        pipelines.known(cluster, pipeline)
    return found
