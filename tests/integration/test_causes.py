"""Why a pipeline stands still: state, cause, metric and hint say so within seconds, and no longer than it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import (
    ORDER,
    Answer,
    Asked,
    Bus,
    Endpoint,
    Registry,
    bus,
    delete_topic,
    http_connection,
    http_sink,
    order,
    topic_manifest,
)
from causes import SECONDS, Told, by, some, told, told_no_more
from confluent_kafka import TopicPartition
from conftest import KafkaUnderTest

from tests.remaking import make_anew
from trunkline.bus.accounting.moves import Target
from trunkline.bus.accounting.trace import find_hops
from trunkline.bus.parking.partitions import parked_records
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import TopicPlan
from trunkline.bus.worker.board import Board, Heartbeat
from trunkline.control.status import PipelineStatus, statuses
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
Act = Callable[["Scene"], Awaitable[None]]
NEWER = {**ORDER, "fields": [*ORDER["fields"], {"name": "colour", "type": "string", "default": ""}]}
"""The schema of orders, changed: who has not met it must ask the registry."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def registry() -> Registry:
    return Registry()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, registry: Registry, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("worker"), registry=registry) as made:
        await made.start(http_connection("peer", endpoint.url))
        yield made


@dataclass
class Scene:
    """A sink of orders with an account of its own, whose other side answers as the case says."""

    bus: Bus
    endpoint: Endpoint
    registry: Registry
    name: str
    topic: str
    manifests: str = ""
    hanging: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, answer: Callable[[Asked, int], Answer]) -> None:
        """What the other side answers from now on."""
        self.endpoint.answers[f"/{self.name}"] = answer

    async def send(self, count: int = 3) -> None:
        await self.bus.send_orders(self.topic, [order(number, f"c{number}") for number in range(count)])

    async def delivered(self, count: int) -> None:
        await self.bus.until(lambda: self.bus.counts(self.name).get("delivered") == count, f"{count} delivered")

    async def status(self) -> PipelineStatus:
        """What `trunkline status` is given."""
        (found,) = await asyncio.to_thread(statuses, self.bus.cluster, self.name)
        return found


def answering(status: int, **headers: str) -> Act:
    """The other side answers so, and there are records to deliver."""

    async def begin(scene: Scene) -> None:
        scene.answer(
            lambda _asked, _times: (status, {name.replace("_", "-"): value for name, value in headers.items()})
        )
        await scene.send()

    return begin


async def mended(scene: Scene) -> None:
    """The other side takes everything again."""
    scene.answer(lambda _asked, _times: 200)


async def unanswered(scene: Scene) -> None:
    """The other side takes requests, and answers none."""
    scene.endpoint.hold = scene.hanging
    await scene.send()


async def unanswered_polls(scene: Scene) -> None:
    scene.endpoint.hold = scene.hanging


async def refusing_polls(scene: Scene) -> None:
    scene.answer(lambda _asked, _times: 503)


async def answered(scene: Scene) -> None:
    scene.hanging.set()
    scene.endpoint.hold = None


async def registry_away(scene: Scene) -> None:
    """The registry is gone when a record with a schema comes that the worker has not met."""
    encoder = await scene.bus.encoder(scene.topic, NEWER)
    await scene.registry.stop()
    await scene.bus.send(scene.topic, [(encoder.encode({**order(1), "colour": "red"}), b"c1", [])])


async def registry_back(scene: Scene) -> None:
    await scene.registry.start()


async def no_subject(scene: Scene) -> None:
    """A record's schema is in the registry, which has none for the values of this topic."""
    schema = await asyncio.to_thread(scene.bus.registry.register, f"{scene.name}-elsewhere", Schema(ORDER))
    await scene.bus.send(scene.topic, [(Encoder(schema).encode(order(1)), b"c1", [])])


async def registered(scene: Scene) -> None:
    await asyncio.to_thread(scene.bus.registry.register, f"{scene.topic}-value", Schema(ORDER))


async def topic_deleted(scene: Scene) -> None:
    await scene.send()
    await scene.delivered(3)
    await delete_topic(scene.bus.settings, scene.topic)


async def topic_made(scene: Scene) -> None:
    """Its owner makes the topic again."""
    await scene.bus.create(scene.topic)


async def made_anew(scene: Scene) -> None:
    """The topic of which three records were read is another one, with one record."""
    await scene.send()
    await scene.delivered(3)
    await asyncio.to_thread(make_anew, scene.bus.settings, [TopicPlan(scene.topic, 1)])
    await scene.send(1)


