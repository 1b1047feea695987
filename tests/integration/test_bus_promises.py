"""Promises of the bus that its runtimes keep alone, each tried on a real broker without a worker around it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import Mock

import pytest
import pytest_asyncio
from confluent_kafka import Message, TopicPartition

from trunkline.bus.deadletters import Failure, dead_letter_headers, idempotency_key
from trunkline.bus.delivery.tickets import SinkTicket, Tickets
from trunkline.bus.intake import Assigned, Intake, Partition, Reading
from trunkline.bus.kafka import KafkaSettings, headers_of, produce, read_all
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.records import Output
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.source.positions import read_positions
from trunkline.bus.source.publish import Publisher
from trunkline.bus.source.push import PushRuntime
from trunkline.bus.source.splitwriter import SplitWriter
from trunkline.bus.stream.runtime import StreamRuntime
from trunkline.bus.stream.transform import FailedRecordError
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.bus.topics import TopicPlan, ensure_topics, internal_topics
from trunkline.core.contracts import (
    PushSource,
    Reception,
    Request,
    SourceBatch,
    SourceEvent,
)
from trunkline.core.errors import FatalError, HaltError, RetriableError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.manifests.models import DeadLetterSpec
from trunkline.core.routing import Route
from trunkline.core.serving.doors import Doors
from trunkline.core.serving.listener import Ports
from trunkline.core.settings import Settings
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka: Any) -> KafkaSettings:
    return KafkaSettings(kafka.bootstrap)


@pytest.fixture
def names(settings: KafkaSettings, namespace: str) -> Names:
    names = Names(namespace)
    ensure_topics(settings, internal_topics(names))
    return names


@pytest_asyncio.fixture
async def ingress(tmp_path: Path) -> AsyncIterator[Ingress]:
    made = Ingress(Doors().ingress(("127.0.0.1", 0), Ports(tmp_path / "ports")))
    yield made
    await made.stop()


def publisher(names: Names, pipeline: str) -> Publisher:
    """One whose only target takes nothing: every event is filtered, and counted."""
    nowhere = Route("nowhere", when=lambda _value, _event: False, otherwise=False, key=None, name=None)
    return Publisher(names, pipeline, "w", "test", [nowhere], lambda _topic: None, lambda _topic: None, {})


# --- sources ---


async def test_who_lost_a_split_can_not_move_its_position_any_more(settings: KafkaSettings, names: Names) -> None:
    old = SplitWriter(settings, names, "orders", "0", publisher(names, "orders"), "old")
    new = SplitWriter(settings, names, "orders", "0", publisher(names, "orders"), "new")
    try:
        begun = await old.open()
        first = await old.write(SourceBatch([SourceEvent({})] * 2, position={"line": 2}), begun)
        taken_over = await new.open()
        assert (taken_over.position, taken_over.read) == ({"line": 2}, 2)
        with pytest.raises(RetriableError) as refusal:
            await old.write(SourceBatch([SourceEvent({})], position={"line": 3}), first)
        assert refusal.value.code == "kafka.fenced"
        last = await new.write(SourceBatch([SourceEvent({})] * 5, position={"line": 7}), taken_over)
        assert last.read == 7
    finally:
        await old.close()
        await new.close()
    assert await asyncio.to_thread(read_positions, settings, names) == {("orders", "0"): last}


async def test_a_split_whose_producer_rested_writes_on_only_where_its_position_still_is(
    settings: KafkaSettings, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.kafka.producing.REST_SECONDS", -1.0)
    rested = SplitWriter(settings, names, "rests", "0", publisher(names, "rests"), "rested")
    other = SplitWriter(settings, names, "rests", "0", publisher(names, "rests"), "other")
    try:
        first = await rested.write(SourceBatch([SourceEvent({})], position={"line": 1}), await rested.open())
        await rested.rest()
        second = await rested.write(SourceBatch([SourceEvent({})], position={"line": 2}), first)
        await rested.rest()
        third = await other.write(SourceBatch([SourceEvent({})] * 3, position={"line": 5}), await other.open())
        with pytest.raises(RetriableError) as refusal:
            await rested.write(SourceBatch([SourceEvent({})], position={"line": 3}), second)
        assert refusal.value.code == "source.moved"
    finally:
        await rested.close()
        await other.close()
    assert (await asyncio.to_thread(read_positions, settings, names))["rests", "0"] == third


class Door(PushSource):
    """Takes everything; the body is the key of the delivery."""

    settings_type = Settings
    summary = "A door for a test."

    @property
    def path(self) -> str:
        return "/door"

    @property
    def max_body(self) -> int:
        return 1024

    async def receive(self, request: Request) -> Reception:
        return Reception(202, [SourceEvent({})], dedupe_key=request.body.decode(), dedupe_window=60)


def knock(body: str) -> Request:
    return Request("POST", "/door", {}, {}, body.encode(), "127.0.0.1")


async def test_a_sender_is_told_accepted_only_after_the_transaction_committed(
    settings: KafkaSettings, names: Names, ingress: Ingress
) -> None:
    known = AcceptedDeliveries(settings, names)

    def runtime() -> PushRuntime:
        # Both have one worker's name, so the second fences the first: its next transaction can not commit.
        return PushRuntime(
            settings,
            names,
            "hooks",
            Door(Settings()),
            publisher(names, "hooks"),
            worker="w",
            accepted=known,
            ingress=ingress,
        )

    def accepted() -> int:
        return len(list(read_all(settings, names.deliveries)))

    first, second = runtime(), runtime()
    running = [asyncio.create_task(first.run())]
    try:
        assert (await answered(first, "a")).status == 202
        assert await asyncio.to_thread(accepted) == 1
        running.append(asyncio.create_task(second.run()))
        assert (await answered(second, "b")).status == 202
        refused = await first.receive(knock("c"))
        assert refused.status == 503
        assert await asyncio.to_thread(accepted) == 2
        assert (await answered(second, "c")).status == 202
        assert (await second.receive(knock("c"))).status == 200
        assert await asyncio.to_thread(accepted) == 3
    finally:
        first.stop()
        second.stop()
        await asyncio.wait(running)
        await asyncio.to_thread(known.close)


async def test_of_a_delivery_that_two_workers_get_at_once_both_make_the_same_event(
    settings: KafkaSettings, names: Names, ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = names.trace.replace("trace", "knocks")
    ensure_topics(settings, [TopicPlan(topic, 1)])
    schema = Schema({"type": "record", "name": "Knock", "fields": []}, id=1)
    route = Route(topic, when=None, otherwise=False, key=None, name=None)
    # Neither hears of what the other accepts, as where both are asked at the same moment.
    monkeypatch.setattr(AcceptedDeliveries, "_take", lambda *_: None)
    known = {worker: AcceptedDeliveries(settings, names) for worker in ("one", "other")}
    workers = [
        PushRuntime(
            settings,
            names,
            "hooks",
            Door(Settings()),
            Publisher(names, "hooks", worker, "test", [route], lambda _topic: Encoder(schema), lambda _topic: None, {}),
            worker=worker,
            accepted=accepted,
            ingress=ingress,
        )
        for worker, accepted in known.items()
    ]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    try:
        answers = [await answered(worker, "a") for worker in workers]
        assert [answer.status for answer in answers] == [202, 202]
        messages = await asyncio.to_thread(lambda: list(read_all(settings, topic)))
        events = [Event(None, headers=headers_of(message)) for message in messages]
        assert len({idempotency_key(names.namespace, "delivered", event) for event in events}) == 1
        assert [event.envelope.id for event in events] == [json.loads(answer.body)["id"] for answer in answers]
        again = await workers[0].receive(knock("a"))
        assert (again.status, json.loads(again.body)["id"]) == (200, events[0].envelope.id)
    finally:
        for worker in workers:
            worker.stop()
        await asyncio.wait(running)
        for accepted in known.values():
            await asyncio.to_thread(accepted.close)


async def test_a_source_whose_producer_rests_takes_the_next_delivery(
    settings: KafkaSettings, names: Names, ingress: Ingress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.kafka.producing.REST_SECONDS", 0.0)
    monkeypatch.setattr("trunkline.bus.source.push.UNUSED_SECONDS", -0.9)
    known = AcceptedDeliveries(settings, names)
    source = PushRuntime(
        settings,
        names,
        "hooks",
        Door(Settings()),
        publisher(names, "hooks"),
        worker="w",
        accepted=known,
        ingress=ingress,
    )
    running = asyncio.create_task(source.run())
    try:
        for body in ("a", "b"):
            assert (await answered(source, body)).status == 202
            while not source._producers.resting:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.05)
        assert source.ready
        assert source.report().counts["read"] == 2
    finally:
        source.stop()
        await running
        await asyncio.to_thread(known.close)


async def answered(runtime: PushRuntime, body: str) -> Any:
    """The answer of a runtime that may still be starting: it says 503 until it is ready."""
    async with asyncio.timeout(30):
        while (answer := await runtime.receive(knock(body))).status == 503:
            await asyncio.sleep(0.05)
    return answer


# --- positions ---


class Bystander:
    """A member of a group that keeps nothing."""

    def assigned(self, partitions: Any) -> None:
        """Nothing to take up."""

    def revoked(self, partitions: Any) -> None:
        """Nothing to settle."""

    def lost(self, partitions: Any) -> None:
        """Nothing to forget."""


async def test_a_commit_whose_records_expired_is_an_error_and_not_another_beginning(
    settings: KafkaSettings, names: Names, make_topic: Any
) -> None:
    topic = make_topic("orders")
    ensure_topics(settings, [TopicPlan(names.retry("reader"), 1)])

    def read_after_expiry() -> None:
        producer = settings.producer()
        for number in range(10):
            producer.produce(topic, str(number).encode(), partition=0)
        assert producer.flush(15) == 0
        consumer = settings.consumer(names.group("reader"))
        consumer.commit(offsets=[TopicPartition(topic, 0, 3, Ledger().to_metadata())], asynchronous=False)
        consumer.close()
        admin = settings.admin()
        (expired,) = admin.delete_records([TopicPartition(topic, 0, 6)]).values()
        assert expired.result(15).low_watermark == 6
        intake = Intake(Reading(settings, names, "reader", [topic], "earliest", "w"), Bystander())
        try:
            for _ in range(300):
                assert not intake.poll(10, 0.1), "records were read from a position that nobody chose"
        finally:
            intake.close()

    with pytest.raises(FatalError) as failure:
        await asyncio.to_thread(read_after_expiry)
    assert failure.value.code == "offsets.out_of_range"


async def test_a_partition_that_goes_while_it_is_paused_and_comes_back_is_read(
    settings: KafkaSettings, names: Names, make_topic: Any
) -> None:
    topic = make_topic("orders", 2)
    ensure_topics(settings, [TopicPlan(names.retry("pauser"), 2)])
    reading = Reading(settings, names, "pauser", [topic], "earliest", "w")

    def lose_and_regain() -> None:
        keeper, visitor = Holder(), Holder()
        kept = Intake(reading, keeper)
        try:
            _poll_until(lambda: len(keeper.held) == 4, kept)
            kept.consumer.pause([TopicPartition(*place) for place in keeper.held])
            visiting = Intake(reading, visitor)
            _poll_until(lambda: len(keeper.held) == len(visitor.held) == 2, kept, visiting)
            kept.consumer.resume([TopicPartition(*place) for place in keeper.held])
            visiting.close()
            _poll_until(lambda: len(keeper.held) == 4, kept)
            producer = settings.producer()
            for number in range(2):
                producer.produce(topic, b"", partition=number)
            assert producer.flush(15) == 0
            seen: set[int | None] = set()
            _poll_until(lambda: seen == {0, 1}, kept, seen=seen)
        finally:
            kept.close()

    await asyncio.to_thread(lose_and_regain)


class Holder(Bystander):
    """Holds what comes to it."""

    def __init__(self) -> None:
        self.held: set[Partition] = set()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        self.held |= {one.partition for one in partitions}

    def revoked(self, partitions: Sequence[Partition]) -> None:
        self.held -= set(partitions)


def _poll_until(done: Callable[[], bool], *intakes: Intake, seen: set[int | None] | None = None) -> None:
    """Polls until it is so; the partitions of what came are noted in `seen`."""
    for _ in range(400):
        for intake in intakes:
            found = intake.poll(10, 0.05)
            if seen is not None:
                seen |= {message.partition() for message in found}
        if done():
            return
    raise AssertionError("it did not come to be")


# --- streams ---


class Copying:
    """The work of a stream that copies values, and does something else once, before the value `at`."""

    plain: ClassVar[dict[bytes, Any]] = {}

    def __init__(self, target: str, at: bytes, once: Callable[[], None]) -> None:
        self._target = target
        self._at = at
        self._once: Callable[[], None] | None = once

    def __call__(self, message: Message, topic: str, partition: int, offset: int) -> tuple[list[Output], Event]:
        value = message.value()
        if value == self._at and self._once is not None:
            once, self._once = self._once, None
            once()
        return [Output(self._target, value, None, [])], Event(value)


def _fifty_records(settings: KafkaSettings, names: Names, make_topic: Any) -> tuple[str, str, list[bytes]]:
    """The topics of a stream `work`: what it reads, with fifty records, and what it writes; and the records' values."""
    source, target = make_topic("in"), make_topic("out")
    ensure_topics(settings, [TopicPlan(names.retry("work"), 1), TopicPlan(names.dead_letters("work"), 1)])
    values = [b"%d" % number for number in range(50)]
    writer = settings.producer()
    for value in values:
        writer.produce(source, value, partition=0)
    assert writer.flush(15) == 0
    return source, target, values


