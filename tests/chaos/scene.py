"""The pipelines that most rows load: a file source, a stream and an http sink, several times beside each other.

    file ─▶ <route>-read ─▶ topic ─▶ <route>-work ─▶ topic ─▶ <route>-send ─▶ HttpSinkServer at /<route>-send

Every event has an id, a key and its number within the key, so that a history can be judged.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Message

from tests.chaos import gather
from tests.chaos.checker import Promise
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.faults.processes import Fleet
from tests.chaos.history import History, Sent
from tests.integration.bus_harness import http_connection, http_sink, topic_manifest, unframed
from tests.namespaces import new_namespace
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.core.errors import TrunklineError

EVENT: dict[str, Any] = {
    "type": "record",
    "name": "Event",
    "namespace": "chaos",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "key", "type": "string"},
        {"name": "sequence", "type": "long"},
        {"name": "padding", "type": "string", "default": ""},
    ],
}
HELD_AT_MOST = 1500
"""What a sink may have called for and not committed when it is killed: its high-water mark of 1,000 records, and one poll of 500."""


RETRY = "attempts: 1000, min_delay: 20ms, max_delay: 500ms"
"""How the sinks try again: for as long as a fault lasts."""
PATIENCE = 300.0
"""Seconds that a row waits for something at most: it must come to be, and when is not judged by this."""


@dataclass(frozen=True, slots=True)
class Route:
    """The names of one way from file to sink."""

    name: str
    namespace: str

    @property
    def source(self) -> str:
        """The file source: the door."""
        return f"{self.name}-read"

    @property
    def stream(self) -> str:
        """The stream between."""
        return f"{self.name}-work"

    @property
    def sink(self) -> str:
        """The http sink; its server sees it as the path `/<sink>`."""
        return f"{self.name}-send"

    @property
    def first(self) -> str:
        """The topic that the source writes."""
        return f"{self.namespace}.{self.name}.in"

    @property
    def second(self) -> str:
        """The topic that the sink reads."""
        return f"{self.namespace}.{self.name}.out"


@dataclass
class Scene:
    """The routes of a run, their input and their manifests.

    `events` is the number of all routes together, `size` the bytes of an event's value, about. `delivery` and `config` are added to
    the sinks' manifests, and `steps` are the streams' steps, as YAML in braces or brackets.
    """

    kafka: KafkaSettings
    server: HttpSinkServer
    folder: Path
    chance: random.Random
    events: int
    routes_count: int = 1
    partitions: int = 12
    keys: int = 200
    size: int = 1000
    steps: str = "[{map: {keep: all, set: {sequence: event.sequence + 0}}}]"
    delivery: str = ""
    config: str = ""
    names: Names = field(default_factory=lambda: Names(new_namespace("chaos")))
    sent: dict[str, list[Sent]] = field(default_factory=dict)

    @property
    def routes(self) -> list[Route]:
        """The routes."""
        return [Route(f"r{number}", self.names.namespace) for number in range(self.routes_count)]

    def prepare(self) -> Path:
        """Writes the input files and the project, and gives the project's path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = [http_connection("peer", self.server.url)]
        for number, route in enumerate(self.routes):
            count = self.events // self.routes_count + (number < self.events % self.routes_count)
            events = self._events(route, count)
            input_file = self.folder / f"{route.name}.jsonl"
            with input_file.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(event) + "\n" for event in events)
            now = time.time()
            self.sent[route.name] = [
                Sent(event["id"], route.source, event["key"], event["sequence"], now) for event in events
            ]
            text.append(self._manifests(route, input_file))
        project = self.folder / "project.yaml"
        project.write_text("\n".join(text), encoding="utf-8")
        return project

    def fleet(self, project: Path, *, workers: int = 1) -> Fleet:
        """The workers that run the project."""
        return Fleet(self.kafka.bootstrap, self.names.namespace, project, self.folder, count=workers)

    def _events(self, route: Route, count: int) -> list[dict[str, Any]]:
        padding = "".join(self.chance.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=max(0, self.size - 60)))
        sequences = [0] * self.keys
        events = []
        for number in range(count):
            key = self.chance.randrange(self.keys)
            cut = self.chance.randrange(len(padding) + 1)  # what repeats exactly would be compressed to nothing
            own = padding[cut:] + padding[:cut]
            events.append(
                {"id": f"{route.name}-{number}", "key": f"k{key}", "sequence": sequences[key], "padding": own}
            )
            sequences[key] += 1
        return events

    def _manifests(self, route: Route, input_file: Path) -> str:
        return (
            topic_manifest(route.first, self.partitions, schema=EVENT)
            + topic_manifest(route.second, self.partitions, schema=EVENT)
            + file_source(route, input_file)
            + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {route.stream}}}
