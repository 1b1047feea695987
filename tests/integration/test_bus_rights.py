"""A worker whose user is refused, or may not do all that its pipelines need: they say so, instead of standing still as if all were well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from bus_harness import Bus, Endpoint, Registry, http_connection, http_sink, order, topic_manifest
from confluent_kafka.admin import AclOperation
from structlog.testing import capture_logs

from tests.integration.kafka_listeners import ManyListeners, scram
from tests.rights import Rights
from trunkline.bus.kafka import produce_and_wait
from trunkline.bus.names import Names
from trunkline.bus.states import Desired, State
from trunkline.control.wishes import want
from trunkline.registry.client import RegistryClient

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
NAMESPACE = "rights"
PASSWORD = "works"
USER = "worker"


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyListeners]:
    made = ManyListeners(tmp_path_factory.mktemp("listeners"))
    with made.broker:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rights(listeners: ManyListeners) -> Rights:
    made = Rights(listeners.settings("OPEN"), USER)
    made.set_password(PASSWORD)
    return made


@pytest_asyncio.fixture(loop_scope="module")
async def running(rights: Rights, listeners: ManyListeners, tmp_path: Path) -> AsyncIterator[Bus]:
    registry = Registry()
    await registry.start()
    settings = listeners.settings("CLIENT", scram(USER, PASSWORD))
    made = Bus(settings, Names(NAMESPACE), tmp_path, registry.url, RegistryClient(registry.url))
    yield made
    await made.close()
    await registry.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


def schedule(name: str, topic: str) -> str:
    """The manifest of a source that publishes once an hour."""
    return f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec:
  connector: schedule
  config: {{cron: "0 * * * *", payload: {{report: hourly}}}}
  to: {topic}
"""


async def test_a_source_that_may_not_join_its_group_says_so_and_goes_on_once_it_may(
    running: Bus, rights: Rights
) -> None:
    await asyncio.to_thread(rights.grant, NAMESPACE, "topics", "transactions")
    topic = running.name("hourly")
    await running.start(topic_manifest(topic, schema=None) + schedule("hourly", topic))

    await running.until(lambda: running.report("hourly").state is State.FAILED, "the source failed")

    cause = running.report("hourly").cause
    assert cause is not None
    assert cause.code == "kafka.denied_group"
    assert "grant its principal READ on the consumer groups" in (cause.hint or "")

    await asyncio.to_thread(rights.grant, NAMESPACE, "groups")

    await running.until(
        lambda: running.report("hourly").state is State.RUNNING and running.report("hourly").cause is None, "it runs"
    )


async def test_a_webhook_source_that_may_not_write_any_more_fails_instead_of_answering_503_for_ever(
    running: Bus, rights: Rights
) -> None:
    await asyncio.to_thread(rights.grant, NAMESPACE, "topics", "transactions", "groups")
    topic = running.name("hooks")
    worker = await running.start(
        topic_manifest(topic, schema=None)
        + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: hooks}}
spec:
  connector: webhook
  config: {{path: /hooks, verify: {{provider: none}}, payload: document}}
  to: {topic}
