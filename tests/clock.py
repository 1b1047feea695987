"""Time that passes when a test says so."""

from __future__ import annotations


class Clock:
    """A clock that a test sets: to be called, or in the place of the module `time`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    time = monotonic = __call__
