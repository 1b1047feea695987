"""What happened to one event on its way."""

from __future__ import annotations

import time

from trunkline.bus.accounting.trace import Hop, find_hops
from trunkline.control.cluster import Cluster
from trunkline.core.errors import CheckFailedError


def hops(cluster: Cluster, correlation_id: str, *, seconds: float | None = None) -> list[Hop]:
    """Every hop of an event in their order, of the last `seconds` alone where that is given.

    Raises `CheckFailedError` (`trace.unknown`) where there is none.
    """
    since = None if seconds is None else int((time.time() - seconds) * 1000)
    found = find_hops(cluster.kafka, cluster.names.trace, correlation_id, since_ms=since)
    if not found:
        raise CheckFailedError(
            f"the trace has no hop of {correlation_id}",
            hint="it keeps seven days; ids are compared letter by letter",
            code="trace.unknown",
        )
    return found
