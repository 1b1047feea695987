"""How fast work goes on, and when it will be done at that pace."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

MEMORY_SECONDS = 30.0
"""The pace is that of about the last half minute: older work weighs less and less."""
STILL_SECONDS = 10.0
"""Work that has not moved for so long stands still, and then has no pace."""
STEPS = 3.0
"""What moves in steps, such as a file a minute, stands still after so many of its usual steps, which count up to MEMORY_SECONDS."""


class Pace:
    """The pace of one count that grows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[float, float] | None = None
        self._began = 0.0
        self._moved = 0.0
        self._step = 0.0
        self._average = 0.0

    def note(self, done: float) -> None:
        """The count as it is now. One that is smaller than before begins anew."""
        now = self._clock()
        if self._seen is None or done < self._seen[1]:
            self._seen, self._began, self._moved, self._step, self._average = (now, done), now, now, 0.0, 0.0
            return
        elapsed = now - self._seen[0]
        if elapsed <= 0:
            return
        rate = (done - self._seen[1]) / elapsed
        # At first everything seen weighs alike; a young average must not lean on its first value.
        weight = max(1 - math.exp(-elapsed / MEMORY_SECONDS), elapsed / (now - self._began))
        self._average += weight * (rate - self._average)
        if rate:
            self._step += (min(now - self._moved, MEMORY_SECONDS) - self._step) / 2
            self._moved = now
        self._seen = (now, done)

    @property
    def per_second(self) -> float:
        """The pace now: 0 before the second look, and where nothing has moved for longer than it usually does."""
        still = self._clock() - self._moved > max(STILL_SECONDS, STEPS * self._step)
        return 0.0 if still else self._average

    def seconds_for(self, left: float) -> float | None:
        """How long so much more takes, or None where nothing moves."""
        if left <= 0:
            return 0.0
        pace = self.per_second
        return left / pace if pace > 0 else None
