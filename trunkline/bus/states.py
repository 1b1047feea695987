"""The states of a pipeline, in Kafka Connect's words, and what an automatic restart waits."""

from __future__ import annotations

from enum import StrEnum

SOON_SECONDS = 4.0
"""Between two tries at the least: with what a start takes, the end of a cause shows within ten seconds."""
SHARE = 0.005
"""What lasts is tried more and more seldom: after this share of the time that it has lasted. After an hour that is 18 s."""
LONGEST_SECONDS = 60.0


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


def retry_delay(lasting: float) -> float:
    """Seconds before the next try at the most, of what nobody tells the end of and what has lasted so many seconds."""
    return max(SOON_SECONDS, min(lasting * SHARE, LONGEST_SECONDS))
