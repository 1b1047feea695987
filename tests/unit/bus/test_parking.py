"""Parking, lanes, retry, offsets and the store together, on a clock that only moves when it is told: schedules with kills at each point.

Everything but Kafka is the real thing. `TRUNKLINE_TEST_SCHEDULES` says how many schedules are tried.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from trunkline.bus.delivery.delivery import Delivering
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.delivery.tickets import SinkTicket, Tickets
from trunkline.bus.intake import Assigned, Reading
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.parking import park as park_module
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.parking.orders import Order
from trunkline.bus.parking.park import Park
from trunkline.bus.parking.parking import Parking
from trunkline.bus.parking.records import ParkedRecord, is_record
from trunkline.bus.parking.writing import Outgoing
from trunkline.bus.state import Entry, Identity, StateStore
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.contracts import Batch, Promises, Sink
from trunkline.core.event import Event
from trunkline.core.manifests.models import DeadLetterSpec, DeliverySpec
from trunkline.core.settings import Settings
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

SCHEDULES = int(os.environ.get("TRUNKLINE_TEST_SCHEDULES", "20"))
INPUT = ("orders", 0)
NAMES = Names("")
KEYS = (b"a", b"b", b"c", b"d")
POLL = 0.05


class KilledError(Exception):
    """The worker was killed here."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing else is to be done."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Read:
    """A record as Kafka's client gives it."""

    def __init__(self, key: bytes, offset: int) -> None:
        self._key, self._offset = key, offset

    def key(self) -> bytes:
        return self._key

    def value(self) -> bytes:
        return b"%d" % self._offset

    def headers(self) -> list[tuple[str, bytes]]:
        return [("ce_id", b"%d" % self._offset)]


