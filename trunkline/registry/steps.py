"""The work that a schema costs, counted in steps: whoever sends one chooses how large and how entangled it is.

A step is one thing looked at: a type, a field, a symbol, an item of a default, a pair of types compared. Everything that walks over a
schema counts its steps, so a bound holds on every machine alike, and a test needs no clock.
"""

from __future__ import annotations

from typing import Final

from trunkline.registry.schema_error import TooCostlyError

MAX_STEPS: Final = 2_000_000
"""The most steps that one schema, or one request to the registry, may take: a few seconds of one processor.

Reading the largest schema that is allowed takes a tenth of it, and so does comparing it with another one of its size.
"""


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


class Steps:
    """Counts the steps of one piece of work. It may be told to end from another thread."""

    __slots__ = ("_abandoned", "_end", "most", "taken")

    def __init__(self, most: int = MAX_STEPS) -> None:
        self.most = most
        self.taken = 0
        self._end = most
        self._abandoned = False

    def take(self, count: int = 1) -> None:
        """Called before the work is done. Raises TooCostlyError, and AbandonedError after `abandon`."""
        self.taken += count
        if self.taken > self._end:
            if self._abandoned:
                raise AbandonedError
            raise TooCostlyError(
                f"judging the schema takes more than {self.most} steps",
                hint="split it: fewer records in a union, smaller defaults, or types of their own that it refers to",
            )

    def abandon(self) -> None:
        """The next step is the last."""
        self._abandoned = True
        self._end = -1
