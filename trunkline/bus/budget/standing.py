"""How an account stands by the log of claims: who holds what, and what room is left. The same for every reader; no clock of its own.

All times are the broker's, as it stamps records when it appends them (`LogAppendTime`), in seconds.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from trunkline.bus.budget.claim import Claim, Limits, Statement
from trunkline.core.quota import Notice

LATE = 1.0
"""A request reaches the account within so many seconds after it began, or before its answer, whichever is sooner."""
SKEW = 0.5
"""How far the brokers' clock may jump (a step of the clock, another leader) before slices could overlap."""
COOLING = LATE + 1.0 + SKEW
"""After a share of `per_second` was given up, so long it counts: what was sent with it last is counted by the account for a second."""
MINUTE = 60.0 + LATE + SKEW
DAY = 86_400.0
DAY_SKEW = 60.0
"""How far the account's midnight may be from the brokers'."""
BELIEVED = 60.0
"""Seconds that a statement without a reset is believed: the account may count a moving window, and is asked again after it."""


@dataclass(slots=True)
class Holder:
    """One worker's part."""

    claim: Claim
    at: float
    second: int = 0
    second_ends: float = -math.inf
    cooling: list[tuple[float, int]] = field(default_factory=list)
    concurrent: int = 0
    concurrent_ends: float = -math.inf
    allow: int = 0
    allow_ends: float = -math.inf
    history: deque[tuple[float, int]] = field(default_factory=deque)
    """When it had begun how many requests: at least one entry older than a minute, where there is one."""

    @property
    def live_until(self) -> float:
        """When its last word lapses."""
        return self.at + self.claim.lease

    @property
    def spent(self) -> int:
        """How many requests it had begun at its last word."""
        return self.claim.spent

    def second_at(self, now: float) -> int:
        """The share of `per_second` that it may still be using, or that still counts."""
        held = self.second if now < self.second_ends + COOLING else 0
        return max([held, *(share for until, share in self.cooling if now < until)])

    def take_second(self, share: int, now: float, lease: float) -> None:
        """A share from now on; the former one cools down."""
        self.cooling = [(until, old) for until, old in self.cooling if now < until]
        if self.second > share and now < self.second_ends + COOLING:
            self.cooling.append((min(self.second_ends, now) + COOLING, self.second))
        self.second, self.second_ends = share, now + lease

    def concurrent_at(self, now: float) -> int:
        """The calls that it may still have under way."""
        return self.concurrent if now < self.concurrent_ends + self.claim.timeout + SKEW else 0

    def minute_at(self, now: float) -> int:
        """The most requests that the account may have counted, or may yet count, in any minute that ends from now on."""
        if now > self.allow_ends + MINUTE:
            return 0
        return max(0, self.allow - self.spent_by(now - MINUTE))

    def day_at(self, day: float) -> int:
        """The most requests that it may have begun, or may yet begin, in the day that starts at `day`."""
        if self.claim.day >= day:
            return max(0, self.allow - self.claim.before)
        if self.allow_ends < day - DAY_SKEW:
            return 0
        return max(0, self.allow - self.spent_by(day - DAY_SKEW))

    def spent_by(self, then: float) -> int:
        """How many requests it had begun at least by a moment of the last minutes."""
        return next((spent for at, spent in reversed(self.history) if at <= then), self.history[0][1])

    def note(self, claim: Claim, at: float) -> None:
        """Takes down what a claim tells, whether or not it holds."""
        self.claim, self.at = claim, at
        self.history.append((at, claim.spent))
        while len(self.history) > 1 and self.history[1][0] <= at - MINUTE:
            self.history.popleft()


@dataclass(frozen=True, slots=True)
class Granted:
    """Which parts of a claim hold."""

    second: bool
    concurrent: bool
    requests: bool


def day_of(now: float) -> float:
    """The start of the UTC day that requests of this moment count for; a day opens late by `DAY_SKEW`."""
    return math.floor((now - DAY_SKEW) / DAY) * DAY