@pytest.mark.parametrize("told_by", ["the report of a record", "the producer"])
async def test_a_stream_whose_transaction_fails_among_its_records_does_them_again_without_a_restart(
    settings: KafkaSettings, names: Names, make_topic: Any, told_by: str
) -> None:
    source, target, values = _fifty_records(settings, names, make_topic)

    def taken_over() -> None:
        # Nobody may have two producers of one name: the stream's own can't write any more, and is told when it tries to.
        other = settings.producer(transactional_id=names.transactional_id("work", "w", "0"))
        other.init_transactions(15)
        own, refused = stream._producers.current, list[Any]()
        while told_by == "the producer":  # `produce` raises in the end, and the next poll tells the same
            own.produce(target, b"never")
            time.sleep(0.01)
        own.produce(target, b"never", on_delivery=lambda error, _message: refused.append(error))
        while not refused:
            own.poll(0.1)

    work = Copying(target, b"30", taken_over)
    threshold = DeadLetterThreshold(DeadLetterSpec(), "work")
    reading = Reading(settings, names, "work", [source], "earliest", "w")
    stream = StreamRuntime(reading, lambda _topic: work, threshold=threshold)
    running = asyncio.create_task(stream.run())
    try:
        while stream.positions.get((source, 0), 0) < len(values):
            assert not running.done(), running.exception()
            await asyncio.sleep(0.05)
        assert stream.ledgers[source, 0].delivered == len(values)
    finally:
        stream.stop()
        await running
    found = await asyncio.to_thread(lambda: [message.value() for message in read_all(settings, target)])
    assert found == values


