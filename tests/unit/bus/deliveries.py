"""A scripted sink, tickets that write down what becomes of them, and the event loop until all is settled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from trunkline.bus.deadletters import Failure
from trunkline.bus.delivery.breaker import Breaker
from trunkline.bus.delivery.delivery import Delivering
from trunkline.bus.delivery.gates import Gate, NamedWait
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.sink.contiguous import ContiguousDelivering
from trunkline.core.contracts import Batch, Promises, Sink
from trunkline.core.errors import TrunklineError
from trunkline.core.event import Event
from trunkline.core.manifests.models import BreakerSpec, DeliverySpec
from trunkline.core.settings import Settings
from trunkline.core.verdicts import Ok, Verdict

Script = Callable[[Event, int], Verdict]
"""The verdict of an event at its n-th delivery (from 1). May raise."""


class ScriptedSink(Sink):
    """Answers as a script says, and notes every call."""

    settings_type = Settings
    summary = "A sink of the tests."
    promises = Promises(idempotent=True)

    def __init__(self, script: Script, promises: Promises | None = None) -> None:
        super().__init__(None)
        if promises is not None:
            self.promises = promises
        self.script = script
        self.calls: list[list[int]] = []
        self.batches: list[Batch] = []
        self.times: dict[int, int] = {}
        self.under_way: set[int] = set()
        self.most_under_way = 0
        self.keys_under_way: list[bytes | None] = []
        self.gate: asyncio.Event | None = None

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        offsets = [event.offset for event in batch.events]
        self.calls.append(offsets)
        self.batches.append(batch)
        for event in batch.events:
            assert event.raw_key is None or event.raw_key not in self.keys_under_way, "two calls for one key at once"
        keys = [event.raw_key for event in batch.events if event.raw_key is not None]
        self.keys_under_way += keys
        self.under_way.update(offsets)
        self.most_under_way = max(self.most_under_way, len(self.under_way))
        try:
            await asyncio.sleep(0)
            if self.gate is not None:
                await self.gate.wait()
            verdicts = []
            for event in batch.events:
                self.times[event.offset] = self.times.get(event.offset, 0) + 1
                verdicts.append(self.script(event, self.times[event.offset]))
            return verdicts
        finally:
            self.under_way.difference_update(offsets)
            for key in keys:
                self.keys_under_way.remove(key)


@dataclass
class Place:
    """A ticket."""

    offset: int
    book: Book
    current: bool = True
    stays: bool = True

    def settle(self, outcome: str, *, detail: str | None = None) -> None:
        assert self.offset not in self.book.settled, "settled twice"
        self.book.settled[self.offset] = outcome
        self.book.order.append(self.offset)
        self.book.details[self.offset] = detail

    def save_dead(self, failure: Failure) -> None:
        self.book.failures[self.offset] = failure
        self.settle("dead")


@dataclass
class Book:
    """What became of records by offset."""

    settled: dict[int, str] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    details: dict[int, str | None] = field(default_factory=dict)
    failures: dict[int, Failure] = field(default_factory=dict)
    errors: list[TrunklineError] = field(default_factory=list)
    plans: list[tuple[int, int]] = field(default_factory=list)


def spec(**values: Any) -> DeliverySpec:
    """A delivery spec with delays of milliseconds."""
    retry = {"min_delay": 0.001, "max_delay": 0.005, "attempts": 8, **values.pop("retry", {})}
    batch = {"age": 0.005, **values.pop("batch", {})}
    return DeliverySpec.model_validate({"retry": retry, "batch": batch, **values})


def deliveries(book: Book, keys: Sequence[str | None], first: int = 0, partition: int = 0) -> list[Delivery]:
    """Records with these keys at the offsets from `first` on."""
    made = []
    for index, key in enumerate(keys):
        offset = first + index
        event = Event(
            offset,
            raw_key=key.encode() if key is not None else None,
            topic="orders",
            topic_id="Tid",
            partition=partition,
            offset=offset,
        )
        made.append(Delivery(event, Place(offset, book), 10))
    return made


def ok(_event: Event, _times: int) -> Verdict:
    """Everything is delivered."""
    return Ok()


def gates(**breaker: Any) -> list[Gate]:
    """The gates of an account whose breaker waits for milliseconds."""
    values = {"wait": 0.01, "longest": 0.05, **breaker}
    return [NamedWait("account"), Breaker("account", BreakerSpec.model_validate(values))]


def breaker_of(passed: Sequence[Gate]) -> Breaker:
    """The breaker among gates."""
    return next(gate for gate in passed if isinstance(gate, Breaker))


def delivering(sink: Sink, book: Book, *, through: Sequence[Gate] | None = None, **values: Any) -> Delivering:
    """Deliveries to a sink."""
    passed = gates() if through is None else through
    made = Delivering(
        sink,
        spec(**values),
        "pipeline",
        loop=asyncio.get_running_loop(),
        gates=passed,
        failed=book.errors.append,
    )
    made.open()
    return made


def contiguous(
    sink: Sink, book: Book, *, ours: bool = True, through: Sequence[Gate] | None = None, **values: Any
) -> ContiguousDelivering:
    """Deliveries of ranges to a sink; each plan goes to the book."""

    async def commit_plan(_partition: tuple[str, int], first: int, last: int) -> bool:
        book.plans.append((first, last))
        await asyncio.sleep(0)
        return ours

    made = ContiguousDelivering(
        sink,
        spec(**values),
        "pipeline",
        gates=gates() if through is None else through,
        commit_plan=commit_plan,
        failed=book.errors.append,
    )
    made.open()
    return made


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Lets the loop run until `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        await asyncio.sleep(0.001)