async def truncated(scene: Scene) -> None:
    """Records are deleted that a paused sink has not read."""
    await scene.send()
    await scene.delivered(3)
    await scene.bus.wish(scene.name, Desired.STOPPED)
    await scene.bus.until(lambda: scene.bus.report(scene.name).state is State.STOPPED, "stopped")
    await scene.send(4)
    admin = scene.bus.settings.admin()
    (deleted,) = admin.delete_records([TopicPartition(scene.topic, 0, 5)]).values()
    await asyncio.to_thread(deleted.result, 20)
    await scene.bus.wish(scene.name)


def offsets_set(target: Target, **chosen: Any) -> Act:
    """Somebody does what the hint says."""

    async def choose(scene: Scene) -> None:
        await scene.bus.set_offsets(scene.name, target, **chosen)

    return choose


def wished(desired: Desired = Desired.RUNNING, *, restart: bool = False) -> Act:
    """Somebody wants something of the pipeline."""

    async def wish(scene: Scene) -> None:
        await scene.bus.wish(scene.name, desired, restart=restart)

    return wish


async def unlimited(scene: Scene) -> None:
    """The account allows more from now on."""
    await scene.bus.remove(scene.manifests)
    scene.manifests = scene.manifests.replace("limits: {per_minute: 1}", "limits: {per_minute: 1000}")
    await scene.bus.add(scene.manifests)


@dataclass(frozen=True, kw_only=True)
class Case(Told):
    """What is done, what must be told of it, and what ends it."""

    begin: Act
    end: Act
    connection: str = ""
    delivery: str = ""
    retry: str = "attempts: 1000, min_delay: 20ms, max_delay: 200ms"
    schema: Any = field(default_factory=lambda: ORDER)
    extra: str = ""
    """More of the topic's manifest."""
    polls: bool = False
    """Whether it is a source, and no sink."""

    def manifests(self, scene: Scene) -> str:
        """The pipeline and what it needs."""
        name, peer = scene.name, f"{scene.name}-peer"
        if self.polls:
            return topic_manifest(scene.topic, schema=None) + polling(name, scene.topic, scene.endpoint.url)
        return (
            topic_manifest(scene.topic, schema=self.schema, extra=self.extra)
            + http_connection(peer, scene.endpoint.url)
            + self.connection
            + http_sink(name, scene.topic, connection=peer, retry=self.retry, delivery=self.delivery)
        )


def polling(name: str, topic: str, url: str) -> str:
    """A source that asks the endpoint several times a second."""
    peer = http_connection(f"{name}-peer", url).replace("connector: http\n", "connector: http_poll\n")
    return f"""{peer}---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec:
  connector: http_poll
  connection: {name}-peer
  config: {{path: /{name}, interval: 200ms}}
  to: "{topic}"
"""


