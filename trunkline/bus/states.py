"""The states of a pipeline, in Kafka Connect's words, and what an automatic restart waits."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where a pipeline stands on a worker."""

    UNASSIGNED = "UNASSIGNED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    RESTARTING = "RESTARTING"


class Desired(StrEnum):
    """What people want of a pipeline. Paused keeps its partitions, stopped gives them up."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


def restart_delay(failures: int) -> float:
    """Seconds before the automatic restart after the `failures`-th failure in a row.

    n² + n minutes, at most 60, as Strimzi does it (`AutoRestartStatus`): 0, 2, 6, 12, … A success begins anew.
    """
    n = max(failures - 1, 0)
    return min(n * n + n, 60) * 60.0


def reconnect_delay(attempts: int) -> float:
    """Seconds before the next try after something passing (a broker or a server that is away): 1, 2, 4, … 30."""
    return float(min(2 ** min(attempts, 10), 30))
