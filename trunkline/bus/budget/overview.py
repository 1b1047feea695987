"""How budgets stand, read from the log by somebody who takes no part."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from trunkline.bus.budget.claim import Claim
from trunkline.bus.budget.standing import Standing
from trunkline.bus.kafka import KafkaSettings, read_all
from trunkline.bus.names import Names


def overview(settings: KafkaSettings, names: Names) -> list[dict[str, Any]]:
    """Every account of the log, as data; times are lengths in seconds, by this machine's clock. Blocks."""
    found: dict[str, Standing] = {}
    for message in read_all(settings, names.budgets):
        value = message.value()
        if value is not None:
            claim = Claim.from_record(value)
            found.setdefault(claim.account, Standing()).apply(claim, message.timestamp()[1] / 1000)
    now = time.time()
    return [_standing(name, standing, now) for name, standing in sorted(found.items())]


def _standing(name: str, standing: Standing, now: float) -> dict[str, Any]:
    said = standing.said(now)
    workers = [
        {
            "worker": worker,
            "live": now < holder.live_until,
            "per_second": holder.second if now < holder.second_ends else 0,
            "concurrent": holder.concurrent if now < holder.concurrent_ends else 0,
            "spent": holder.spent,
            "reserved": max(0, holder.allow - holder.spent) if now < holder.allow_ends else 0,
            "waiting": holder.claim.waiting if now < holder.live_until else 0,
        }
        for worker, holder in sorted(standing.holders.items())
    ]
    return {
        "account": name,
        "limits": asdict(standing.limits),
        "left": {window: max(0, left) for window, left in standing.left(now).items()},
        "said": {"used": said.used, "limit": said.limit} if said is not None else None,
        "held_seconds": round(max(0.0, standing.held_until - now), 1),
        "waiting": sum(holder.claim.waiting for holder in standing.holders.values() if now < holder.live_until),
        "workers": workers,
    }