CASES = {
    "503": Case(
        begin=answering(503),
        end=mended,
        code="http.503",
        says="answered 503",
        connection="  breaker: {calls: 1000}\n",
        fields={"attempt": some, "attempts": 1000, "next_try": some, "since": some, "records": 3, "account": None},
    ),
    "429 with a time": Case(
        begin=answering(429, Retry_After="2"),
        end=mended,
        code="http.429",
        says="answered 429",
        fields={"next_try": some, "account": "NAME-peer"},
    ),
    "breaker": Case(
        begin=answering(503),
        end=mended,
        code="breaker.open",
        says="answered 503",
        connection="  breaker: {calls: 1, wait: 200ms, longest: 200ms}\n",
        fields={
            "error_code": "http.503",
            "breaker": lambda word: word in {"open", "half-open"},
            "account": "NAME-peer",
        },
    ),
    "no answer": Case(
        begin=unanswered,
        end=answered,
        code="sink.no_answer",
        says="no answer to the calls under way",
        fields={"since": some, "records": some},
    ),
    "a source's 503": Case(
        begin=refusing_polls,
        end=mended,
        code="http_poll.unavailable",
        says="answered 503",
        hint="the position of 0 is held",
        polls=True,
        fields={"attempt": some, "next_try": some, "since": some},
        lasts=14.0,
    ),
    "a source's poll without an answer": Case(
        begin=unanswered_polls,
        end=answered,
        code="source.no_answer",
        says="the poll of 0 that is under way has not ended",
        hint="see whether the other system answers",
        polls=True,
        fields={"since": some},
    ),
    "budget": Case(
        begin=answering(200),
        end=unlimited,
        code="budget.exhausted",
        says="its limit of 1 is used up (per_minute)",
        connection="  limits: {per_minute: 1}\n",
        fields={"account": "NAME-peer", "limit": "per_minute", "next_try": some},
    ),
    "parked keys": Case(
        begin=answering(503),
        end=mended,
        code="parked.keys",
        says="answered 503",
        hint="trunkline parked ls NAME",
        retry="attempts: 2, min_delay: 20ms, max_delay: 200ms",
        connection="  breaker: {calls: 1000}\n",
        fields={"error_code": "http.503", "parked_keys": 3, "parked_records": 3, "attempt": some},
    ),
    "paused": Case(
        begin=wished(Desired.PAUSED),
        end=wished(),
        code="pipeline.paused",
        says="paused by a test",
        state=State.PAUSED,
        hint="trunkline resume NAME",
        fields={"by": "a test", "since": some},
    ),
    "stopped": Case(
        begin=wished(Desired.STOPPED),
        end=wished(),
        code="pipeline.stopped",
        says="stopped by a test",
        state=State.STOPPED,
        hint="trunkline resume NAME",
        fields={"by": "a test"},
    ),
    "401": Case(
        begin=answering(401),
        end=mended,
        code="http.unauthorized",
        says="answered 401",
        state=State.FAILED,
        hint="credentials",
        fields={"attempt": some},
    ),
    "registry away": Case(
        begin=registry_away,
        end=registry_back,
        code="registry.refused",
        says="can't be reached",
        state=State.RESTARTING,
        hint="TRUNKLINE_REGISTRY_URL",
        fields={"attempt": some, "since": some},
        lasts=12.0,
    ),
    "schema unknown": Case(
        begin=no_subject,
        end=registered,
        code="schema.no_subject",
        says="TOPIC-value",
        state=State.FAILED,
        hint="`subject` in the Topic manifest",
        schema=None,
        fields={"attempt": some, "since": some},
        lasts=6.0,
    ),
    "topic missing": Case(
        begin=topic_deleted,
        end=topic_made,
        code="topic.missing",
        says="the topic TOPIC does not exist",
        state=State.FAILED,
        hint="it goes on as soon as it exists",
        extra=", external: true",
        fields={"since": some, "next_try": None},
    ),
    "topic made anew": Case(
        begin=made_anew,
        end=offsets_set("earliest"),
        code="topic.made_anew",
        says="the topic TOPIC was deleted and made anew",
        state=State.FAILED,
        hint="`trunkline offsets set NAME --to earliest --topic TOPIC` reads the new topic from its beginning",
        fields={"since": some, "next_try": None},
    ),
    "truncated": Case(
        begin=truncated,
        end=offsets_set("after-gap"),
        code="offsets.out_of_range",
        says="TOPIC[0] is committed up to ",
        state=State.FAILED,
        hint="`trunkline offsets set NAME --to after-gap` goes on after what was deleted",
        fields={"since": some, "next_try": None},
    ),
}
QUICK = ("503", "budget", "parked keys")


