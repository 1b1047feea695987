"""The status of pipelines as rows of a table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from trunkline.bus.accounting.outcomes import CLASSES
from trunkline.cli.lagtable import lag_cells, reasons
from trunkline.cli.values import elapsed

if TYPE_CHECKING:
    from trunkline.bus.accounting.outcomes import Outcomes
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
    "DROPPED",
    "REDRIVING",
    "LEDGER",
    "FALLBACK",
    "LAG",
    "LAG s",
    "PROGRESS",
)
_WHERE_ANY = {"ABSORBED", "PARKED", "DROPPED", "REDRIVING", "FALLBACK"}
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
    """The cells under STATUS_COLUMNS. What was read is the sum of the classes behind it and of what the ledger has open."""
    age = None if one.since is None else elapsed(time.time() - one.since)
    state = f"{one.state} (finished)" if one.finished else str(one.state)
    if one.breaker in {"open", "half-open"}:
        state += f" (breaker {one.breaker})"
    if one.parked_records:
        state += f" ({one.parked_records} parked)"
    lag = (None, None) if one.kind == "Source" else lag_cells(one.lag_records, one.lag_exact, one.lag_seconds)
    head = (one.pipeline, one.kind, state, age, one.workers)
    return (*head, *_count_cells(one.outcomes), one.fallback or None, *lag, progress_text(one))


def _count_cells(counts: Outcomes | None) -> tuple[Any, ...]:
    """The cells from READ to LEDGER."""
    if counts is None:
        return (None,) * 9
    dead = counts.dead if counts.exact else f"about {counts.dead}"
    ledger = "closes" if counts.open == 0 else f"{counts.open} open"
    first = (counts.read, counts.delivered, counts.absorbed, counts.filtered, counts.parked)
    return (*first, dead, counts.dropped, counts.redriving, ledger)


def sum_of(counts: Outcomes) -> str:
    """The counts as a sum, such as `read 30 = delivered 18 + dead 12`: classes without a record are left out."""
    parts = {name: getattr(counts, name) for name in CLASSES}
    more = f" - {counts.carried} carried" if counts.carried > 0 else ""
    gone = f" + {-counts.carried} dead letters that are gone" if counts.carried < 0 else ""
    classes = " + ".join(f"{name} {number}" for name, number in parts.items() if number) or "0"
    return f"read {counts.read} = {classes}{more}{gone}"


def remarks(one: PipelineStatus) -> Iterator[str]:
    """What has to be said of a pipeline's counts and lag besides."""
    counts = one.outcomes
    if counts is not None and counts.carried > 0:
        yield (
            f"{counts.carried} of its counts are of records that were read before the counts began anew, or that were sent again "
            "before they were committed, and so read twice"
        )
    if counts is not None and counts.carried < 0:
        yield f"{-counts.carried} dead letters are gone from its dead-letter topic"
    if counts is not None and counts.ahead:
        yield f"{counts.ahead} more dead letters are of records that are not committed yet"
    unknown = reasons(one.lag_unknown)
    if unknown is not None:
        yield f"lag: {unknown}"


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
