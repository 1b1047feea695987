"""How long to wait before a delivery is tried again, and when to stop trying at all for a while."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from trunkline.core.manifests.models import RetrySpec

HOLD_LIMIT = 300.0


def backoff(spec: RetrySpec, attempt: int, *, rng: Callable[[float, float], float] = random.uniform) -> float:
    """Seconds before the next call after `attempt` calls: full jitter between 0 and min(max_delay, min_delay x 2^(attempt - 1)).

    Full jitter spreads clients that failed together (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """
    return rng(0.0, min(spec.max_delay, spec.min_delay * 2.0 ** min(attempt - 1, 60)))


class Breaker:
    """Stops calling a system that answers nobody: while it is open, records wait and their attempts are not used up.

    It opens when calls for at least `records` different records failed with no success between them, so that one record which
    always fails does not open it. Then one call at a time probes, after 1, 2, 4 … at most `longest` seconds.
    """

    def __init__(self, *, records: int = 5, longest: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._longest = longest
        self._clock = clock
        self._failed: set[object] = set()
        self._wait = 1.0
        self._until: float | None = None
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether calls are held back."""
        return self._until is not None

    def delay(self) -> float:
        """Seconds until a call may be made: 0 for now. While a probe is under way nothing else may."""
        if self._until is None:
            return 0.0
        if self._probing:
            return 0.5
        return max(0.0, self._until - self._clock())

    def started(self) -> None:
        """A call begins."""
        if self._until is not None:
            self._probing = True

    def succeeded(self) -> None:
        """The other system answered: it is up, whatever it said of a record."""
        self._failed.clear()
        self._until, self._wait, self._probing = None, 1.0, False

    def failed(self, record: object) -> None:
        """A call for `record` failed in a way that may be the system's fault."""
        probed, self._probing = self._probing, False
        self._failed.add(record)
        if self._until is not None:
            # Only a probe says something new: its batch has many records, and calls begun before may end late.
            if probed:
                self._wait = min(self._wait * 2, self._longest)
                self._until = self._clock() + self._wait
        elif len(self._failed) >= self._records:
            self._until = self._clock() + self._wait