class World:
    """What outlives a worker: topics, commits, and the other system."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.committed = 0
        self.metadata = Ledger(topic_id="T").to_metadata()
        self.changelog: list[tuple[bytes, Entry | None]] = []
        self.decisions: dict[bytes, Decision] = {}
        self.dead: list[int] = []
        self.health: dict[bytes, Callable[[], Verdict]] = {}
        self.ails: dict[bytes, int] = {}
        """How many more calls of a key fail."""
        self.slow: set[bytes] = set()
        self.effects: list[int] = []
        self.dropped: set[int] = set()
        self.fate = "commit"

    def commit(self, part: TopicPartition) -> None:
        assert part.offset >= self.committed, "a commit went back"
        self.committed, self.metadata = part.offset, part.metadata or ""

    @property
    def parked(self) -> list[ParkedRecord]:
        found: dict[bytes, Entry] = {}
        for store_key, entry in self.changelog:
            found.pop(store_key, None)
            if entry is not None and is_record(store_key):
                found[store_key] = entry
        return [ParkedRecord.of(*item) for item in sorted(found.items())]


class MemoryChangelog:
    """The changelog of the test, and a store on disk that copies it."""

    topic = NAMES.parked("p")

    def __init__(self, world: World, folder: Path) -> None:
        self._world, self._folder = world, folder

    def has_copy(self, number: int) -> bool:
        return (self._folder / str(number)).exists()

    def open(self, numbers: Iterable[int]) -> dict[int, StateStore]:
        stores = {
            number: StateStore.open(self._folder / str(number), Identity(self.topic, "T", number)) for number in numbers
        }
        for store in stores.values():
            store.write(self._world.changelog[store.offset :], len(self._world.changelog))
        return stores


class MemoryWriter:
    """Transactions of the test: they commit, are refused, or the worker is killed before or after one."""

    world: World

    def __init__(self, *_: object) -> None:
        pass

    def begin(self) -> None:
        pass

    def close(self) -> None:
        pass

    def write(
        self,
        records: Sequence[Outgoing],
        offsets: Sequence[TopicPartition],
        _consumer: object,
        changelog: str,
        _entries: object,
    ) -> dict[int, int] | None:
        world, fate = self.world, self.world.fate
        world.fate = "commit"
        if fate == "refused":
            return None
        if fate == "killed before":
            raise KilledError
        for one in records:
            if one.topic == changelog:
                entry = Entry(one.value, one.headers) if one.value is not None else None
                world.changelog.append((one.key or b"", entry))
            elif one.topic == NAMES.decisions:
                decision = world.decisions.pop(one.key or b"")
                self._drop(decision)
            elif one.topic == NAMES.dead_letters("p"):
                world.dead.append(int(one.value or b""))
        for part in offsets:
            world.commit(part)
        if fate == "killed after":
            raise KilledError
        return {0: len(world.changelog)}

    def _drop(self, decision: Decision) -> None:
        # What the transaction deletes of the key and nobody delivered is what the decision dropped.
        self.world.dropped |= {int(one) for one in decision.reason.split() if int(one) not in self.world.effects}


class Outside(Sink):
    """The other system: each key is well, ill, cut off after the effect, or refused for good."""

    settings_type = Settings
    summary = "The other system of the tests."
    promises = Promises(idempotent=True)

    def __init__(self, world: World) -> None:
        super().__init__(None)
        self._world = world

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        (event,) = batch.events
        key = event.raw_key or b""
        await asyncio.sleep(3 if key in self._world.slow else 0.01)  # of the loop's own clock
        verdict = self._world.health.get(key, Ok)()
        if self._world.ails.get(key, 0) > 0:
            self._world.ails[key] -= 1
            verdict = Retry("ailing")
        if isinstance(verdict, (Ok, Unknown)):
            assert event.offset not in self._world.dropped, "what was dropped is delivered"
            self._world.effects.append(event.offset)
        return [verdict]


class NoProducer:
    """Where trace and dead letters of records that never were parked go."""

    def __init__(self, world: World) -> None:
        self._world = world

    def produce(self, topic: str, value: bytes, *_: object, **options: Any) -> None:
        if topic == NAMES.dead_letters("p"):
            self._world.dead.append(int(value))
            options["on_delivery"](None, None)

    def poll(self, _seconds: float) -> None:
        pass


class Life:
    """One life of the worker."""

    def __init__(self, world: World, loop: VirtualLoop, folder: Path) -> None:
        self.world, self._loop = world, loop
        spec = DeliverySpec.model_validate({"retry": {"attempts": 2, "min_delay": 0.1, "max_delay": 2}, "in_flight": 3})
        producer = cast(Producer, NoProducer(world))
        self.errors: list[Exception] = []
        self.tickets = Tickets(
            NAMES, "p", "w", producer, DeadLetterThreshold(DeadLetterSpec(), "p"), self.errors.append
        )
        orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self.parking = Parking(spec, "p", limit=3, ask=orders.put)
        reading = Reading(cast(Any, None), NAMES, "p", ["orders"], "earliest", "w")
        changelog = cast(Any, MemoryChangelog(world, folder))
        self.park = Park(
            reading,
            changelog,
            self.tickets,
            self.parking,
            orders,
            self,
            attempts=2,
            topic_ids={"orders": "T"},
            clock=loop.time,
        )
        self.delivering = Delivering(
            Outside(world), spec, "p", loop=loop, gates=[], failed=self.errors.append, exhausted=self.parking
        )
        self.parking.attach(self.delivering.submit)
        ledger, _ = Ledger.from_metadata(world.metadata, 0)
        assigned = [Assigned(INPUT, world.committed, ledger, None)]
        self.tickets.take(assigned)
        self.park.assigned(assigned)
        self.read_on(world.committed)

    # --- what the park asks for ---

    def commit_now(self) -> None:
        for part in self.tickets.due(all_of_them=True):
            self.world.commit(part)

    def decode(self, event: Event) -> None:
        event.value = int(event.raw or b"")

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon(function, *arguments)

    @property
    def group_member(self) -> Any:
        return None

    # --- what happens ---

    def read_on(self, first: int) -> None:
        work = self.tickets.works[INPUT]
        deliveries = []
        for offset in range(first, len(self.world.keys)):
            message = cast(Message, Read(self.world.keys[offset], offset))
            work.tracker.add(offset)
            ticket = SinkTicket(work, message, offset, "", self.tickets)
            before = self.park.became(INPUT, offset)
            if before is not None:
                ticket.settle(before)
                continue
            event = Event(offset, raw=b"%d" % offset, raw_key=self.world.keys[offset], headers=[("ce_id", b"x")],
                          topic="orders", topic_id="T", partition=0, offset=offset)  # fmt: skip
            deliveries.append(Delivery(event, ticket, 1))
        self._loop.call_soon(self.delivering.submit, deliveries)

    async def go_on(self, polls: int, commit: bool = True) -> None:
        for _ in range(polls):
            await asyncio.sleep(POLL)
            self.park.serve()
            if commit:
                self.commit_now()

    async def end(self) -> None:
        self.parking.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        self.park.close()


class ParkingMachine(RuleBasedStateMachine):
    """A worker that delivers, parks, is killed and begins again, while people decide and the other system ails and heals."""

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.lives = 0
        self.world = World()
        MemoryWriter.world = self.world
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(park_module, "Writer", MemoryWriter)
        self.patch.setattr(park_module, "end_offsets", lambda *_: {0: len(self.world.changelog)})
        self.patch.setattr(park_module, "waiting", lambda *_: list(self.world.decisions.values()))
        self.loop = VirtualLoop()
        self._live(self.root / "disk")

    def teardown(self) -> None:
        if not hasattr(self, "life"):
            return
        try:
            self._all_of_it_ends_well()
        finally:
            self._run(self.life.end())
            self.loop.close()
            self.patch.undo()
            shutil.rmtree(self.root)

    def _all_of_it_ends_well(self) -> None:
        self.world.health.clear()
        self.world.slow.clear()
        for _ in range(400):
            self.go_on(10)
            if not self.world.parked and self.world.committed == len(self.world.keys):
                break
        everything = set(range(len(self.world.keys)))
        world = self.world
        assert set(world.effects) | world.dropped | set(world.dead) == everything
        assert not world.dropped & set(world.effects)
        ledger, _ = Ledger.from_metadata(world.metadata, 0)
        assert (ledger.read, ledger.open, ledger.parked) == (len(everything), 0, 0)
        assert ledger.dead <= len(set(world.dead)), (
            "a letter may be that of a record which was delivered when it was read again"
        )
        assert ledger.dropped >= len(world.dropped)
        assert not world.decisions

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(coroutine)

    def _live(self, folder: Path) -> None:
        async def begin() -> None:
            self.life = Life(self.world, self.loop, folder)

        self.folder = folder
        self._run(begin())

    def _reborn(self, folder: Path) -> None:
        self._run(self.life.end())
        self._live(folder)

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8))
    def records_come(self, keys: list[bytes]) -> None:
        first = len(self.world.keys)
        self.world.keys += keys
        self.life.read_on(first)

    @rule(key=st.sampled_from(KEYS), how=st.sampled_from(["well", "ill", "cut", "refused"]))
    def a_key_fares(self, key: bytes, how: str) -> None:
        fares: dict[str, Callable[[], Verdict]] = {
            "well": Ok,
            "ill": lambda: Retry("ill"),
            "cut": lambda: Unknown("cut"),
            "refused": lambda: Dead("no"),
        }
        self.world.health[key] = fares[how]

    @rule(key=st.sampled_from(KEYS), calls=st.integers(1, 6))
    def a_key_ails_for_some_calls(self, key: bytes, calls: int) -> None:
        self.world.health.pop(key, None)
        self.world.ails[key] = calls

    @rule(key=st.sampled_from(KEYS), slow=st.booleans())
    def a_key_is_slow(self, key: bytes, slow: bool) -> None:
        (self.world.slow.add if slow else self.world.slow.discard)(key)

    @rule(polls=st.integers(1, 30))
    def go_on(self, polls: int) -> None:
        try:
            self._run(self.life.go_on(polls))
        except KilledError:
            self._reborn(self.folder)
        assert self.life.errors == []

    @rule(polls=st.integers(1, 3))
    def no_commit_comes_through(self, polls: int) -> None:
        try:
            self._run(self.life.go_on(polls, commit=False))
        except KilledError:
            self._reborn(self.folder)

    @rule(fate=st.sampled_from(["refused", "killed before", "killed after"]))
    def the_next_transaction_is(self, fate: str) -> None:
        self.world.fate = fate

    @rule()
    def killed(self) -> None:
        self._reborn(self.folder)

    @rule()
    def killed_and_its_disk_is_lost(self) -> None:
        self.lives += 1
        self._reborn(self.root / f"disk {self.lives}")

    @rule(key=st.sampled_from(KEYS), action=st.sampled_from(["retry", "drop", "all"]))
    def a_person_decides(self, key: bytes, action: str) -> None:
        mine = [record for record in self.world.parked if record.key == key]
        if not mine:
            return
        upto = mine[-1 if action == "all" else 0].sequence
        offsets = [str(one.origin.offset) for one in mine if one.sequence <= upto] if action != "retry" else []
        decision = Decision(
            "p", 0, key, "retry" if action == "retry" else "drop", "ada", upto=upto, reason=" ".join(offsets)
        )
        self.world.decisions[decision.record_key] = decision
        self.loop.call_soon(self.life.parking.decide, decision)

    @invariant()
    def a_key_is_delivered_in_the_order_it_was_read(self) -> None:
        if not hasattr(self, "world"):
            return
        for key in KEYS:
            firsts = [one for one in dict.fromkeys(self.world.effects) if self.world.keys[one] == key]
            assert firsts == sorted(firsts), (key, firsts)

    @invariant()
    def nothing_is_parked_twice(self) -> None:
        if hasattr(self, "world"):
            offsets = [record.origin.offset for record in self.world.parked]
            assert len(offsets) == len(set(offsets)), offsets

    @invariant()
    def the_ledger_counts_as_parked_what_is_parked_and_passed(self) -> None:
        if hasattr(self, "world"):
            ledger, _ = Ledger.from_metadata(self.world.metadata, 0)
            passed = [record for record in self.world.parked if record.origin.offset < self.world.committed]
            assert ledger.parked == len(passed)


TestParking = ParkingMachine.TestCase
TestParking.settings = settings(max_examples=SCHEDULES, stateful_step_count=30, deadline=None)


def test_what_was_dropped_is_not_delivered_when_its_input_is_read_again_and_the_mark_of_it_goes_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(park_module, "PURGE_SECONDS", 0.0)
    machine = ParkingMachine()
    machine.begin()
    machine.a_key_is_slow(b"a", True)  # no commit passes it, while the next one is parked and dropped
    machine.a_key_fares(b"b", "ill")
    machine.records_come([b"a", b"b"])
    machine.go_on(20)
    machine.a_person_decides(b"b", "drop")
    machine.go_on(2)
    assert (machine.world.dropped, machine.world.committed) == ({1}, 0)
    machine.killed()
    machine.world.health.clear()
    machine.go_on(100)
    assert (machine.world.effects, machine.world.committed) == ([0], 2)
    left = {store_key for store_key, _ in machine.world.changelog}
    for store_key, entry in machine.world.changelog:
        (left.add if entry is not None else left.discard)(store_key)
    assert left == set()
    machine.teardown()
