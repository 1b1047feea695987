"""Schedules on a fake clock: the real offset tracker, deliveries, retries, dead letters and idempotency keys, in any order of events.

Hypothesis draws what comes, what the other system answers, how time passes, and when the partition or the whole worker is lost.
Nothing waits for real time: the event loop's clock jumps from one timer to the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.chaos.checker import Promise, check
from tests.chaos.history import (
    Acknowledged,
    Attempt,
    Committed,
    DeadLetter,
    Effect,
    History,
    Placed,
    Sent,
)
from trunkline.bus.deadletters import Failure, idempotency_key
from trunkline.bus.delivery.delivery import Delivering
from trunkline.bus.delivery.gates import NamedWait
from trunkline.bus.delivery.offsets import OffsetTracker
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.intake import Partition
from trunkline.bus.ledger import Ledger, Outcome
from trunkline.core.contracts import Batch, Promises, Sink
from trunkline.core.errors import TrunklineError
from trunkline.core.event import Event
from trunkline.core.manifests.models import DeliverySpec
from trunkline.core.settings import Settings
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

ROUTE, DOOR, TOPIC = "sink", "topic", "events"
PASSING = ("retry", "after", "lost answer", "no answer", "slow", "hang")
LASTING = ("ok", "ok", "ok", "dead", "retry")
VERDICTS: dict[str, Verdict] = {
    "retry": Retry("busy"),
    "after": Retry("busy", after=1.5),
    "dead": Dead("no such thing", code="test.dead"),
    "lost answer": Unknown("the answer was lost"),
    "no answer": Unknown("no answer came"),
}
STEPS = 30


class FakeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time goes on only when `advance` says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        super().__init__()

    def time(self) -> float:
        """The fake time."""
        return self.now

    def quiet(self) -> None:
        """Runs everything that can run at this moment."""
        while True:
            self.run_until_complete(_tick())
            if not self._ready:  # type: ignore[attr-defined]
                return

    def advance(self, seconds: float) -> None:
        """Lets time pass, from timer to timer."""
        end = self.now + seconds
        self.quiet()
        while (due := self._next_timer()) is not None and due <= end:
            self.now = max(self.now, due)
            self.quiet()
        self.now = end
        self.quiet()

    def end(self) -> None:
        """Ends as a killed process does: what was under way is gone, and no timer runs out any more."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.wait(tasks))
        self.close()

    def _next_timer(self) -> float | None:
        timers = [one.when() for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        return min(timers, default=None)


async def _tick() -> None:
    await asyncio.sleep(0)


@dataclass
class OtherSystem:
    """What the sink calls: answers by plan, and keeps effects by idempotency key."""

    history: History
    plans: dict[int, list[str]] = field(default_factory=dict)
    calls: dict[int, int] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    doomed: set[int] = field(default_factory=set)
    """Records that became dead letters: they are at fault, and fail from then on."""

    async def answer(self, event: Event, now: Callable[[], float]) -> Verdict:
        """The verdict on one event."""
        plan, call = self.plans[event.offset], self.calls.get(event.offset, 0)
        self.calls[event.offset] = call + 1
        self.history.add(Attempt(str(event.offset), ROUTE, now()))
        said = "dead" if event.offset in self.doomed else plan[min(call, len(plan) - 1)]
        if said == "hang":
            await asyncio.sleep(10_000)  # of the fake clock's seconds, as below
        if said == "slow":
            await asyncio.sleep(2)
        if said in {"ok", "slow", "lost answer"} and event.idempotency_key not in self.keys:
            self.keys.add(event.idempotency_key)
            self.history.add(Effect(str(event.offset), ROUTE, now()))
        return VERDICTS.get(said, Ok())


class PlannedSink(Sink):
    """A sink on the other system of a schedule."""

    settings_type = Settings
    summary = "A sink of the fault campaign."

    def __init__(self, system: OtherSystem, most: int, now: Callable[[], float]) -> None:
        super().__init__(None)
        self.promises = Promises(idempotent=True, max_batch=most)
        self._system = system
        self._now = now

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """As the plans say."""
        return await asyncio.gather(*(self._system.answer(event, self._now) for event in batch.events))


@dataclass(eq=False)
class Assignment:
    """The partition while it is ours: the tracker, and dead letters that the broker has not acknowledged."""

    tracker: OffsetTracker
    current: bool = True
    stays: bool = True
    letters: list[int] = field(default_factory=list)

    def acknowledge(self) -> None:
        """The broker has the dead letters."""
        letters, self.letters = self.letters, []
        for offset in letters:
            if self.current:
                self.tracker.settle(offset, "dead")


@dataclass(eq=False)
class ScheduledTicket:
    """What a delivery of a schedule answers to."""

    offset: int
    work: Assignment
    machine: Schedule

    @property
    def current(self) -> bool:
        """See `Ticket`."""
        return self.work.current

    @property
    def stays(self) -> bool:
        """See `Ticket`."""
        return self.work.stays

    def belongs(self, partitions: Collection[Partition]) -> bool:
        """See `Ticket`. A schedule has one partition."""
        return bool(partitions)

    def settle(self, outcome: Outcome, *, detail: str | None = None) -> None:
        """See `Ticket`."""
        if self.work.current:
            self.work.tracker.settle(self.offset, outcome, outputs=1)

    def save_dead(self, failure: Failure) -> None:
        """See `Ticket`. The letter is in the topic; that we learn so comes later."""
        sent = self.machine.sent[self.offset]
        self.machine.system.doomed.add(self.offset)
        self.machine.history.add(DeadLetter(str(self.offset), ROUTE, self.machine.loop.now, sent.value, sent.raw_key))
        self.work.letters.append(self.offset)


class Schedule(RuleBasedStateMachine):
    """One schedule. `digests` takes what happened, so that two runs can be compared."""

    digests: list[str] | None = None

    @initialize(
        most=st.sampled_from([1, 1, 3]),
        in_flight=st.sampled_from([1, 2, 8]),
        attempts=st.integers(1, 4),
        order=st.sampled_from(["key", "key", "partition"]),
    )
    def begin(self, most: int, in_flight: int, attempts: int, order: str) -> None:
        """A worker begins on a topic that is empty yet."""
        self.loop = FakeLoop()
        self.history = History()
        self.system = OtherSystem(self.history)
        self.sent: list[Sent] = []
        self.errors: list[TrunklineError] = []
        self.committed, self.ledger = 0, Ledger()
        self.sink = PlannedSink(self.system, most, lambda: self.loop.now)
        self.spec = DeliverySpec.model_validate(
            {
                "order": order,
                "in_flight": in_flight,
                "timeout": 20.0,
                "retry": {"attempts": attempts, "min_delay": 0.1, "max_delay": 3.0},
                "batch": {"age": 0.2},
            }
        )
        self._join()

    @rule(
        records=st.lists(
            st.tuples(st.integers(0, 3), st.lists(st.sampled_from(PASSING), max_size=3), st.sampled_from(LASTING)),
            min_size=1,
            max_size=6,
        )
    )
    def records_come(self, records: list[tuple[int, list[str], str]]) -> None:
        """Records arrive, each with what the other system will say of it, and are read."""
        first = len(self.sent)
        for key, passing, lasting in records:
            offset = len(self.sent)
            raw, value = f"k{key}".encode(), f"v{offset}".encode()
            self.system.plans[offset] = [*passing, lasting]
            self.sent.append(Sent(str(offset), DOOR, f"k{key}", offset, self.loop.now, value, raw))
            self.history.add(self.sent[-1])
            self.history.add(Acknowledged(str(offset), DOOR, self.loop.now, "the broker"))
            self.history.add(Placed(str(offset), TOPIC, 0, offset, self.loop.now))
        self._read_from(first)

    @rule(seconds=st.sampled_from([0.05, 0.3, 1.0, 5.0, 30.0]))
    def time_passes(self, seconds: float) -> None:
        """Timers run out, calls end."""
        with self._clock():
            self.loop.advance(seconds)

    @rule()
    def letters_are_acknowledged(self) -> None:
        """The broker says that it has the dead letters."""
        self.work.acknowledge()

    @rule()
    def commits(self) -> None:
        """What is settled without a gap is committed."""
        self._commit()

    @rule()
    def is_revoked(self) -> None:
        """The partition goes away in order, and comes back."""
        self.work.stays = False
        with self._clock():
            self._on_loop(lambda: self.out.forget(lambda ticket: ticket.current))
            for _ in range(10):
                if not self.out.under_way(lambda ticket: ticket.current):
                    break
                self.loop.advance(1.0)
        self.work.acknowledge()
        self._commit()
        self._lose()
        self._take()

    @rule()
    def is_lost(self) -> None:
        """The partition is gone without a word, and comes back."""
        self._lose()
        self._take()

    @rule()
    def is_killed(self) -> None:
        """The process is gone, and another one begins. What the other system was told to do, it does."""
        self.work.current = self.work.stays = False
        self.loop.end()
        self.loop = FakeLoop(self.loop.now)
        self._join()

    @invariant()
    def nothing_is_wrong_so_far(self) -> None:
        """The tracker commits nothing that is open, and no error stopped the pipeline."""
        if hasattr(self, "work"):
            assert not self.errors, self.errors
            assert self.out.held >= 0

    def teardown(self) -> None:
        """Everything comes to its end, and the whole history is judged."""
        if not hasattr(self, "work"):
            return
        try:
            with self._clock():
                for _ in range(200):
                    self.loop.advance(30.0)
                    self.work.acknowledge()
                    self._commit()
                    if self.committed == len(self.sent):
                        break
            findings = check(self.history, [Promise(ROUTE, (DOOR,))])
            assert not findings, "; ".join(map(str, findings))
            assert self.committed == len(self.sent), f"{self.committed} of {len(self.sent)} settled"
            assert self.out.held == 0
            assert (self.ledger.read, self.ledger.settled) == (len(self.sent), len(self.sent))
            if self.digests is not None:
                self.digests.append(repr(list(self.history)))
        finally:
            self.loop.end()

    # --- the worker ---

    def _join(self) -> None:
        def make() -> None:
            gates = (NamedWait("account", clock=self.loop.time),)
            self.out = Delivering(self.sink, self.spec, ROUTE, loop=self.loop, gates=gates, failed=self.errors.append)
            self.out.open()

        with self._clock():
            self._on_loop(make)
        self._take()

    def _take(self) -> None:
        self.work = Assignment(OffsetTracker(self.committed, self.ledger.copy()))
        self._read_from(self.committed)

    def _lose(self) -> None:
        self.work.current = self.work.stays = False
        with self._clock():
            self._on_loop(lambda: self.out.forget(lambda ticket: not ticket.current))

    def _read_from(self, first: int) -> None:
        deliveries = []
        for offset in range(first, len(self.sent)):
            sent = self.sent[offset]
            headers = [("ce_id", sent.id.encode()), ("ce_source", b"/schedule")]
            event = Event(None, raw=sent.value, raw_key=sent.raw_key, headers=headers, topic=TOPIC, offset=offset)
            event.idempotency_key = idempotency_key("schedules", ROUTE, event)
            self.work.tracker.add(offset)
            deliveries.append(Delivery(event, ScheduledTicket(offset, self.work, self), 10))
        if deliveries:
            with self._clock():
                self._on_loop(lambda: self.out.submit(deliveries))

    def _commit(self) -> None:
        if self.work.tracker.advance():
            self.committed, self.ledger = self.work.tracker.commit, self.work.tracker.ledger.copy()
            self.history.add(
                Committed(
                    ROUTE,
                    TOPIC,
                    0,
                    self.committed,
                    self.loop.now,
                    read=self.ledger.read,
                    settled=self.ledger.settled,
                )
            )

    def _on_loop(self, function: Callable[[], object]) -> None:
        self.loop.call_soon(function)
        self.loop.quiet()

    @contextmanager
    def _clock(self) -> Iterator[None]:
        with patch.object(time, "monotonic", self.loop.time), patch.object(time, "time", self.loop.time):
            yield


def run_schedules(count: int, seed: int) -> str:
    """Runs so many schedules, raises for one that breaks an invariant, and gives a hash of all that happened in them."""
    digests: list[str] = []
    kind: Any = hypothesis.seed(seed)(type("SeededSchedule", (Schedule,), {"digests": digests}))
    settings = hypothesis.settings(
        max_examples=count,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # each retry is a line
    try:
        run_state_machine_as_test(kind, settings=settings)
    finally:
        logging.disable(before)
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()[:16]