async def test_a_stream_that_breaks_among_its_records_commits_none_of_their_outputs(
    settings: KafkaSettings, names: Names, make_topic: Any
) -> None:
    source, target, values = _fifty_records(settings, names, make_topic)

    def broken() -> None:
        raise RetriableError("the registry does not answer")

    reading = Reading(settings, names, "work", [source], "earliest", "w")
    for breaks in (b"30", b"30", b""):
        work = Copying(target, breaks, broken)
        stream = StreamRuntime(
            reading, lambda _topic, work=work: work, threshold=DeadLetterThreshold(DeadLetterSpec(), "work")
        )
        running = asyncio.create_task(stream.run())
        if breaks:
            with pytest.raises(RetriableError):
                await running
            continue
        while stream.positions.get((source, 0), 0) < len(values):
            assert not running.done(), running.exception()
            await asyncio.sleep(0.05)
        stream.stop()
        await running
    found = await asyncio.to_thread(lambda: [message.value() for message in read_all(settings, target)])
    assert found == values


@pytest.mark.parametrize("exactly_once", [True, False], ids=["exactly once", "at least once"])
async def test_a_stream_stops_at_the_dead_letter_that_is_one_too_many(
    settings: KafkaSettings, names: Names, make_topic: Any, exactly_once: bool
) -> None:
    source, target, values = _fifty_records(settings, names, make_topic)

    class Refusing(Copying):
        def __call__(self, message: Message, topic: str, partition: int, offset: int) -> tuple[list[Output], Event]:
            if offset >= 30:
                raise FailedRecordError(Failure("STEP map", "map.failed", "no"))
            return super().__call__(message, topic, partition, offset)

    work = Refusing(target, b"", lambda: None)
    threshold = DeadLetterThreshold(DeadLetterSpec(stop_above=2, of=100), "work")
    reading = Reading(settings, names, "work", [source], "earliest", "w")
    stream = StreamRuntime(reading, lambda _topic: work, exactly_once=exactly_once, threshold=threshold)
    with pytest.raises(HaltError, match="3 of the last 33 records"):
        await stream.run()

    def written(topic: str) -> list[bytes | None]:
        return [message.value() for message in read_all(settings, topic)]

    assert await asyncio.to_thread(written, target) == values[:30]
    assert await asyncio.to_thread(written, names.dead_letters("work")) == values[30:33]
    (committed,) = await asyncio.to_thread(
        settings.reader(group=names.group("work")).committed, [TopicPartition(source, 0)], 15
    )
    assert committed.offset == 33