class Standing:
    """One account, by the log."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.holders: dict[str, Holder] = {}
        self.held_until = -math.inf
        self.notice: Notice | None = None
        """Why the account is held, as it said itself."""
        self._said: tuple[float, Statement] | None = None

    def apply(self, claim: Claim, at: float) -> Granted:
        """Takes the next record of the log, and says what of it holds."""
        self.limits = claim.limits
        holder = self.holders.get(claim.worker)
        if holder is None:
            holder = self.holders[claim.worker] = Holder(claim, at, history=deque([(at, claim.spent)]))
        if claim.hold > 0 and at + claim.hold > self.held_until:
            self.held_until, self.notice = at + claim.hold, claim.notice
        if claim.said is not None:
            self._said = (at, claim.said)
        # I17: what holds of a claim never makes the sum of all slices exceed a limit.
        granted = Granted(
            self._second(holder, claim, at), self._concurrent(holder, claim, at), self._requests(holder, claim, at)
        )
        holder.note(claim, at)
        return granted

    def others(self, worker: str) -> Iterator[Holder]:
        """The parts of everyone else."""
        return (holder for name, holder in self.holders.items() if name != worker)

    def second_room(self, worker: str, now: float) -> int | None:
        """The share of `per_second` that `worker` can have; None without that limit."""
        if self.limits.per_second is None:
            return None
        return self.limits.per_second - sum(holder.second_at(now) for holder in self.others(worker))

    def concurrent_room(self, worker: str, now: float) -> int | None:
        """The calls at once that `worker` can have; None without that limit."""
        if self.limits.concurrent is None:
            return None
        return self.limits.concurrent - sum(holder.concurrent_at(now) for holder in self.others(worker))

    def said(self, now: float) -> Statement | None:
        """What the account itself said, as long as that counts."""
        if self._said is None:
            return None
        at, statement = self._said
        return statement if now < at + (BELIEVED if statement.reset is None else statement.reset) else None

    def total(self, now: float) -> int:
        """All requests begun by anyone, as far as the log tells: of who may still go on what it told, else all it might have."""
        return sum(
            holder.spent if now < holder.allow_ends + LATE else max(holder.spent, holder.allow)
            for holder in self.holders.values()
        )

    def left(self, now: float) -> dict[str, int]:
        """The requests that nobody may begin yet, of each length of time that is limited: `minute` and `day`."""
        found = {}
        if self.limits.per_minute is not None:
            found["minute"] = self.limits.per_minute - sum(one.minute_at(now) for one in self.holders.values())
        statement = self.said(now)
        if statement is not None:
            most = statement.limit if self.limits.per_day is None else min(statement.limit, self.limits.per_day)
            since = sum(max(holder.spent, holder.allow) for holder in self.holders.values()) - statement.total
            found["day"] = most - statement.used - max(0, since)
        elif self.limits.per_day is not None:
            day = day_of(now)
            found["day"] = self.limits.per_day - sum(one.day_at(day) for one in self.holders.values())
        return found

    def refills_in(self, now: float) -> float:
        """Seconds until requests that are used up come back, at the latest; 0.0 where some are left."""
        left = self.left(now)
        if left.get("day", 1) <= 0:
            said = self._said
            if said is not None and self.said(now) is not None:
                return said[0] + (BELIEVED if said[1].reset is None else said[1].reset) - now
            return day_of(now) + DAY + DAY_SKEW - now
        return MINUTE if left.get("minute", 1) <= 0 else 0.0

    def _second(self, holder: Holder, claim: Claim, at: float) -> bool:
        room = self.second_room(claim.worker, at)
        if room is not None and not claim.second <= max(room, holder.second_at(at)):
            return False
        holder.take_second(claim.second, at, claim.lease)
        return True

    def _concurrent(self, holder: Holder, claim: Claim, at: float) -> bool:
        room = self.concurrent_room(claim.worker, at)
        if room is not None and not claim.concurrent <= max(room, holder.concurrent_at(at)):
            return False
        holder.concurrent, holder.concurrent_ends = claim.concurrent, at + claim.lease
        return True

    def _requests(self, holder: Holder, claim: Claim, at: float) -> bool:
        """Tried first, then judged: what is left counts the holder with its new allowance."""
        before = holder.allow, holder.allow_ends, holder.claim
        holder.allow, holder.allow_ends, holder.claim = claim.allow, at + claim.lease, claim
        if claim.allow > max(before[0], claim.spent) and any(left < 0 for left in self.left(at).values()):
            holder.allow, holder.allow_ends, holder.claim = before
            return False
        return True
