"""The status of pipelines as rows of a table."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trunkline.cli.lagtable import lag_cells
from trunkline.cli.values import elapsed

if TYPE_CHECKING:
    from trunkline.control.status import PipelineStatus

STATUS_COLUMNS = (
    "PIPELINE",
    "KIND",
    "STATE",
    "FOR",
    "WORKERS",
    "READ",
    "DELIVERED",
    "ABSORBED",
    "FILTERED",
    "PARKED",
    "DEAD",
    "DEAD AGAIN",
    "REDRIVEN",
    "WAITING",
    "LAG",
    "LAG s",
    "LEDGER",
    "PROGRESS",
)
_WHERE_ANY = {"ABSORBED", "PARKED", "DEAD AGAIN"}
"""Columns that stand only in a table where some pipeline has any: few do."""


def status_table(found: Sequence[PipelineStatus]) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Columns and rows: STATUS_COLUMNS without those that say nothing of any pipeline."""
    rows = [status_row(one) for one in found]
    kept = [
        index
        for index, column in enumerate(STATUS_COLUMNS)
        if column not in _WHERE_ANY or any(row[index] for row in rows)
    ]
    return [STATUS_COLUMNS[index] for index in kept], [tuple(row[index] for index in kept) for row in rows]


def status_row(one: PipelineStatus) -> tuple[Any, ...]:
    """The cells under STATUS_COLUMNS.

    What was read is the sum of the classes behind it and of what the ledger has open. The dead letters of both kinds are the sum of
    those that were sent again and those that wait.
    """
    counts = [one.counts.get(name) for name in ("read", "delivered", "absorbed", "filtered", "parked", "dead")]
    lag = (None, None) if one.kind == "Source" else lag_cells(one.lag_records, one.lag_exact, one.lag_seconds)
    ledger = None if not one.counts else ("closes" if one.open == 0 else f"{one.open} open")
    age = None if one.since is None else elapsed(time.time() - one.since)
    state = f"{one.state} (finished)" if one.finished else str(one.state)
    again = one.counts.get("dead_again")
    letters = (again, one.redriven, one.dead_waiting) if one.counts else (None, None, None)
    if one.breaker in {"open", "half-open"}:
        state += f" (breaker {one.breaker})"
    if one.parked_records:
        state += f" ({one.parked_records} parked)"
    head = (one.pipeline, one.kind, state, age, one.workers)
    return (*head, *counts, *letters, *lag, ledger, progress_text(one))


def progress_text(one: PipelineStatus) -> str | None:
    """Such as `42 % of orders.csv, 3m left`; of a reader its pace and what is left. Nothing is left in a time where nothing moves."""
    left = one.seconds_left
    rest = f", {elapsed(left)} left" if left else ""
    if one.kind == "Source":
        if not one.progress:
            return None
        first = min(one.progress, key=lambda split: float(split["done"] / split["total"]) if split["total"] else 1.0)
        done = sum(split["done"] for split in one.progress)
        total = sum(split["total"] for split in one.progress)
        others = f" and {len(one.progress) - 1} more" if len(one.progress) > 1 else ""
        # Rounded down: nothing is all read before it is.
        return f"{int(100 * done / total) if total else 100} % of {first['what']}{others}{rest}"
    moves = one.state == "RUNNING" and one.per_second >= 1 and one.lag_records
    return f"{one.per_second:,.0f}/s{rest}" if moves else None