@pytest.mark.parametrize("exactly_once", [True, False], ids=["exactly once", "at least once"])
async def test_a_stream_whose_producer_rests_writes_what_comes(
    settings: KafkaSettings, names: Names, make_topic: Any, monkeypatch: pytest.MonkeyPatch, exactly_once: bool
) -> None:
    monkeypatch.setattr("trunkline.bus.kafka.producing.REST_SECONDS", 0.0)
    source, target = make_topic("in"), make_topic("out")
    ensure_topics(settings, [TopicPlan(names.retry("work"), 1), TopicPlan(names.dead_letters("work"), 1)])
    work = Copying(target, b"", lambda: None)
    reading = Reading(settings, names, "work", [source], "earliest", "w")
    threshold = DeadLetterThreshold(DeadLetterSpec(), "work")
    stream = StreamRuntime(reading, lambda _topic: work, exactly_once=exactly_once, threshold=threshold)
    writer = settings.producer()
    running = asyncio.create_task(stream.run())
    try:
        for value in (b"a", b"b"):
            writer.produce(source, value, partition=0)
            assert await asyncio.to_thread(writer.flush, 15) == 0
            while stream.positions.get((source, 0), 0) <= (value == b"b") or not stream._producers.resting:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.05)
    finally:
        stream.stop()
        await running
    found = await asyncio.to_thread(lambda: [message.value() for message in read_all(settings, target)])
    assert found == [b"a", b"b"]


