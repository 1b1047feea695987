"""A world on a fake clock: workers with clocks of their own, a log that orders their claims, and an account that counts requests.

Delays are drawn from a seeded generator; workers are killed, started again, and cut off from the log.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from trunkline.bus.budget.account import TICK, Account, Identity
from trunkline.bus.budget.claim import Claim, Limits
from trunkline.bus.budget.sharing import WEIGHTS, Priority
from trunkline.bus.budget.turns import Turn

world_timers = itertools.count()
START = 1_790_000_000.0


@dataclass
class Load:
    """A pipeline that would always have so many calls under way."""

    name: str
    priority: Priority = "normal"
    calls: int = 1000
    sent: int = 0


@dataclass
class Call:
    """A call as the account saw it."""

    pipeline: str
    worker: str
    arrived: float
    answered: float


class Worker:
    """A worker, from its start to its end."""

    def __init__(self, world: World, name: str, loads: list[Load], run: int) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.cut_until = 0.0
        self.skew = world.rng.uniform(-3600, 3600)
        self.loads = loads
        self.under_way = dict.fromkeys([load.name for load in loads], 0)
        self.heard_to = 0
        self.hears_at = 0.0
        self.writes_at = 0.0
        self.account = Account(
            "crm",
            Identity(name, f"{name}-{run}"),
            self._write,
            clock=lambda: world.now + self.skew,
        )
        self.account.limits = world.limits
        self.account.timeout = world.timeout
        self.turns: dict[str, Turn] = {}
        self.timers: dict[str, int] = {}
        for load in loads:
            turn = self.turns[load.name] = self.account.turns.of(load.name, WEIGHTS[load.priority])
            turn.opened.append(partial(self._woken, load))
        world.after(world.latency(), self.alive_only(self._catch_up))
        world.after(TICK, self.alive_only(self._tick))

    def _timed(self, load: Load, timer: int) -> None:
        if self.timers[load.name] == timer:
            self._pump(load)

    def _woken(self, load: Load) -> None:
        self.world.after(0, self.alive_only(lambda: self._pump(load)))

    def alive_only(self, function: Callable[[], None]) -> Callable[[], None]:
        return lambda: function() if self.alive else None

    def _catch_up(self) -> None:
        """Reads the log to its present end."""
        for claim, at in self.world.log:
            self.account.heard(claim, at, self.world.now + self.skew)
        self.heard_to = len(self.world.log)
        self.account.begin_at(self.world.now + self.skew)
        for load in self.loads:
            self._pump(load)

    def _write(self, claim: Claim) -> None:
        world = self.world
        self.writes_at = max(self.writes_at, self.cut_until, world.now + world.latency())
        # What is on its way to the broker is appended also after its writer died.
        world.after(self.writes_at - world.now, lambda: world.append(claim))

    def told(self) -> None:
        """There is something new in the log."""
        world = self.world
        self.hears_at = max(self.hears_at, self.cut_until, world.now + world.latency())
        world.after(self.hears_at - world.now, self.alive_only(self._hear))

    def _hear(self) -> None:
        if self.account.synced and self.heard_to < len(self.world.log):
            claim, at = self.world.log[self.heard_to]
            self.heard_to += 1
            self.account.heard(claim, at, self.world.now + self.skew)

    def _tick(self) -> None:
        if self.account.busy:
            self.account.tick()
        self.world.after(TICK, self.alive_only(self._tick))

    def _pump(self, load: Load) -> None:
        turn = self.turns[load.name]
        while self.under_way[load.name] < load.calls:
            wait = self.account.delay(turn)
            if wait > 0:
                self.timers[load.name] = timer = next(world_timers)
                self.world.after(wait + 0.001, self.alive_only(partial(self._timed, load, timer)))
                return
            self.account.begin(turn)
            self.under_way[load.name] += 1
            load.sent += 1
            self._call(load)

    def _call(self, load: Load) -> None:
        world = self.world
        arrived = world.now + world.rng.uniform(0.0, world.way)
        answered = arrived + world.rng.uniform(0.0, world.work)
        call = Call(load.name, self.name, arrived, answered)
        world.calls.append(call)

        def end() -> None:
            self.under_way[load.name] -= 1
            self.account.end()
            held = world.answer(call)
            if held:
                self.account.hold(held)
            self._pump(load)

        world.after(answered + world.rng.uniform(0.0, world.way) - world.now, self.alive_only(end))


@dataclass
class World:
    """The broker, the account and the clock."""

    seed: int
    limits: Limits
    way: float = 0.3
    work: float = 0.3
    slow: float = 0.1
    timeout: float = 5.0
    now: float = 0.0
    log: list[tuple[Claim, float]] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)
    answer: Callable[[Call], float] = field(default=lambda _call: 0.0)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._runs = itertools.count()

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + max(seconds, 0.0), next(self._order), function))

    def latency(self) -> float:
        return self.rng.uniform(0.0, self.slow)

    def append(self, claim: Claim) -> None:
        self.log.append((claim, START + self.now))
        for worker in self.workers.values():
            worker.told()

    def start(self, name: str, *loads: Load) -> Worker:
        worker = self.workers[name] = Worker(self, name, list(loads), next(self._runs))
        return worker

    def kill(self, name: str) -> None:
        self.workers.pop(name).alive = False

    def cut(self, name: str, seconds: float) -> None:
        """Neither the worker's claims nor those of others come through."""
        self.workers[name].cut_until = self.now + seconds

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, function = heapq.heappop(self._events)
            function()
        self.now = until

    # --- what the account counted ---

    def most_in(self, seconds: float) -> int:
        """The most requests that arrived in any length of time, its end left out."""
        arrivals = sorted(call.arrived for call in self.calls)
        first = most = 0
        for place, arrived in enumerate(arrivals):
            while arrived - arrivals[first] >= seconds:
                first += 1
            most = max(most, place - first + 1)
        return most

    def most_at_once(self) -> int:
        """The most requests that the account worked on at one time."""
        changes = sorted([(call.arrived, 1) for call in self.calls] + [(call.answered, -1) for call in self.calls])
        most = level = 0
        for _, change in changes:
            level += change
            most = max(most, level)
        return most
