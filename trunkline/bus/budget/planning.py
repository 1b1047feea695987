"""What a worker claims next: its fair part of what it could use, within the room that the others leave."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass

from trunkline.bus.budget.claim import Want
from trunkline.bus.budget.sharing import Demand, shares
from trunkline.bus.budget.spending import Short, Spending
from trunkline.bus.budget.standing import DAY_SKEW, Holder, Standing, day_of

ROTATION = 10.0
"""Seconds that a turn lasts where there are fewer requests than workers."""
CHUNK = 10
"""Requests of a longer limit that a worker claims ahead at least."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The figures of the next claim; see `Claim`."""

    want: Want
    second: int
    concurrent: int
    allow: int
    day: float
    before: int


class Planner:
    """Plans the claims of one worker on one account."""

    def __init__(self, worker: str, spending: Spending) -> None:
        self._worker = worker
        self._spending = spending
        self._day = 0.0
        self._before = 0
        self._spent: deque[tuple[float, int]] = deque()
        self._peaks = (0, 0)

    def resume(self, mine: Holder) -> None:
        """An earlier run of this worker counted so far."""
        self._day, self._before = mine.claim.day, mine.claim.before
        self._spent.extend(mine.history)

    def owes(self, standing: Standing) -> bool:
        """Whether somebody is short of something that we hold more of than our part."""
        mine = standing.holders.get(self._worker)
        if mine is None:
            return False
        limits = standing.limits
        for limit, want, held in (
            (limits.per_second, _want_second, _held_second),
            (limits.concurrent, _want_concurrent, _held_concurrent),
        ):
            if limit is None or not _somebody_short(standing, self._worker, mine.at, want, held):
                continue
            if held(mine) > self._part(limit, standing, mine.at, want, want(mine)):
                return True
        return False

    def greeting(self) -> Plan:
        """The first claim of a run, which takes nothing: its way through the log tells the brokers' time."""
        return Plan(Want(), 0, 0, self._spending.spent, self._day, self._before)

    def plan(
        self, standing: Standing, at: float, short: Collection[Short], lease: float, *, release: bool = False
    ) -> Plan:
        """The next claim, at `at` by the brokers' clock."""
        spending = self._spending
        self._count_day(at)
        if release:
            return Plan(Want(), 0, 0, spending.spent, self._day, self._before)
        want = self._want(standing, at, short, lease)
        second = self._share(
            standing, at, standing.limits.per_second, standing.second_room, want.second, _want_second, _held_second
        )
        concurrent = self._share(
            standing,
            at,
            standing.limits.concurrent,
            standing.concurrent_room,
            want.concurrent,
            _want_concurrent,
            _held_concurrent,
        )
        return Plan(want, second, concurrent, self._allowance(standing, at, want.requests), self._day, self._before)

    def _want(self, standing: Standing, at: float, short: Collection[Short], lease: float) -> Want:
        """What could be used: all of what is short, else somewhat more than what was used lately."""
        spending, limits = self._spending, standing.limits
        busy, flights = max(self._peaks[0], spending.most_busy), max(self._peaks[1], spending.most_in_flight)
        self._peaks = (spending.most_busy, spending.most_in_flight)
        spending.most_busy = spending.most_in_flight = 0
        lately = spending.spent - next((spent for when, spent in self._spent if when > at - lease), spending.spent)
        left = min(standing.left(at).values(), default=None)
        return Want(
            _wanted(limits.per_second, busy, "second" in short),
            _wanted(limits.concurrent, flights, "concurrent" in short),
            max(CHUNK, 2 * lately, left // 100) if left is not None else 0,
        )

    def _share(
        self,
        standing: Standing,
        at: float,
        limit: int | None,
        room_of: Callable[[str, float], int | None],
        wanted: int,
        want: Callable[[Holder], int],
        held: Callable[[Holder], int],
    ) -> int:
        """Our part of a limit, as far as there is room. What nobody else is short of is kept."""
        room = room_of(self._worker, at)
        if limit is None or room is None:
            return 0
        part = min(self._part(limit, standing, at, want, wanted), max(room, 0))
        mine = standing.holders.get(self._worker)
        if mine is not None and not _somebody_short(standing, self._worker, at, want, held):
            part = max(part, min(held(mine), max(room, 0)))
        return part

    def _part(self, limit: int, standing: Standing, at: float, want: Callable[[Holder], int], wanted: int) -> int:
        mine = standing.holders.get(self._worker)
        demands = {
            name: Demand(want(holder), holder.claim.weight)
            for name, holder in standing.holders.items()
            if at < holder.live_until
        }
        demands[self._worker] = Demand(wanted, mine.claim.weight if mine is not None else 1)
        return shares(limit, demands, int(at // ROTATION))[self._worker]

    def _allowance(self, standing: Standing, at: float, requests: int) -> int:
        """How many requests we may have begun at the end of the slice: more by what we want, and by our part of what is left."""
        spending = self._spending
        left = standing.left(at)
        if not left:
            return spending.spent
        mine = standing.holders.get(self._worker)
        reserved = max(0, mine.allow - spending.spent) if mine is not None else 0
        room = min(left.values()) + reserved
        demands = {
            name: Demand(holder.claim.want.requests, holder.claim.weight)
            for name, holder in standing.holders.items()
            if at < holder.live_until and name != self._worker
        }
        demands[self._worker] = Demand(requests, mine.claim.weight if mine is not None else 1)
        part = shares(max(room, 0), demands, int(at))[self._worker]
        return spending.spent + min(requests, part)

    def _count_day(self, at: float) -> None:
        """Keeps what was spent when the day began: as of a moment before it, by which the account's midnight may be early."""
        day = day_of(at)
        if day != self._day:
            known = next((spent for when, spent in reversed(self._spent) if when <= day - DAY_SKEW), None)
            if known is None:
                # Nothing is remembered of before: what is remembered began with all of that.
                known = self._spent[0][1] if self._spent else self._spending.spent
            self._day, self._before = day, known
        self._spent.append((at, self._spending.spent))
        while len(self._spent) > 1 and self._spent[1][0] < at - 2 * DAY_SKEW - 1.0:
            self._spent.popleft()


def _wanted(limit: int | None, peak: int, short: bool) -> int:
    if limit is None:
        return 0
    return limit if short else min(limit, math.ceil(peak * 1.25) + 1)


def _want_second(holder: Holder) -> int:
    return holder.claim.want.second


def _want_concurrent(holder: Holder) -> int:
    return holder.claim.want.concurrent


def _held_second(holder: Holder) -> int:
    return holder.second


def _held_concurrent(holder: Holder) -> int:
    return holder.concurrent


def _somebody_short(
    standing: Standing, worker: str, at: float, want: Callable[[Holder], int], held: Callable[[Holder], int]
) -> bool:
    """Whether another worker that lives wants more than it has."""
    return any(at < holder.live_until and want(holder) > held(holder) for holder in standing.others(worker))