def _cases() -> list[Any]:
    return [
        pytest.param(name, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name in sorted(CASES, key=lambda name: name not in QUICK)
    ]


@pytest.mark.parametrize("name", _cases())
async def test_a_pipeline_that_stands_still_says_why_and_goes_on(
    running: Bus, endpoint: Endpoint, registry: Registry, name: str
) -> None:
    case, pipeline = CASES[name], "cause-" + "".join(letter if letter.isalnum() else "-" for letter in name)
    scene = Scene(running, endpoint, registry, pipeline, running.name(pipeline))
    scene.manifests = case.manifests(scene)
    if case.extra:
        await running.create(scene.topic)
    await running.add(scene.manifests)
    if case.polls:
        await running.until(lambda: len(endpoint.to(f"/{pipeline}")) > 1, "the source polls")
    else:
        await running.until_running(pipeline)
    assert running.report(pipeline).cause is None
    await case.begin(scene)
    await told(running, pipeline, case.of(pipeline, scene.topic), scene.status)
    await case.end(scene)
    await told_no_more(running, pipeline, case.code, scene.status)
    await running.remove(scene.manifests)


@pytest.mark.slow
async def test_a_pipeline_whose_worker_was_killed_has_none_until_another_comes(
    running: Bus, endpoint: Endpoint, tmp_path: Path
) -> None:
    topic = running.name("orphan")
    project = tmp_path / "project.yaml"
    project.write_text(
        topic_manifest(topic)
        + http_connection("orphan-peer", endpoint.url)
        + http_sink("orphan", topic, connection="orphan-peer")
    )

    async def status() -> PipelineStatus | None:
        found = await asyncio.to_thread(statuses, running.cluster)
        return next((one for one in found if one.pipeline == "orphan"), None)

    async def runs() -> bool:
        found = await status()
        return found is not None and found.state is State.RUNNING and found.cause is None and found.hint is None

    async def orphaned() -> PipelineStatus | None:
        found = await status()
        return found if found is not None and found.state is State.UNASSIGNED else None

    killed = await _another_worker(running, project, tmp_path / "killed")
    try:
        await running.until(runs, "the pipeline on the other worker")
        (beating,) = await _workers(running, killed.pid)
    finally:
        killed.kill()
        await killed.wait()
    found: PipelineStatus = await by(time.monotonic() + SECONDS, orphaned, "no worker has it")
    assert found.cause is not None
    assert found.failing
    assert (found.cause.code, found.cause.reason) == (
        "worker.none",
        f"no worker has reported it lately: the last one was {beating.worker}",
    )
    assert "`trunkline up` starts another worker" in (found.hint or "")
    assert found.cause.since >= beating.at
    assert [one.fresh for one in await _workers(running, killed.pid)] == [False]
    successor = await _another_worker(running, project, tmp_path / "successor")
    try:
        await by(time.monotonic() + SECONDS, runs, "the pipeline on another worker")
    finally:
        successor.terminate()
        await successor.wait()


async def _another_worker(running: Bus, project: Path, home: Path) -> asyncio.subprocess.Process:
    """A worker in a process of its own, which has begun its pipelines."""
    script = Path(__file__).with_name("bus_worker.py")
    arguments = [running.settings.bootstrap, running.names.namespace, home, project, running.registry_url]
    worker = await asyncio.create_subprocess_exec(sys.executable, script, *arguments, stdout=asyncio.subprocess.PIPE)
    assert worker.stdout is not None
    try:
        async with asyncio.timeout(300):
            async for line in worker.stdout:
                if line.strip() == b"up":
                    return worker
        raise AssertionError("the worker ended")
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
        raise


async def _workers(running: Bus, pid: int) -> list[Heartbeat]:
    """The heartbeats of the worker in a process."""
    found = await asyncio.to_thread(Board(running.settings, running.names).workers)
    return [one for one in found if one.pid == pid]


async def test_parked_keys_are_listed_with_the_last_error_of_their_heads(running: Bus, endpoint: Endpoint) -> None:
    topic = running.name("last-error")
    statuses = iter([500, 500])
    endpoint.answers["/lasting"] = lambda _asked, _times: next(statuses, 503)
    manifests = topic_manifest(topic) + http_sink(
        "lasting", topic, connection="peer", retry="attempts: 2, min_delay: 20ms, max_delay: 200ms"
    )
    await running.add(manifests)
    await running.until_running("lasting")
    await running.send_orders(topic, [order(1)])

    def parked() -> bool:
        found = [record for _, record in parked_records(running.settings, running.names, "lasting")]
        return bool(found) and "answered 503" in found[0].reason and "answered 500" in found[0].first_reason

    async def listed() -> bool:
        return await asyncio.to_thread(parked)

    await running.until(listed, "the last error of the head in the topic")
    ((_, record),) = await asyncio.to_thread(lambda: list(parked_records(running.settings, running.names, "lasting")))
    assert record.attempts > 2
    assert record.reason.startswith(f"{record.attempts} attempts failed; the last: ")
    assert (record.last_failed_at or 0) > (record.first_failed_at or 0)

    async def traced() -> list[str | None]:
        # A sink writes its trace beside the offsets, a moment after the record was parked.
        identity = record.event().correlation_id
        hops = await asyncio.to_thread(find_hops, running.settings, running.names.trace, identity)
        return [hop.detail for hop in hops if hop.outcome == "parked"]

    (detail,) = await running.until(traced, "its hop in the trace")
    assert (detail or "").startswith("http.500: "), "the trace has the code that the cause had"
    endpoint.answers["/lasting"] = lambda _asked, _times: 200
    await running.until(lambda: running.report("lasting").parked_records == 0, "the park empty")
    await running.remove(manifests)


async def test_a_report_carries_its_cause_through_the_status_topic(running: Bus, endpoint: Endpoint) -> None:
    topic = running.name("carried")
    manifests = topic_manifest(topic) + http_sink("carried", topic, connection="peer")
    await running.add(manifests)
    await running.until_running("carried")
    await running.wish("carried", Desired.PAUSED)

    def reported() -> bool:
        found = [one for one in Board(running.settings, running.names).reports() if one.pipeline == "carried"]
        return bool(found) and found[0].cause is not None and found[0].cause == running.report("carried").cause

    async def there() -> bool:
        return await asyncio.to_thread(reported)

    await running.until(there, "the cause on the board")
    await running.remove(manifests)
