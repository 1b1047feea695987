"""A bus under test: a worker on the test's broker, in a namespace of its own, with what a test asks of it.

Nothing waits for a length of time: `Bus.until` asks for a condition until it holds, and says how the pipelines stand when
it does not come to hold.
"""

from __future__ import annotations

import asyncio
import io
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import fastavro
from aiohttp import web
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from tests.namespaces import new_namespace
from trunkline.bus import topics
from trunkline.bus.accounting.moves import Target
from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import KafkaSettings, headers_of, offset_of, produce, read_all
from trunkline.bus.ledger import Ledger, Plan
from trunkline.bus.names import Names
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import TopicPlan, ensure_topics, topic_states
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.wishes import want
from trunkline.bus.worker.worker import Worker
from trunkline.control import offsets
from trunkline.control.cluster import Cluster
from trunkline.control.offsets import OffsetsPlan
from trunkline.core.envelope import Headers
from trunkline.core.manifests import load_text
from trunkline.core.serving.listener import Listener
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema
from trunkline.registry.service import serve_registry
from trunkline.registry.store import MemoryStore

T = TypeVar("T")

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "customer", "type": "string"},
        {"name": "amount", "type": "long"},
        {"name": "note", "type": "string", "default": ""},
    ],
}
"""What most tests send: an order of a customer."""


def order(number: int, customer: str = "c0", amount: int = 1, note: str = "") -> dict[str, Any]:
    """An order."""
    return {"id": number, "customer": customer, "amount": amount, "note": note}


def long_note(size: int = 6000) -> str:
    """A note that no compression makes much shorter."""
    return secrets.token_hex(size // 2)


def topic_manifest(name: str, partitions: int = 1, *, schema: Any = ORDER, extra: str = "") -> str:
    """The manifest of a topic, with orders as its values unless said otherwise."""
    shown = f", schema: {json.dumps(schema)}" if schema is not None else ""
    return f"""---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: "{name}"}}
spec: {{partitions: {partitions}{shown}{extra}}}
"""


def unframed(value: bytes, schema: Any = ORDER) -> Any:
    """The datum in a Confluent-framed value, decoded without any of our own code."""
    assert value[0] == 0
    return fastavro.schemaless_reader(io.BytesIO(value[5:]), fastavro.parse_schema(schema, _write_hint=False))


@dataclass
class Asked:
    """A request that the endpoint received."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    json: Any


Answer = tuple[int, Mapping[str, str]] | int | None
"""A status, a status with headers, or None: the connection is cut without an answer."""


class Endpoint:
    """An HTTP server whose answers a test decides, path by path; 200 where it has not. Who asks by GET is given an empty list.

    An answer is a function of the request and of how often its idempotency key came, from 1.
    """

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.answers: dict[str, Callable[[Asked, int], Answer]] = {}
        self.effects: dict[str, Any] = {}
        """What was accepted, by idempotency key."""
        self._effects_at: dict[str, dict[str, Any]] = {}
        self._times: dict[str, int] = {}
        self._runner: web.ServerRunner | None = None
        self.url = ""
        self.hold: asyncio.Event | None = None
        """While it is there, no request is answered before it is set."""

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Serves, over TLS where a context is given."""
        server = web.Server(self._handle, access_log=None)
        self._runner = web.ServerRunner(server, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512, ssl_context=tls).start()
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._runner.addresses[0][1]}"

    def hang_up(self) -> None:
        """Ends the connections that stand."""
        assert self._runner is not None
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            if connection.transport is not None:
                connection.transport.close()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        asked = Asked(request.path, dict(request.headers), body, json.loads(body) if body else None)
        self.asked.append(asked)
        if self.hold is not None:
            await self.hold.wait()
        key = request.headers.get("Idempotency-Key", "")
        self._times[key] = self._times.get(key, 0) + 1
        decide = self.answers.get(request.path)
        answer = decide(asked, self._times[key]) if decide is not None else 200
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        status, headers = (answer, {}) if isinstance(answer, int) else answer
        if status < 300:
            self.effects[key] = asked.json
            self._effects_at.setdefault(request.path, {}).setdefault(key, asked.json)
        return web.Response(status=status, headers=headers, body=b"[]" if request.method == "GET" else b"")

    def effects_at(self, path: str) -> list[Any]:
        """What was accepted at one path, each idempotency key once, in the order the first of each came."""
        return list(self._effects_at.get(path, {}).values())

    def to(self, path: str) -> list[Asked]:
        """The requests to one path, in the order they came."""
        return [asked for asked in self.asked if asked.path == path]

    def ids(self, path: str) -> list[int]:
        """The ids of the orders that came to one path, in the order they came."""
        return [asked.json["id"] for asked in self.to(path)]


