"""Row 27: topics are deleted and made anew under load, while their pipelines run and while they don't."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import ID
from tests.chaos.history import Acknowledged, DeadLetter, Effect, History, Sent
from tests.integration.bus_harness import Asked, Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from tests.remaking import make_anew
from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.deadletters import DeadLetter as Letter
from trunkline.bus.kafka import end_offsets, headers_of, offset_of, produce, read_all
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.states import State
from trunkline.bus.topics import TopicPlan

SINK, STREAM = "out", "copy"
RUNNING, STOPPED = "made anew while it ran", "made anew while it was stopped"
PARTITIONS = 2
TICK = 0.05
Places = dict[int, int]
"""Offsets by partition."""


class Writer:
    """Writes orders all the time, into whatever topic has the name."""

    def __init__(self, run: Run, made: Bus, topic: str) -> None:
        self._run, self._made, self._topic = run, made, topic
        self._producer = made.settings.producer()
        self._may = asyncio.Event()
        self._idle = asyncio.Event()
        self.count = 0

    async def work(self) -> None:
        """Writes until it is cancelled."""
        encoder = await self._made.encoder(self._topic)
        while True:
            if not self._may.is_set():
                await asyncio.to_thread(self._producer.flush, 30)
                self._idle.set()
                await self._may.wait()
            for _ in range(max(1, round(self._run["rate"] * TICK))):
                number, self.count = self.count, self.count + 1
                value = encoder.encode(order(number, f"c{number % 20}"))
                headers = [(ID, str(number).encode())]
                with contextlib.suppress(KafkaException):  # there is no topic just now
                    produce(
                        self._producer, self._topic, value, f"{number % 20}".encode(), headers, on_delivery=_whatever
                    )
            self._producer.poll(0)
            await asyncio.sleep(TICK)

    def go_on(self) -> None:
        """Writes from now on."""
        self._idle.clear()
        self._may.set()

    async def rest(self) -> None:
        """Writes nothing more, and waits for what is on its way."""
        self._may.clear()
        await self._idle.wait()


def _whatever(_error: KafkaError | None, _message: Message) -> None:
    """What is lost on its way to a topic that is being deleted was never in one."""


@dataclass
class Play:
    """The pipelines, their topics, and what is known of what became of the orders."""

    run: Run
    made: Bus
    endpoint: Endpoint
    topic: str
    copies: str
    begun: dict[str, Places] = field(default_factory=dict)
    """Where each pipeline was told to begin in the topic that there is now."""
    history: History = field(default_factory=History)
    healed: bool = False

    def answer(self, asked: Asked, _times: int) -> int:
        """Every so many orders are refused, until the end."""
        return 422 if not self.healed and asked.json["id"] % self.run["bad"] == 0 else 200

    # --- what there is ---

    def there(self) -> dict[tuple[int, int], str]:
        """The orders in the topic now, by place."""
        found = gather.committed(self.made.settings, self.topic)
        return {(one.partition() or 0, offset_of(one)): _id(one) for one in found}

    def done(self) -> set[str]:
        """The orders that either pipeline has dealt with."""
        copied = {_id(one) for one in gather.committed(self.made.settings, self.copies)}
        return copied | {str(number) for number in self.endpoint.ids(f"/{SINK}")}

    # --- rounds ---

    async def until_caught_up(self) -> None:
        """Waits until both pipelines have committed everything, and notes what they are answerable for."""
        ends = await asyncio.to_thread(end_offsets, self.made.settings, self.topic)
        wanted = {(self.topic, partition): end for partition, end in ends.items()}

        async def reached() -> bool:
            for pipeline in (SINK, STREAM):
                found = await asyncio.to_thread(committed, self.made.settings, self.made.names, pipeline, list(wanted))
                if {place: offset for place, (offset, _) in found.items()} != wanted:
                    return False
            return True

        await self.made.until(reached, "both pipelines at the end", 200)
        there = await asyncio.to_thread(self.there)
        for pipeline in (SINK, STREAM):
            begun = self.begun.get(pipeline, {})
            for (partition, offset), number in there.items():
                if offset >= begun.get(partition, 0):
                    self.history.add(Acknowledged(number, pipeline))
            checks = await asyncio.to_thread(reconcile, self.made.settings, self.made.names, pipeline)
            self.run.claim(all(one.closes for one in checks), f"the ledger of {pipeline} does not close: {checks}")
        self.history.extend(await asyncio.to_thread(self._letters))

    def _letters(self) -> list[DeadLetter]:
        found = read_all(self.made.settings, self.made.names.dead_letters(SINK))
        return [DeadLetter(Letter.from_message(one).header(ID), SINK) for one in found]

    def remake(self, topics: Iterable[str]) -> tuple[str, str]:
        """Deletes topics and makes them anew; gives the ids of the input before and after."""
        return make_anew(self.made.settings, [TopicPlan(name, PARTITIONS) for name in topics])[self.topic]

    async def until_told(self, ids: tuple[str, str]) -> None:
        """Waits until both pipelines say what happened, and claims that nothing of the new topic was touched."""
        for pipeline in (SINK, STREAM):
            await self.made.until(lambda one=pipeline: self._is_told(one), f"{pipeline} FAILED", 120)  # type: ignore[misc]
            reason = self.made.report(pipeline).reason or ""
            self.run.claim(all(one in reason for one in (self.topic, *ids)), f"{pipeline} does not name it: {reason}")
        done, there = await asyncio.to_thread(self.done), await asyncio.to_thread(self.there)
        early = sorted(done & set(there.values()))
        self.run.claim(not early, f"{len(early)} records of the new topic were read before anybody chose: {early[:5]}")

    def _is_told(self, pipeline: str) -> bool:
        report = self.made.report(pipeline)
        return report.state is State.FAILED and report.code == "topic.made_anew"

    async def choose(self) -> None:
        """A person chooses for each pipeline: the new topic from its beginning, or from now on."""
        for pipeline in (SINK, STREAM):
            target = "earliest" if self.run.chance.random() < 0.7 else "latest"
            planned = await self.made.set_offsets(pipeline, target, topics=[self.topic])  # type: ignore[arg-type]
            self.begun[pipeline] = {one.partition: one.offset for one in planned.moves}

    async def redrive(self) -> None:
        """Sends every letter that waits: one for each that is in the topic now, and none that is not."""
        redrive = Redrive(self.made.settings, self.made.names, SINK)
        waiting = await asyncio.to_thread(redrive.waiting)
        there = {one.id for one in await asyncio.to_thread(self._letters)}
        self.run.claim({one.header(ID) for one in waiting} == there, "a letter does not wait, and was never sent")
        self.healed = True
        await asyncio.to_thread(redrive.send, waiting, by="a person")
        await self.made.until(
            lambda: there <= {str(one["id"]) for one in self.endpoint.effects_at(f"/{SINK}")},
            "the letters delivered",
            120,
        )
        self.run.note("redriven", len(there))

    def end(self, count: int) -> History:
        """Everything that is known."""
        for number in range(count):
            self.history.extend([Sent(str(number), SINK), Sent(str(number), STREAM)])
        self.history.extend(Effect(str(one["id"]), SINK) for one in self.endpoint.effects_at(f"/{SINK}"))
        copied = gather.committed(self.made.settings, self.copies)
        self.history.extend(Effect(_id(one), STREAM) for one in copied)
        return self.history


@row(
    27,
    "topics made anew",
    load="{rate} events/s through a stream and a sink, one of {bad} refused",
    fault="the input deleted and made anew {times} times, running and stopped by turns, the dead letters with it every second time",
    full={"rate": 500, "times": 12, "bad": 50},
    short={"rate": 100, "times": 2, "bad": 10},
    minutes=20,
)
async def topics_made_anew(run: Run) -> None:
    """No record of a new topic is read by old offsets or passed over; state and cause are named; the choice is a person's."""
    kafka = await run.kafka()
    endpoint = Endpoint()
    await endpoint.start()
    try:
        async with bus(kafka.bootstrap, run.folder / "worker") as made:
            play = Play(run, made, endpoint, made.name("orders"), made.name("copies"))
            endpoint.answers[f"/{SINK}"] = play.answer
            await made.start(_manifests(play))
            await made.until_running(SINK, STREAM)
            writer = Writer(run, made, play.topic)
            writing = asyncio.create_task(writer.work())
            writer.go_on()
            try:
                for number in range(run["times"]):
                    await _round(play, writer, number)
                await asyncio.sleep(run.chance.uniform(0.2, 1.0))
                await writer.rest()
                await play.until_caught_up()
            finally:
                writing.cancel()
            await play.redrive()
            history = await asyncio.to_thread(play.end, writer.count)
        # Of one key's orders some were refused and sent again at the end: their order says nothing.
        run.judge(history, [Promise(name, (name,), ordered=False) for name in (SINK, STREAM)])
        run.note("events", writer.count)
        run.must_fire(RUNNING, (run["times"] + 1) // 2)
        run.must_fire(STOPPED, run["times"] // 2)
    finally:
        await endpoint.stop()


async def _round(play: Play, writer: Writer, number: int) -> None:
    run, made = play.run, play.made
    await asyncio.sleep(run.chance.uniform(0.2, 1.0))
    await writer.rest()
    await play.until_caught_up()
    writer.go_on()
    await asyncio.sleep(run.chance.uniform(0.0, 0.5))  # what comes now may be gone before it is read
    topics = [play.topic, *([made.names.dead_letters(SINK)] if number % 4 in {1, 2} else [])]
    stopped = number % 2 == 1
    if stopped:
        await made.stop()
    ids = await asyncio.to_thread(play.remake, topics)
    run.fires({STOPPED if stopped else RUNNING: 1})
    if stopped:
        await made.start()
    await play.until_told(ids)
    await play.choose()


def _manifests(play: Play) -> str:
    stream = f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {STREAM}}}
spec: {{from: "{play.topic}", start: earliest, steps: [], to: "{play.copies}"}}
"""
    return (
        topic_manifest(play.topic, PARTITIONS)
        + topic_manifest(play.copies, PARTITIONS)
        + http_connection("peer", play.endpoint.url)
        + http_sink(SINK, play.topic, connection="peer")
        + stream
    )


def _id(message: Message) -> str:
    return next(value.decode() for name, value in headers_of(message) if name == ID)
