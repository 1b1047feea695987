"""Calls that must not begin for now: a partition is being given away, or the pipeline ends."""

from __future__ import annotations

import threading


class Freeze:
    """Holds from its first begin until as many ends as begins.

    It begins on another thread than the event loop's, at once, and ends there, later where the loop is busy. By then there may be a
    second reason, which the end of the first must not end.
    """

    __slots__ = ("_lock", "holds")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holds = 0
        """How many reasons there are now. Read from any thread."""

    def begin(self) -> None:
        """Another reason. From any thread."""
        with self._lock:
            self.holds += 1

    def end(self) -> None:
        """One reason less, where there is one."""
        with self._lock:
            self.holds = max(0, self.holds - 1)