@dataclass
class Bus:
    """A worker and what surrounds it."""

    settings: KafkaSettings
    names: Names
    home: Path
    registry_url: str
    registry: RegistryClient
    worker: Worker | None = None
    manifests: list[str] = field(default_factory=list)
    more: list[Worker] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        """What the services are given."""
        return Cluster(self.settings, self.names, "a test", lambda: nullcontext(self.registry))

    async def set_offsets(self, pipeline: str, target: Target, **chosen: Any) -> OffsetsPlan:
        """Sets the offsets of a pipeline that nobody runs, and gives the plan by which it was done."""

        def change() -> OffsetsPlan:
            planned = offsets.plan(self.cluster, pipeline, target, **chosen)
            offsets.carry_out(self.cluster, planned)
            return planned

        return await asyncio.to_thread(change)

    # --- the worker ---

    def name(self, name: str) -> str:
        """A topic's name that no other test uses."""
        return f"{self.names.namespace}.{name}"

    async def start(self, text: str = "", *, home: Path | None = None) -> Worker:
        """Starts the worker with what `add` gave until now and `text`."""
        if text:
            self.manifests.append(text)
        self.worker = await self._started(home or self.home)
        return self.worker

    async def another(self, home: Path) -> Worker:
        """Starts one more worker with the same manifests."""
        worker = await self._started(home)
        self.more.append(worker)
        return worker

    async def _started(self, home: Path) -> Worker:
        worker = Worker(WorkerSettings(self.settings, self.names, home, registry_url=self.registry_url))
        try:
            await worker.start(load_text("\n---\n".join(self.manifests)))
        except BaseException:
            await worker.close()
            raise
        return worker

    async def add(self, text: str) -> None:
        """Adds manifests to those that the worker runs; the pipelines that run are not disturbed."""
        self.manifests.append(text)
        if self.worker is None:
            await self.start()
        else:
            await self.worker.run_project(load_text("\n---\n".join(self.manifests)))

    async def remove(self, text: str) -> None:
        """Takes manifests away again, so that their pipelines end."""
        self.manifests.remove(text)
        assert self.worker is not None
        await self.worker.run_project(load_text("\n---\n".join(self.manifests)))

    async def stop(self) -> None:
        """Ends the worker gracefully."""
        if self.worker is not None:
            worker, self.worker = self.worker, None
            await worker.close()

    async def close(self) -> None:
        """Ends everything."""
        await asyncio.gather(self.stop(), *(worker.close() for worker in self.more))
        self.registry.close()

    def report(self, pipeline: str, worker: Worker | None = None) -> Report:
        """How a pipeline stands on the worker."""
        worker = worker or self.worker
        assert worker is not None
        return next(report for report in worker.reports if report.pipeline == pipeline)

    def counts(self, pipeline: str) -> dict[str, int]:
        """The ledger of a pipeline on the worker."""
        return self.report(pipeline).counts

    async def wish(self, pipeline: str, desired: Desired = Desired.RUNNING, *, restart: bool = False) -> None:
        """Writes what someone wants of a pipeline to the control topic."""
        await asyncio.to_thread(
            want, self.settings, self.names, [pipeline], by="a test", desired=desired, restart=restart
        )

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
        """Waits until `condition` gives something true, and gives that. What takes long is asked less often."""
        deadline = time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            if time.monotonic() > deadline:
                standing = (
                    [(r.pipeline, str(r.state), r.reason, r.counts) for r in self.worker.reports] if self.worker else []
                )
                raise AssertionError(f"{what} did not come to be in {seconds:g} s; {standing}")
            await asyncio.sleep(max(0.05, 2 * (time.monotonic() - asked)))

    async def until_running(self, *pipelines: str) -> None:
        """Waits until pipelines run and have their partitions."""
        await self.until(
            lambda: all(self.report(one).state is State.RUNNING and self.report(one).positions for one in pipelines),
            f"{', '.join(pipelines)} running",
        )

    async def until_failed(self, pipeline: str, *, failures: int = 1) -> Report:
        """Waits until a pipeline has failed so often that its next restart is minutes away."""

        def failed() -> Report | None:
            report = self.report(pipeline)
            return report if report.state in {State.FAILED, State.RESTARTING} and report.failures >= failures else None

        found: Report = await self.until(failed, f"{pipeline} failed")
        return found

    # --- Kafka ---

    async def create(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Creates a topic."""
        await asyncio.to_thread(ensure_topics, self.settings, [TopicPlan(name, partitions, config=config or {})])

    async def encoder(self, topic: str, schema: Any = ORDER) -> Encoder:
        """The encoder of a topic's values."""
        return Encoder(await asyncio.to_thread(self.registry.register, f"{topic}-value", Schema(schema)))

    async def send_orders(
        self, topic: str, orders: Iterable[Mapping[str, Any]], headers: Headers | None = None
    ) -> None:
        """Writes orders, each keyed by its customer."""
        encoder = await self.encoder(topic)
        await self.send(topic, [(encoder.encode(dict(one)), one["customer"].encode(), headers or []) for one in orders])

    async def send(
        self, topic: str, records: Sequence[tuple[bytes | None, bytes | None, Headers]], partition: int = -1
    ) -> None:
        """Writes records and waits until the broker has them."""

        def write() -> None:
            producer = self.settings.producer()
            failures: list[Any] = []
            for value, key, headers in records:
                produce(
                    producer,
                    topic,
                    value,
                    key,
                    headers,
                    partition=partition,
                    on_delivery=lambda error, _message: failures.append(error) if error is not None else None,
                )
            assert producer.flush(30) == 0
            assert not failures, failures[0]

        await asyncio.to_thread(write)

    async def read(self, topic: str) -> list[Message]:
        """Every committed record of a topic."""
        return await asyncio.to_thread(lambda: list(read_all(self.settings, topic)))

    async def orders(self, topic: str) -> list[dict[str, Any]]:
        """Every committed order of a topic."""
        return [unframed(message.value() or b"") for message in await self.read(topic)]

    async def dead_letters(self, pipeline: str) -> list[DeadLetter]:
        """The dead letters of a pipeline."""
        return [DeadLetter.from_message(one) for one in await self.read(self.names.dead_letters(pipeline))]

    async def commits(self, pipeline: str) -> dict[tuple[str, int], tuple[int, Ledger, Plan | None]]:
        """What a pipeline's group has committed: offset, ledger and plan by partition."""

        def ask() -> dict[tuple[str, int], tuple[int, Ledger, Plan | None]]:
            # Not the administrator's call: it may end the process while the coordinator is not ready (librdkafka#5040).
            consumer = self.settings.reader(committed_only=False, group=self.names.group(pipeline))
            try:
                topics = consumer.list_topics(timeout=20).topics
                places = [
                    TopicPartition(name, number)
                    for name in topics
                    if name.startswith(self.names.namespace)
                    for number in topics[name].partitions
                ]
                parts = consumer.committed(places, timeout=20)
            finally:
                consumer.close()
            return {
                (part.topic, part.partition): (part.offset, *Ledger.from_metadata(part.metadata, part.offset))
                for part in parts
                if part.offset >= 0
            }

        return await asyncio.to_thread(ask)

    async def commit(self, pipeline: str, positions: Mapping[tuple[str, int], tuple[int, str]]) -> None:
        """Commits offsets with metadata for a group that has no member."""

        def write() -> None:
            consumer = self.settings.consumer(self.names.group(pipeline))
            parts = [TopicPartition(*place, offset, metadata) for place, (offset, metadata) in positions.items()]
            try:
                consumer.commit(offsets=parts, asynchronous=False)
            finally:
                consumer.close()

        await asyncio.to_thread(write)


class Registry:
    """A schema registry that can be away for a while."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self._listener: Listener | None = None
        self._port = 0
        self.url = ""

    def replace(self, store: MemoryStore | None = None) -> MemoryStore:
        """Another registry answers at this address from the next start on: an empty one, or one that was there before. Gives the former."""
        before, self._store = self._store, store or MemoryStore()
        return before

    async def start(self) -> None:
        """Serves, at the same address as before."""
        self._listener = await serve_registry(self._store, port=self._port)
        self.url = self._listener.url
        self._port = int(self.url.rsplit(":", 1)[1])

    async def stop(self) -> None:
        """Serves no more."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            await listener.stop()


@asynccontextmanager
async def bus(
    bootstrap: str,
    home: Path,
    *,
    namespace: str | None = None,
    registry: Registry | None = None,
    options: Mapping[str, str] | None = None,
) -> AsyncIterator[Bus]:
    """A bus whose registry is served beside it, and which is closed at the end. `options` are its Kafka clients'."""
    registry = registry or Registry()
    await registry.start()
    names = Names(namespace or new_namespace())
    made = Bus(KafkaSettings(bootstrap, options or {}), names, home, registry.url, RegistryClient(registry.url))
    try:
        yield made
    finally:
        await made.close()
        await registry.stop()


def http_connection(name: str, url: str) -> str:
    """The manifest of a connection of the http sink to an endpoint of the test."""
    return f"""---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: {name}}}
spec:
  connector: http
  config: {{base_url: "{url}", http: {{allow_private: ["127.0.0.1"]}}}}
"""


def http_sink(
    name: str,
    topic: str,
    *,
    connection: str,
    config: str = "",
    delivery: str = "",
    retry: str = "min_delay: 20ms, max_delay: 200ms",
    extra: str = "",
) -> str:
    """The manifest of an http sink that posts to `/<name>`."""
    return f"""---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: "{topic}"
  start: earliest
  connector: http
  connection: {connection}
  config: {{url: /{name}, idempotent: true{config}}}
  delivery: {{retry: {{{retry}}}{delivery}}}
{extra}"""


def text_headers(message: Message) -> dict[str, str]:
    """The headers of a record as text."""
    return {name: value.decode("utf-8", "replace") for name, value in headers_of(message)}


def places(messages: Iterable[Message]) -> list[tuple[int, int]]:
    """Partition and offset of records."""
    return [(message.partition() or 0, offset_of(message)) for message in messages]


async def set_topic(settings: KafkaSettings, topic: str, **config: str) -> None:
    """Changes settings of a topic; `max_message_bytes="100"` stands for `max.message.bytes`."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    admin = settings.admin()  # its answers come only as long as it is referenced
    await asyncio.to_thread(admin.incremental_alter_configs([resource])[resource].result, 20)
    wanted = {name.replace("_", "."): value for name, value in config.items()}
    while not wanted.items() <= (await asyncio.to_thread(topic_states, settings, [topic]))[topic].config.items():
        await asyncio.sleep(0.02)  # the broker answers before the topic is so


async def delete_topic(settings: KafkaSettings, topic: str) -> None:
    """Deletes a topic."""
    await asyncio.to_thread(topics.remove_topic, settings, topic)
