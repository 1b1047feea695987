"""Row 9: between every client and the broker stands a network that cuts, swallows, delays, and loses answers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, Producer

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.faults.brokers import Broker
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.faults.processes import Fleet
from tests.chaos.faults.proxy import DELAY, LOST_REPLY, RESET, SILENCE, TcpProxy
from tests.chaos.history import Acknowledged, Attempt, History, Sent
from tests.chaos.scene import HELD_AT_MOST, PATIENCE, Route, Scene, event_id
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.topics import TopicPlan, ensure_topics

INJECTIONS = "injections"
KINDS = (RESET, SILENCE, DELAY, LOST_REPLY)
DELAY_SECONDS = 0.5
MET_SECONDS = 30.0
PLAIN = "plain-producer"


@row(
    9,
    "a bad network",
    load="{events:,} events file → stream → http, fed bit by bit, and an idempotent producer beside it, all through a TCP proxy",
    fault="{injections} times one of reset, black hole (up to {hole} s), a delay of 500 ms, answers lost",
    full={"events": 30_000, "injections": 60, "hole": 12},
    short={"events": 800, "injections": 4, "hole": 1},
    minutes=12,
)
async def bad_network(run: Run) -> None:
    """Nothing acknowledged is lost, and no producer's second try stands in a topic beside its first."""
    broker = await run.own_broker(proxied=True)
    assert broker.proxy is not None
    direct = KafkaSettings(broker.direct)
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        scene = FedScene(direct, server, run.folder, run.chance, run["events"], 1, partitions=4, size=200)
        scene.through = broker.bootstrap
        project = await asyncio.to_thread(scene.prepare)
        topic = f"{scene.names.namespace}.plain"
        await asyncio.to_thread(ensure_topics, direct, [TopicPlan(topic, 2)])
        beside = PlainProducer(KafkaSettings(broker.bootstrap), topic)
        with scene.fleet(project) as workers, beside:
            portion = run["events"] // (run["injections"] + 1)
            await asyncio.to_thread(scene.feed, portion)
            await scene.until_effects(1, PATIENCE, workers)
            kinds = [KINDS[number % len(KINDS)] for number in range(run["injections"])]
            run.chance.shuffle(kinds)
            for kind in kinds:
                await asyncio.to_thread(scene.feed, portion)
                await asyncio.to_thread(_inject, run, broker, broker.proxy, kind)
                await asyncio.sleep(run.chance.uniform(0.05, 0.5))  # the gap between two faults is chance's as well
            await asyncio.to_thread(scene.feed, run["events"])
            await scene.until_settled(PATIENCE, workers)
            run.claim(not workers.crashed, f"the worker died: {workers.crashed}")
        run.must_fire(INJECTIONS, run["injections"])
        history = await scene.history()
        await asyncio.to_thread(beside.tell, history, direct)
        run.judge(history, [*scene.promises(most_repeats=run["injections"] * HELD_AT_MOST), beside.promise])
        run.note("records of the producer beside", len(beside.sent))
        run.note("repeated calls", len(history.of(Attempt)) - run["events"])


def _inject(run: Run, broker: Broker, proxy: TcpProxy, kind: str) -> None:
    """One fault, until it has really met somebody. Ends with the network as it should be."""
    before = proxy.fired[kind]
    if kind == RESET:
        _until(lambda: proxy.reset() > 0)
    elif kind == LOST_REPLY:
        proxy.lose_replies(run.chance.randint(1, 3))
        _until(lambda: proxy.fired[kind] > before)
        proxy.lose_replies(0)
    elif kind == DELAY:
        proxy.delay(DELAY_SECONDS)
        _until(lambda: proxy.fired[kind] >= before + 4)
        proxy.delay(0)
    else:
        # Most are short. A long one outlives the time-outs of requests and of transactions.
        longest = run["hole"] if run.chance.random() < 0.2 else min(2.0, run["hole"])
        proxy.black_hole(True)
        try:
            _until(lambda: proxy.fired[kind] > before)
            time.sleep(run.chance.uniform(0.2, longest))  # the fault is a silence of this length
        finally:
            proxy.black_hole(False)
    run.fires({INJECTIONS: proxy.fired[kind] > before})


def _until(met: Any) -> None:
    deadline = time.monotonic() + MET_SECONDS
    while not met() and time.monotonic() < deadline:
        time.sleep(0.02)


@dataclass
class FedScene(Scene):
    """A scene whose file grows as the row feeds it, and whose workers reach the broker through the proxy."""

    through: str = ""
    _waiting: list[str] = field(default_factory=list)

    def prepare(self) -> Path:
        """As the scene's, with everything still to be fed."""
        project = super().prepare()
        self._waiting = self._input.read_text(encoding="utf-8").splitlines(keepends=True)
        self._input.write_text("", encoding="utf-8")
        return project

    def feed(self, count: int) -> None:
        """Appends so many more events, as many as there still are."""
        with self._input.open("a", encoding="utf-8") as file:
            file.writelines(self._waiting[:count])
        del self._waiting[:count]

    def fleet(self, project: Path, *, workers: int = 1) -> Fleet:
        """The workers, behind the proxy."""
        return Fleet(self.through, self.names.namespace, project, self.folder, count=workers)

    @property
    def _input(self) -> Path:
        return self.folder / f"{self.routes[0].name}.jsonl"

    def _manifests(self, route: Route, input_file: Path) -> str:
        return super()._manifests(route, input_file).replace("watch: false", "watch: true, poll_interval: 100ms")

    def _history(self) -> History:
        history = super()._history()
        for route in self.routes:
            history.extend(gather.published(self.kafka, route.first, route.source, event_id))
        return history

    def promises(self, *, most_repeats: int | None = None) -> Sequence[Promise]:
        """The source's own promise comes on top: once and in order in the topic."""
        own = [Promise(route.source, (route.source,)) for route in self.routes]
        return [*own, *super().promises(most_repeats=most_repeats)]


class PlainProducer:
    """The engine's idempotent producer without transactions, in a thread that writes all the while."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self.sent: list[Sent] = []
        self.acknowledged: list[Acknowledged] = []
        self._settings = settings
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="plain-producer", daemon=True)

    def __enter__(self) -> PlainProducer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(150)

    @property
    def promise(self) -> Promise:
        """What is acknowledged stands in the topic, once and in order."""
        return Promise(PLAIN, (PLAIN,))

    def tell(self, history: History, direct: KafkaSettings) -> None:
        """Adds what was sent, acknowledged and written."""
        history.extend(self.sent)
        history.extend(self.acknowledged)
        history.extend(gather.published(direct, self._topic, PLAIN, lambda message: json.loads(message.value() or b"")))

    def _run(self) -> None:
        producer = self._settings.producer()
        number = 0
        while not self._stop.wait(0.02):
            self._send(producer, number)
            number += 1
            producer.poll(0)
        producer.flush(130)

    def _send(self, producer: Producer, number: int) -> None:
        name, key = f"{PLAIN}-{number}", f"k{number % 8}"
        self.sent.append(Sent(name, PLAIN, key, number, time.time()))

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.acknowledged.append(Acknowledged(name, PLAIN, time.time(), by="the broker"))

        producer.produce(self._topic, json.dumps(name), key, on_delivery=delivered)
