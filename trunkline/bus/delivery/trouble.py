"""Deliveries in trouble: tried, failed, and to be tried again. Why the last of them failed is what people are told."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.bus.delivery.outgoing import Delivery, Ticket
from trunkline.core.cause import Cause
from trunkline.core.verdicts import Retry, Unknown

UNANSWERED_SECONDS = 5.0
"""A call that has no answer for so long, while no other ends, is worth saying; it counts as failed only after its time-out."""
NOTHING_LOST = "nothing is lost: offsets are held, and it goes on by itself when the other system takes it"


@dataclass(frozen=True, slots=True)
class _Failed:
    """The last try of one delivery. Times are Unix seconds."""

    code: str
    reason: str
    at: float
    attempt: int
    next_try: float


def no_answer(quiet: float, timeout: float, records: int) -> Cause:
    """That calls are under way, and none was answered for so many seconds."""
    return Cause(
        "sink.no_answer",
        f"no answer to the calls under way; one counts as failed after {timeout:g} s (`delivery.timeout`)",
        hint=NOTHING_LOST,
        since=time.time() - quiet,
        records=records,
    )


class Trouble:
    """One pipeline's. A delivery leaves it when it is settled, whatever it became. On the event loop."""

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self._failed: dict[Delivery, _Failed] = {}

    def failed(self, delivery: Delivery, verdict: Retry | Unknown, reason: str, *, at: float, wait: float) -> None:
        """A delivery failed and is tried again in so many seconds. `reason` may be shown."""
        self._failed[delivery] = _Failed(verdict.code, reason, at, delivery.attempts, at + wait)

    def settled(self, delivery: Delivery) -> None:
        """It is settled, or not ours any more."""
        self._failed.pop(delivery, None)

    def forget(self, gone: Callable[[Ticket], bool]) -> None:
        """Their partitions went away."""
        for delivery in [one for one in self._failed if gone(one.ticket)]:
            del self._failed[delivery]

    def cause(self) -> Cause | None:
        """The last error, since when records fail, which attempt that was, and when the next one begins."""
        if not self._failed:
            return None
        last = max(self._failed.values(), key=lambda one: one.at)
        since = min(delivery.first_failed_at or last.at for delivery in self._failed)
        return Cause(
            last.code,
            last.reason,
            hint=NOTHING_LOST,
            since=since,
            attempt=last.attempt or None,
            attempts=self._attempts if last.attempt else None,
            next_try=min(one.next_try for one in self._failed.values()),
            records=len(self._failed),
        )
