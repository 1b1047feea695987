"""How fast work goes on, and when it will be done at that pace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

MEMORY_SECONDS = 30.0
"""The pace is that of about the last half minute: older work weighs less and less."""


class Pace:
    """The pace of one count that grows. `per_second` is 0 before the second look."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[float, float] | None = None
        self._began = 0.0
        self.per_second = 0.0

    def note(self, done: float) -> None:
        """The count as it is now. One that is smaller than before begins anew."""
        now = self._clock()
        if self._seen is None or done < self._seen[1]:
            self._seen, self._began, self.per_second = (now, done), now, 0.0
            return
        elapsed = now - self._seen[0]
        if elapsed <= 0:
            return
        rate = (done - self._seen[1]) / elapsed
        # At first everything seen weighs alike; a young average must not lean on its first value.
        weight = max(1 - math.exp(-elapsed / MEMORY_SECONDS), elapsed / (now - self._began))
        self.per_second += weight * (rate - self.per_second)
        self._seen = (now, done)

    def seconds_for(self, left: float) -> float | None:
        """How long so much more takes, or None where nothing moves."""
        if left <= 0:
            return 0.0
        return left / self.per_second if self.per_second > 0 else None
