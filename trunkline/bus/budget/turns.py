"""Whose turn it is among the pipelines of one worker on one account: by weight, and nobody starves.

Each request moves its pipeline forward by 1/weight; of those who wait, the one that is furthest behind goes first. Who waits is
woken in that order, and loses its turn if it does not take it at once.
"""

from __future__ import annotations

from collections.abc import Callable

PATIENCE = 0.1
"""Seconds that a turn is kept for a pipeline that was woken."""


class Turn:
    """One pipeline's place."""

    def __init__(self, weight: int) -> None:
        self.weight = weight
        self.done = 0.0
        self.asked_at = -1e9
        """When it was told to wait last; long ago once it went."""
        self.woken_at: float | None = None
        self.active_at = -1e9
        self.opened: list[Callable[[], None]] = []

    def wake(self, now: float) -> None:
        """Tells it to look again."""
        if self.woken_at is None:
            self.woken_at = now
        for opened in list(self.opened):
            opened()


class Turns:
    """The pipelines of one account on one worker."""

    def __init__(self) -> None:
        self._turns: dict[str, Turn] = {}
        self._front = 0.0

    def of(self, pipeline: str, weight: int) -> Turn:
        """The place of a pipeline."""
        turn = self._turns.get(pipeline)
        if turn is None:
            turn = self._turns[pipeline] = Turn(weight)
        turn.weight = weight
        return turn

    def first(self, mine: Turn, now: float) -> Turn:
        """Who goes first: `mine`, or one that waits and is further behind."""
        if len(self._turns) == 1:
            return mine
        behind = max(mine.done, self._front)
        best = mine
        for turn in self.waiting(now):
            if turn is not mine and max(turn.done, self._front) < behind:
                best, behind = turn, max(turn.done, self._front)
        return best

    def waits(self, turn: Turn, now: float) -> None:
        """It was told to wait."""
        turn.asked_at = turn.active_at = now
        turn.woken_at = None

    def goes(self, turn: Turn, now: float) -> None:
        """A request of it begins."""
        # Who was away does not catch up on what it did not want.
        turn.done = max(turn.done, self._front) + 1.0 / turn.weight
        self._front = max(self._front, turn.done - 1.0 / turn.weight)
        turn.active_at = now
        turn.asked_at = -1e9
        turn.woken_at = None

    def waiting(self, now: float) -> list[Turn]:
        """Who waits, the furthest behind first."""
        found = [
            turn
            for turn in self._turns.values()
            if turn.asked_at > now - 6.0 and turn.opened and (turn.woken_at is None or now < turn.woken_at + PATIENCE)
        ]
        return sorted(found, key=lambda turn: turn.done)

    def wake(self, now: float) -> None:
        """Tells everyone who waits to look again, the furthest behind first."""
        for turn in self.waiting(now):
            turn.wake(now)

    def weight(self, now: float, seconds: float) -> int:
        """The weight of all pipelines that wanted something lately; at least 1."""
        return max(1, sum(turn.weight for turn in self._turns.values() if turn.active_at > now - seconds))

    def names(self, now: float) -> list[str]:
        """The pipelines that wait."""
        waiting = self.waiting(now)
        return sorted(name for name, turn in self._turns.items() if turn in waiting)
