"""One worker's side of an account: it claims slices ahead of need, keeps to them, and gives back what it does not use.

Runs on the event loop; knows no Kafka. `heard` is told of every claim in the order of the log; what `write` writes comes back there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.bus.budget.claim import Claim, Limits, Statement
from trunkline.bus.budget.planning import Planner
from trunkline.bus.budget.spending import Short, Spending
from trunkline.bus.budget.standing import LATE, SKEW, Granted, Standing
from trunkline.bus.budget.turns import Turn, Turns
from trunkline.core.quota import Notice

SLICE = 5.0
"""Seconds that a slice lasts from when it was claimed."""
RENEW = 1.5
"""A slice that is in use is claimed again after so many seconds."""
TICK = 0.25
EAGER = 0.05
PATIENT = 1.5
"""Who is short asks again after so many seconds: soon at first, and less often as long as there is nothing to get."""
ANSWER = 2.0
"""A claim that was not heard after so many seconds is taken to be lost."""
IDLE = 3.0
"""Who wanted nothing for so many seconds gives back what it has."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who claims: the worker, and which of its runs."""

    worker: str
    run: str


@dataclass(frozen=True, slots=True)
class _Pending:
    """A claim that has not come back: when it was written, and how many calls at once we mean to come down to."""

    begun: float
    claim: Claim
    concurrent: int


