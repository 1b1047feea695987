"""A registry that is another one all of a sudden, under running pipelines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bus_harness import Endpoint, Registry, bus, http_connection, http_sink, order, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus.states import State
from trunkline.bus.worker import registrymeasuring
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema

pytestmark = pytest.mark.kafka


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


async def test_pipelines_halt_when_ids_mean_other_schemas_and_go_on_when_the_registry_is_back(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrymeasuring, "LOOK_SECONDS", 0.2)
    registry = Registry()
    async with bus(kafka.bootstrap, tmp_path, registry=registry) as running:
        topic = running.name("orders")
        await running.start(
            http_connection("peer", endpoint.url)
            + topic_manifest(topic)
            + http_sink("orders-out", topic, connection="peer")
        )
        await running.until_running("orders-out")
        await running.send_orders(topic, [order(1)])
        await running.until(lambda: endpoint.ids("/orders-out") == [1], "the first order delivered")

        await registry.stop()
        former = registry.replace()
        await registry.start()
        await asyncio.to_thread(_registered_by_others, registry.url)
        report = await running.until_failed("orders-out")
        assert (report.state, report.code) == (State.FAILED, "registry.changed")
        assert "was shop.Order and is bank.Transfer" in (report.reason or "")
        assert report.restart_at is None, "nobody but a person can say what is right"

        await running.send_orders(topic, [order(2)])  # as everybody wrote before
        await registry.stop()
        registry.replace(former)
        await registry.start()
        await running.wish("orders-out", restart=True)
        await running.until(lambda: endpoint.ids("/orders-out") == [1, 2], "the second order delivered")
        assert not await running.dead_letters("orders-out")


def _registered_by_others(url: str) -> None:
    client = RegistryClient(url)
    try:
        for number in range(3):
            schema = {"type": "record", "name": "bank.Transfer", "fields": [{"name": f"f{number}", "type": "string"}]}
            client.register(f"transfers-{number}-value", Schema(schema))
    finally:
        client.close()