"""
    )
    async with aiohttp.ClientSession() as session:

        async def status() -> int:
            async with session.post(f"{worker.ingress.url}/hooks", json={"id": 1}) as answer:
                return answer.status

        async def accepted() -> bool:
            return bool(worker.ingress.url) and await status() == 202

        await running.until(accepted, "a request is accepted")
        await asyncio.to_thread(rights.deny, "topics", topic, AclOperation.WRITE)

        async def failed() -> bool:
            cause = running.report("hooks").cause
            return await status() == 503 and cause is not None and cause.code == "kafka.denied_topic"

        await running.until(failed, "the source says why")
        for _ in range(20):
            assert await status() == 503, "a 404 would have senders give up"
            await asyncio.sleep(0.02)


async def test_a_password_changed_under_a_worker_is_named_and_nothing_is_lost(
    running: Bus, rights: Rights, listeners: ManyListeners, endpoint: Endpoint
) -> None:
    await asyncio.to_thread(rights.grant, NAMESPACE, "topics", "transactions", "groups")
    topic = running.name("orders")
    await running.start(
        topic_manifest(topic) + http_connection("peer", endpoint.url) + http_sink("delivered", topic, connection="peer")
    )
    await running.until_running("delivered")
    begun = [order(number, "early") for number in range(5)]
    await running.send_orders(topic, begun)
    await running.until(lambda: len(endpoint.effects) == len(begun), "the first orders are delivered")

    def cause() -> str | None:
        found = running.report("delivered").cause
        return found.code if found is not None else None

    with capture_logs() as logged:
        await asyncio.to_thread(rights.set_password, "another")
        await asyncio.to_thread(listeners.broker.stop)
        await asyncio.to_thread(listeners.broker.start)
        await running.until(lambda: cause() == "kafka.authentication", "the refused password is the cause", 60)
        warned = [one for one in logged if one["log_level"] == "warning" and one.get("code") == "kafka.authentication"]
        assert warned, "what the clients said is in the log"
        assert len(warned) < 10, "it is no flood"
    found = running.report("delivered").cause
    assert found is not None
    assert listeners.address("CLIENT") in found.reason
    assert "SASL_PASSWORD" in (found.hint or "")
    assert PASSWORD not in str(found)
    outside = replace(running, settings=listeners.settings("OPEN"))
    late = [order(number, "late") for number in range(5, 55)]
    await outside.send_orders(topic, late)

    await asyncio.to_thread(rights.set_password, PASSWORD)
    await running.until(lambda: cause() is None, "there is no cause any more", 60)
    await running.until(lambda: len(endpoint.effects) == len(begun) + len(late), "every order is delivered", 90)


@pytest.mark.parametrize("kind", ["audit", "budgets", "decisions"])
async def test_a_topic_of_the_bus_that_may_not_be_read_leaves_the_others_heard(
    running: Bus, rights: Rights, listeners: ManyListeners, kind: str
) -> None:
    await asyncio.to_thread(rights.grant, NAMESPACE, "topics", "transactions", "groups")
    topic, denied = running.name(f"quiet-{kind}"), getattr(running.names, kind)
    worker = await running.start(topic_manifest(topic, schema=None) + schedule("quiet", topic))
    await running.until(lambda: running.report("quiet").state is State.RUNNING, "the source runs")
    outside = replace(running, settings=listeners.settings("OPEN"))

    async def unheard() -> list[str]:
        return [one["topic"] for one in (await worker._ready.status())["unheard"]]

    with capture_logs() as logged:
        await asyncio.to_thread(rights.deny, "topics", denied, AclOperation.READ)
        try:
            await asyncio.to_thread(
                produce_and_wait, outside.settings.producer(), denied, b"{}", b"wakes who waits for a record"
            )

            async def told() -> bool:
                return await unheard() == [denied]

            await running.until(told, "the worker says which topic it does not hear")
            await asyncio.to_thread(want, outside.cluster, "quiet", Desired.PAUSED)
            await running.until(lambda: running.report("quiet").state is State.PAUSED, "the wish is heard")
        finally:
            await asyncio.to_thread(rights.deny_no_more, "topics", denied, AclOperation.READ)

        async def heard_again() -> bool:
            return await unheard() == []

        await running.until(heard_again, "the topic is heard again")
    said = [
        one for one in logged if one.get("topic") == denied and one["event"].startswith("a topic can't be followed")
    ]
    assert said[0]["code"] == "kafka.denied_topic"
    assert "READ on the topics" in said[0]["hint"]
    await asyncio.to_thread(want, outside.cluster, "quiet", Desired.RUNNING)
    await running.until(lambda: running.report("quiet").state is State.RUNNING, "the source runs")