class Account:
    """A worker's side of one account."""

    def __init__(
        self,
        name: str,
        who: Identity,
        write: Callable[[Claim], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        engage: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.standing = Standing()
        self.turns = Turns()
        self.limits = Limits()
        self.timeout = 0.0
        self.synced = False
        self._who = who
        self._write = write
        self._clock = clock
        self._engage = engage
        self._spending = Spending()
        self._planner = Planner(who.worker, self._spending)
        self._pending: dict[int, _Pending] = {}
        self._seq = 0
        self._claimed_at = -math.inf
        self._short: dict[Short, float] = {}
        self._wanted_at = -math.inf
        self._released = True
        self._held_until = -math.inf
        self._notice: Notice | None = None
        """Why it is held."""
        self._news: Statement | None = None
        """What the account said and the log does not have yet."""
        self._counted = False
        self._again_after = EAGER
        self._low = 0
        self._broker_at = (0.0, 0.0)
        self._timed = False
        """Whether the brokers' clock is known: a claim of this run has come back."""

    # --- what deliveries ask and tell ---

    @property
    def active(self) -> bool:
        """Whether anything is limited. What is not costs nothing."""
        return self._limited() or self._news is not None or self._held_until > self._clock()

    @property
    def busy(self) -> bool:
        """Whether `tick` must be called: something is wanted, or not given back yet."""
        return self.active and not (self._released and self._clock() > self._wanted_at + IDLE)

    def delay(self, turn: Turn) -> float:
        """Seconds until a call may begin; 0.0 for now. Who has to wait is woken when it is its turn, also before that."""
        now = self._clock()
        if now < self._held_until:
            self.turns.waits(turn, now)
            return self._held_until - now
        if not self._limited():
            return 0.0
        self._wanted_at = now
        if not self.synced:
            self.turns.waits(turn, now)
            return 1.0
        wait, short = self._spending.wait(now)
        if wait > 0.0:
            if short is not None:
                self._short[short] = now
            self.turns.waits(turn, now)
            self.tick()
            return min(wait, 1.0)
        first = self.turns.first(turn, now)
        if first is turn:
            return 0.0
        self.turns.waits(turn, now)
        first.wake(now)
        return 0.02

    def begin(self, turn: Turn) -> None:
        """A call begins."""
        now = self._clock()
        self._wanted_at = now
        self._spending.begin(now)
        self.turns.goes(turn, now)
        if self._spending.allow is not None and self._spending.allow - self._spending.spent <= self._low:
            self._short["requests"] = now
            self.tick()

    def end(self) -> None:
        """A call ended."""
        now = self._clock()
        self._spending.end(now)
        if self._spending.concurrent is not None:
            self.turns.wake(now)

    def besides(self, requests: int) -> None:
        """A call made so many requests besides its first."""
        self._spending.besides(requests, self._clock())

    def hold(self, seconds: float, notice: Notice | None = None) -> None:
        """The account asked for a pause: nobody sends anything before it is over, on no worker."""
        now = self._clock()
        if now + seconds <= self._held_until + SKEW:
            return  # what came back from calls begun before it says nothing new
        self._held_until, self._notice = now + seconds, notice
        self._claim(now, hold=seconds)

    def state(self, used: int, limit: int, reset: float | None, name: str = "") -> None:
        """The account said how much of its day is used."""
        now = self._clock()
        mine = self.standing.holders.get(self._who.worker)
        others = self.standing.total(self.broker_time(now)) - (mine.spent if mine is not None else 0)
        total = max(0, others) + self._spending.spent - self._spending.in_flight
        self._news = Statement(used, limit, reset, total, name)
        self._wanted_at = now
        if not self._counted:
            self._claim(now)

    @property
    def now(self) -> float:
        """The brokers' time."""
        return self.broker_time(self._clock())

    def waits(self, turn: Turn) -> bool:
        """Whether a pipeline waits for this budget now."""
        return turn in self.turns.waiting(self._clock())

    @property
    def waiting(self) -> list[str]:
        """The pipelines that wait for this budget now."""
        return self.turns.names(self._clock())

    def wait(self) -> float:
        """Seconds until the account can be used again, as far as that can be said; 0.0 where nothing keeps it."""
        now = self._clock()
        wait, short = self._spending.wait(now) if self._limited() else (0.0, None)
        if math.isinf(wait):
            wait = self.standing.refills_in(self.now) if short == "requests" else TICK
        return max(self._held_until - now, wait)

    def reason(self) -> Notice:
        """Why the account can't be used now: what it said itself, else which of the manifest's limits is used up."""
        now = self._clock()
        if now < self._held_until:
            return self._notice or Notice("budget.held", "the account asked for a pause")
        short = self._spending.wait(now)[1] if self._limited() else None
        if short == "requests":
            return self._used_up()
        limit = {"second": "per_second", "concurrent": "concurrent"}.get(short or "")
        at_most = getattr(self.limits, limit) if limit is not None else None
        return Notice("budget.exhausted", f"its limit of {at_most} is used up ({limit})", limit)

    def _used_up(self) -> Notice:
        """Which length of time has no requests left."""
        left = self.standing.left(self.now)
        said = self.standing.said(self.now)
        if left.get("day", 1) <= 0 and said is not None:
            limit = said.name or "requests of a day"
            return Notice(
                "budget.exhausted", f"the account says that {said.used} of {said.limit} {limit} are used", limit
            )
        limit = "per_day" if left.get("day", 1) <= 0 else "per_minute"
        return Notice("budget.exhausted", f"its limit of {getattr(self.limits, limit)} is used up ({limit})", limit)

    # --- the log ---

    def heard(self, claim: Claim, at: float, received: float) -> None:
        """The next claim of the log: appended at `at` by the brokers' clock, received at `received` by ours."""
        self._broker_at = (at, received)
        granted = self.standing.apply(claim, at)
        if self.synced:
            now = self._clock()
            if received + self.standing.held_until - at > self._held_until:
                self._held_until, self._notice = received + self.standing.held_until - at, self.standing.notice
            self._timed = self._timed or claim.run == self._who.run
            self._refit(now)
            if claim.run == self._who.run and claim.seq in self._pending:
                self._receive(claim, granted)
            self.turns.wake(now)
            if self._pinched(now):
                self.tick()

    def begin_at(self, received: float) -> None:
        """The log was read to its end: from now on there can be claims."""
        self.synced = True
        mine = self.standing.holders.get(self._who.worker)
        if mine is not None:
            # An earlier run of this worker: whatever it might have spent counts as spent, and with each of its tokens just now.
            self._spending.spent = max(mine.spent, mine.allow)
            self._planner.resume(mine)
            self._spending.close_until(received + LATE + 1.0)
        now = self._clock()
        self._refit(now)
        # A pause in the log may be over long since: the way of a claim tells what time it is.
        paused = self.standing.held_until > self._broker_at[0]
        if paused or self._held_until > now or self._news is not None:
            self._claim(now, hold=max(0.0, self._held_until - now))
        self.turns.wake(now)

    def tick(self) -> None:
        """Claims what is due: called every `TICK` seconds while `busy`, and when something is short."""
        now = self._clock()
        if not self.synced or not self.active:
            return
        self._refit(now)
        if self._pending and now < self._claimed_at + ANSWER:
            return
        if now > self._wanted_at + IDLE and self._spending.in_flight == 0:
            if not self._released:
                self._claim(now, release=True)
            return
        due = now >= self._claimed_at + RENEW
        eager = now >= self._claimed_at + self._again_after and any(at > now - TICK for at in self._short.values())
        if now >= self._held_until and (due or eager or self._pinched(now)):
            self._claim(now)

    def release(self) -> None:
        """Gives everything back: the worker ends."""
        if not self._released:
            self._claim(self._clock(), release=True)

    def broker_time(self, now: float) -> float:
        """The brokers' clock, as far as the last record tells."""
        at, received = self._broker_at
        return at + (now - received)

    # --- claims ---

    def _limited(self) -> bool:
        return bool(self.limits) or self._counted

    def _pinched(self, now: float) -> bool:
        """Whether somebody is short of what we have more of than our part."""
        return not self._pending and now >= self._claimed_at + TICK and self._planner.owes(self.standing)

    def _claim(self, now: float, *, hold: float = 0.0, release: bool = False) -> None:
        """Writes a claim. What it gives up is given up at once; what it takes counts when it comes back."""
        if not self.synced:
            self._engage()
            return  # said when the log was read: until then nobody knows what was spent
        release = release or not (self._limited() or self._news is not None)
        self._seq += 1
        at = self.broker_time(now)
        self.standing.limits = self.limits
        short = {one for one, when in self._short.items() if when > now - RENEW}
        plan = self._planner.greeting()
        if self._timed:
            plan = self._planner.plan(self.standing, at, short, SLICE, release=release)
        claim = Claim(
            self.name,
            self._who.worker,
            self._who.run,
            self._seq,
            self.limits,
            SLICE,
            self.timeout,
            weight=self.turns.weight(now, IDLE),
            waiting=len(self.turns.waiting(now)),
            want=plan.want,
            second=plan.second,
            # What is under way stays under way: of that no more than has ended can be given up.
            concurrent=max(plan.concurrent, min(self._spending.in_flight, self._spending.concurrent_granted)),
            spent=self._spending.spent,
            allow=plan.allow,
            day=plan.day,
            before=plan.before,
            hold=hold,
            notice=self._notice if hold else None,
            said=self._news,
        )
        self._news = None
        self._low = max(1, (plan.allow - self._spending.spent) // 4)
        spending = self._spending
        if spending.second is not None:
            spending.second = min(spending.second, claim.second)
        if spending.concurrent is not None:
            spending.concurrent = min(spending.concurrent, plan.concurrent)
            spending.concurrent_granted = min(spending.concurrent_granted, claim.concurrent)
        if spending.allow is not None:
            spending.allow = min(spending.allow, claim.allow)
        woken = self._released and not release
        self._claimed_at = now
        self._released = release
        self._pending[claim.seq] = _Pending(now, claim, plan.concurrent)
        self._write(claim)
        if woken:
            self._engage()

    def _receive(self, claim: Claim, granted: Granted) -> None:
        """A claim of ours came back. What was given up since then stays given up."""
        mine = self._pending.pop(claim.seq)
        self._pending = {seq: one for seq, one in self._pending.items() if seq > claim.seq}
        since = [claim, *(one.claim for one in self._pending.values())]
        spending, ends = self._spending, mine.begun + claim.lease
        before = (spending.second or 0, spending.concurrent or 0, spending.allow or 0)
        if granted.second and spending.second is not None:
            spending.second, spending.second_ends = min(one.second for one in since), ends
        if granted.concurrent and spending.concurrent is not None:
            spending.concurrent = min(one.concurrent for one in (mine, *self._pending.values()))
            spending.concurrent_granted, spending.concurrent_ends = min(one.concurrent for one in since), ends
        if granted.requests and spending.allow is not None:
            spending.allow, spending.allow_ends = min(one.allow for one in since), ends
        after = (spending.second or 0, spending.concurrent or 0, spending.allow or 0)
        more = any(new > old for new, old in zip(after, before, strict=True))
        self._again_after = EAGER if more else min(2 * self._again_after, PATIENT)

    def _refit(self, now: float) -> None:
        """Limits came or went: what is limited needs a slice, what is not needs none."""
        spending, limits = self._spending, self.limits
        spending.second = None if limits.per_second is None else spending.second or 0
        spending.concurrent = None if limits.concurrent is None else spending.concurrent or 0
        self._counted = self.standing.said(self.broker_time(now)) is not None
        if not self._counted and limits.per_minute is None and limits.per_day is None:
            spending.allow = None
        elif spending.allow is None:
            spending.allow = spending.spent