spec:
  from: "{route.first}"
  start: earliest
  steps: {self.steps}
  to: "{route.second}"
"""
            + http_sink(
                route.sink, route.second, connection="peer", config=self.config, delivery=self.delivery, retry=RETRY
            )
        )

    # --- while it runs ---

    async def until(
        self,
        condition: Callable[[], Any],
        what: str,
        seconds: float,
        *,
        pause: float = 0.2,
        workers: Fleet | None = None,
    ) -> None:
        """Waits until a condition holds; it is asked in a thread. Says what the workers wrote where it does not come to hold."""
        deadline, asked = time.monotonic() + seconds, time.monotonic()
        while not await asyncio.to_thread(_holds, condition):
            if time.monotonic() > deadline:
                said = workers.logs[-6000:] if workers is not None else ""
                raise TimeoutError(f"{what} did not come to be in {seconds:g} s\n{said}")
            if workers is not None:
                workers.revive()
            await asyncio.sleep(max(pause, 2 * (time.monotonic() - asked)))  # what takes long is asked less often
            asked = time.monotonic()

    async def until_settled(self, seconds: float, workers: Fleet | None = None) -> None:
        """Waits until the sinks' ledgers account for every event."""

        ledgers = gather.Ledgers(self.kafka, self.names)
        left = list(self.routes)

        def settled() -> bool:
            while left and ledgers.read(left[0].sink, left[0].second) >= len(self.sent[left[0].name]):
                left.pop(0)
            return not left

        try:
            await self.until(settled, "everything settled", seconds, workers=workers)
        finally:
            await asyncio.to_thread(ledgers.close)

    async def until_effects(self, count: int, seconds: float, workers: Fleet | None = None) -> None:
        """Waits until so many effects took place in the sinks' server."""
        await self.until(lambda: self.server.effects >= count, f"{count} effects", seconds, pause=0.05, workers=workers)

    # --- afterwards ---

    async def history(self) -> History:
        """Everything that is known of the run."""
        return await asyncio.to_thread(self._history)

    def _history(self) -> History:
        history = History()
        for route in self.routes:
            sent = self.sent[route.name]
            history.extend(sent)
            history.extend(gather.acknowledged(self.kafka, self.names, route.source, [one.id for one in sent]))
            history.extend(gather.placed(self.kafka, route.first, event_id))
            history.extend(gather.passed_on(self.kafka, route.second, route.stream, event_id))
        pipelines = [name for route in self.routes for name in (route.stream, route.sink)]
        history.extend(gather.commits(self.kafka, self.names, pipelines))
        history.extend(self.server.facts({f"/{route.sink}": route.sink for route in self.routes}))
        return history

    def promises(self, *, most_repeats: int | None = None) -> Sequence[Promise]:
        """What streams and sinks promise: each effect once, in order, and at most so many repeated calls of each sink."""
        streams = [Promise(route.stream, (route.source,)) for route in self.routes]
        return [*streams, *(Promise(route.sink, (route.source,), most_repeats=most_repeats) for route in self.routes)]


def file_source(route: Route, input_file: Path) -> str:
    """The manifest of a route's source, which reads its file once."""
    return f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {route.source}}}
spec:
  connector: file
  config: {{path: "{input_file}", format: jsonl, watch: false, batch: 500}}
  to: {{topic: "{route.first}", key: event.key}}
"""


def event_id(message: Message) -> str:
    """The id of the event in a record of the scene's topics."""
    value = message.value()
    assert isinstance(value, bytes)
    found: str = unframed(value, EVENT)["id"]
    return found


def _holds(condition: Callable[[], Any]) -> bool:
    try:
        return bool(condition())
    except TrunklineError:
        return False  # the broker is away for a while: asked again
