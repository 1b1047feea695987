"""Lag as people read it: numbers, `about` so many where they are estimates, and `unknown` with the reason where there is none."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from trunkline.cli.values import elapsed

if TYPE_CHECKING:
    from trunkline.bus.accounting.lag import PartitionLag, PipelineLag, Unknown

PARTITION_COLUMNS = ("PIPELINE", "TOPIC", "PARTITION", "COMMITTED", "END", "RECORDS", "SECONDS", "LOST", "REMARK")
PIPELINE_COLUMNS = ("PIPELINE", "PARTITIONS", "RECORDS", "SECONDS", "LOST", "REMARK")


def partition_row(lag: PartitionLag) -> tuple[Any, ...]:
    """The cells under PARTITION_COLUMNS."""
    remark = reasons((lag.unknown,) if lag.unknown is not None else ())
    if lag.held_since is not None:
        age = elapsed(time.time() - lag.held_since)
        remark = (
            f"a transaction has been open for {age}: {lag.held} offsets behind the end can't be read before it ends"
        )
    place = (lag.pipeline, lag.topic, lag.partition, lag.committed, lag.end)
    return (*place, *lag_cells(lag.records, lag.exact, lag.seconds), lag.lost, remark)


def pipeline_row(lag: PipelineLag) -> tuple[Any, ...]:
    """The cells under PIPELINE_COLUMNS."""
    cells = lag_cells(lag.records, lag.exact, lag.seconds)
    return (lag.pipeline, lag.partitions, *cells, lag.lost, reasons(lag.unknown))


def lag_cells(records: int | None, exact: bool, seconds: float | None) -> tuple[str, str]:
    """Records and seconds: `1234` or `about 1234`, and `unknown`."""
    count = "unknown" if records is None else str(records) if exact else f"about {records}"
    return count, "unknown" if seconds is None else f"{seconds:.1f}"


def reasons(unknown: Iterable[Unknown]) -> str | None:
    """Why something of a lag is not known, in words; None where nothing is unknown."""
    from trunkline.bus.accounting.lag import MEANINGS

    return "; ".join(MEANINGS[reason] for reason in unknown) or None
