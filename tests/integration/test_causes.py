"""Why a pipeline stands still: state, cause, metric and hint say so within seconds, and no longer than it lasts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
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
from confluent_kafka import TopicPartition
from conftest import KafkaUnderTest
from prometheus_client import REGISTRY

from tests.remaking import make_anew
from trunkline.bus.accounting.moves import Target
from trunkline.bus.accounting.trace import find_hops
from trunkline.bus.parking.partitions import parked_records
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import TopicPlan
from trunkline.bus.worker.board import Board, Report
from trunkline.control.status import PipelineStatus, statuses
from trunkline.core.cause import Cause
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
Act = Callable[["Scene"], Awaitable[None]]
SECONDS = 10.0
"""Within this time a cause is told, and no more once it has ended."""
NEWER = {**ORDER, "fields": [*ORDER["fields"], {"name": "colour", "type": "string", "default": ""}]}
"""The schema of orders, changed: who has not met it must ask the registry."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


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

    def filled(self, text: str) -> str:
        """The text with the names of pipeline and topic."""
        return text.replace("NAME", self.name).replace("TOPIC", self.topic)

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


@dataclass(frozen=True)
class Case:
    """What is done, what the cause must say, and what ends it."""

    begin: Act
    end: Act
    code: str
    says: str
    """What stands in the reason."""
    state: State = State.RUNNING
    hint: str = "nothing is lost"
    connection: str = ""
    delivery: str = ""
    retry: str = "attempts: 1000, min_delay: 20ms, max_delay: 200ms"
    schema: Any = field(default_factory=lambda: ORDER)
    extra: str = ""
    """More of the topic's manifest."""
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the cause by name; a function judges."""
    lasts: float = 0.0
    """Seconds for which it lasts, and is told without a gap."""


def some(value: Any) -> bool:
    """It is there."""
    return bool(value)


CASES = {
    "503": Case(
        answering(503),
        mended,
        "http.503",
        "answered 503",
        connection="  breaker: {calls: 1000}\n",
        fields={"attempt": some, "attempts": 1000, "next_try": some, "since": some, "records": 3, "account": None},
    ),
    "429 with a time": Case(
        answering(429, Retry_After="2"),
        mended,
        "http.429",
        "answered 429",
        fields={"next_try": some, "account": "NAME-peer"},
    ),
    "breaker": Case(
        answering(503),
        mended,
        "breaker.open",
        "answered 503",
        connection="  breaker: {calls: 1, wait: 200ms, longest: 200ms}\n",
        fields={
            "error_code": "http.503",
            "breaker": lambda word: word in {"open", "half-open"},
            "account": "NAME-peer",
        },
    ),
    "no answer": Case(
        unanswered,
        answered,
        "sink.no_answer",
        "no answer to the calls under way",
        fields={"since": some, "records": some},
    ),
    "budget": Case(
        answering(200),
        unlimited,
        "budget.exhausted",
        "its limit of 1 is used up (per_minute)",
        connection="  limits: {per_minute: 1}\n",
        fields={"account": "NAME-peer", "limit": "per_minute", "next_try": some},
    ),
    "parked keys": Case(
        answering(503),
        mended,
        "parked.keys",
        "answered 503",
        hint="trunkline parked ls NAME",
        retry="attempts: 2, min_delay: 20ms, max_delay: 200ms",
        connection="  breaker: {calls: 1000}\n",
        fields={"error_code": "http.503", "parked_keys": 3, "parked_records": 3, "attempt": some},
    ),
    "paused": Case(
        wished(Desired.PAUSED),
        wished(),
        "pipeline.paused",
        "paused by a test",
        state=State.PAUSED,
        hint="trunkline resume NAME",
        fields={"by": "a test", "since": some},
    ),
    "stopped": Case(
        wished(Desired.STOPPED),
        wished(),
        "pipeline.stopped",
        "stopped by a test",
        state=State.STOPPED,
        hint="trunkline resume NAME",
        fields={"by": "a test"},
    ),
    "401": Case(
        answering(401),
        mended,
        "http.unauthorized",
        "answered 401",
        state=State.FAILED,
        hint="credentials",
        fields={"attempt": some},
    ),
    "registry away": Case(
        registry_away,
        registry_back,
        "registry.refused",
        "can't be reached",
        state=State.RESTARTING,
        hint="TRUNKLINE_REGISTRY_URL",
        fields={"attempt": some, "since": some},
        lasts=12.0,
    ),
    "schema unknown": Case(
        no_subject,
        registered,
        "schema.no_subject",
        "TOPIC-value",
        state=State.FAILED,
        hint="`subject` in the Topic manifest",
        schema=None,
        fields={"attempt": some, "since": some},
        lasts=6.0,
    ),
    "topic missing": Case(
        topic_deleted,
        topic_made,
        "topic.missing",
        "the topic TOPIC does not exist",
        state=State.FAILED,
        hint="it goes on as soon as it exists",
        extra=", external: true",
        fields={"since": some, "next_try": None},
    ),
    "topic made anew": Case(
        made_anew,
        offsets_set("earliest"),
        "topic.made_anew",
        "the topic TOPIC was deleted and made anew",
        state=State.FAILED,
        hint="`trunkline offsets set NAME --to earliest --topic TOPIC` reads the new topic from its beginning",
        fields={"since": some, "next_try": None},
    ),
    "truncated": Case(
        truncated,
        offsets_set("after-gap"),
        "offsets.out_of_range",
        "TOPIC[0] is committed up to ",
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
    scene.manifests = (
        topic_manifest(scene.topic, schema=case.schema, extra=case.extra)
        + http_connection(f"{pipeline}-peer", endpoint.url)
        + case.connection
        + http_sink(pipeline, scene.topic, connection=f"{pipeline}-peer", retry=case.retry, delivery=case.delivery)
    )
    if case.extra:
        await running.create(scene.topic)
    await running.add(scene.manifests)
    await running.until_running(pipeline)
    assert running.report(pipeline).cause is None
    await case.begin(scene)
    await told_and_ended(scene, case)
    await running.remove(scene.manifests)


async def told_and_ended(scene: Scene, case: Case) -> None:
    """The cause that has begun is told everywhere, as long as it lasts, and no more once it has ended."""
    made, pipeline = scene.bus, scene.name
    deadline = time.monotonic() + SECONDS

    def told() -> Report | None:
        report = made.report(pipeline)
        return report if report.code == case.code and _has(report.cause, case, scene) else None

    async def in_status() -> PipelineStatus | None:
        found = await scene.status()
        return found if found.cause is not None and found.cause.code == case.code else None

    report: Report = await made.until(told, f"the cause {case.code}", SECONDS)
    _judge(report, case, scene)
    await made.until(lambda: _metric(pipeline, case.code) == 1.0, "the metric", deadline - time.monotonic())
    status: PipelineStatus = await made.until(in_status, "the status", deadline - time.monotonic())
    _judge(status, case, scene)

    def lasted() -> bool:
        now = made.report(pipeline)
        assert (now.state, now.code) == (case.state, case.code), "it is told as long as it lasts"
        assert now.cause is not None
        return time.time() - now.cause.since > case.lasts

    if case.lasts:
        await made.until(lasted, f"{case.lasts:g} s of it")
    await case.end(scene)
    deadline = time.monotonic() + SECONDS
    await made.until(
        lambda: made.report(pipeline).state is State.RUNNING and made.report(pipeline).cause is None,
        f"the end of {case.code}",
        SECONDS,
    )
    await made.until(lambda: _metric(pipeline, case.code) is None, "the end of the metric", deadline - time.monotonic())

    async def clear() -> bool:
        found = await scene.status()
        return found.state is State.RUNNING and found.cause is found.reason is found.hint is None

    await made.until(clear, "the end of the status", deadline - time.monotonic())


def _judge(told: Report | PipelineStatus, case: Case, scene: Scene) -> None:
    assert told.state is case.state
    assert scene.filled(case.says) in (told.reason or "")
    assert scene.filled(case.hint) in (told.hint or "")


def _metric(pipeline: str, code: str) -> float | None:
    return REGISTRY.get_sample_value("trunkline_pipeline_cause", {"pipeline": pipeline, "code": code})


def _has(cause: Cause | None, case: Case, scene: Scene) -> bool:
    for name, wanted in case.fields.items():
        found = getattr(cause, name)
        if callable(wanted):
            if not wanted(found):
                return False
        elif found != (scene.filled(wanted) if isinstance(wanted, str) else wanted):
            return False
    return True


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
