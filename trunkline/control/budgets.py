"""What the accounts of connections allow, and who has how much of it."""

from __future__ import annotations

from typing import Any

from trunkline.bus.budget.overview import overview
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, did_you_mean


def accounts(cluster: Cluster) -> list[dict[str, Any]]:
    """Every account that is limited and was used, by name."""
    return overview(cluster.kafka, cluster.names)


def account_named(cluster: Cluster, account: str) -> dict[str, Any]:
    """One account. Raises `ConfigurationError` (`budget.unknown`) for one that no worker has used."""
    found = {one["account"]: one for one in accounts(cluster)}
    if account not in found:
        raise ConfigurationError(
            f"no budget of {account!r} is in use", hint=did_you_mean(account, found), code="budget.unknown"
        )
    return found[account]