# --- sinks ---


@pytest.mark.parametrize(("current", "commit"), [(True, 1), (False, 0)])
def test_what_ends_after_its_partition_went_away_moves_no_commit(
    settings: KafkaSettings, names: Names, current: bool, commit: int
) -> None:
    failures: list[TrunklineError] = []
    tickets = Tickets(
        names, "out", "w", settings.producer(), DeadLetterThreshold(DeadLetterSpec(), "out"), failures.append
    )
    partition: Partition = ("orders", 0)
    tickets.take([Assigned(partition, 0, Ledger(), None)])
    work = tickets.works[partition]
    work.tracker.add(0)
    if not current:
        tickets.let_go([partition])
    tickets.settle(SinkTicket(work, Mock(), 0, "correlation", tickets), "delivered", None)
    work.tracker.advance()
    assert work.tracker.commit == work.tracker.ledger.delivered == commit
    assert len(tickets.trace) == 1, "what happened is in the trace, whoever commits it"


# --- redrive ---


async def test_a_redrive_that_is_cancelled_and_begun_again_sends_each_letter_once(
    settings: KafkaSettings, names: Names
) -> None:
    plans = [TopicPlan(names.dead_letters("out"), 1), TopicPlan(names.retry("out"), 1)]
    ensure_topics(settings, plans)

    def run() -> list[bytes | None]:
        producer = settings.producer()
        for number in range(4):
            headers = dead_letter_headers(
                [("ce_id", str(number).encode())],
                pipeline="out",
                task="w",
                topic="orders",
                partition=0,
                offset=number,
                failure=Failure("SINK", "sink.rejected", "no"),
            )
            produce(producer, names.dead_letters("out"), str(number).encode(), None, headers)
        assert producer.flush(15) == 0
        redrive = Redrive(settings, names, "out")
        letters = redrive.waiting()
        sent: list[int] = []
        assert redrive.send(letters, rate=1.5, on_progress=sent.append, cancelled=lambda: bool(sent)) == 1
        assert [letter.value for letter in redrive.waiting()] == [b"1", b"2", b"3"]
        assert redrive.send(letters) == 3, "the one that was sent is sent again although it is marked"
        assert redrive.send(letters) == 0
        assert redrive.waiting() == []
        return [message.value() for message in read_all(settings, names.retry("out"))]

    assert await asyncio.to_thread(run) == [b"0", b"1", b"2", b"3"]
