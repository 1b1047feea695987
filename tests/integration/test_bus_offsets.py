"""Offsets that Kafka forgot, and offsets that a person sets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest

from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.worker.board import Board
from trunkline.bus.worker.offsetadmin import saved_positions, set_offsets, wanted_offsets
from trunkline.core.errors import ConfigurationError

pytestmark = pytest.mark.kafka


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    served = Endpoint()
    await served.start()
    yield served
    await served.stop()


@pytest.fixture
async def running(kafka: object, tmp_path: Path, endpoint: Endpoint) -> AsyncIterator[Bus]:
    """A sink that has delivered five orders."""
    async with bus(kafka.bootstrap, tmp_path / "home") as made:  # type: ignore[attr-defined]
        topic = made.name("orders")
        await made.start(
            topic_manifest(topic) + http_connection("shop", endpoint.url) + http_sink("out", topic, connection="shop")
        )
        await made.until_running("out")
        await made.send_orders(topic, [order(number) for number in range(5)])
        await made.until(lambda: made.counts("out").get("delivered") == 5, "five deliveries")
        yield made


async def test_a_group_that_kafka_forgot_fails_instead_of_beginning_anew_and_goes_on_from_the_second_copy(
    running: Bus, endpoint: Endpoint
) -> None:
    await running.stop()
    group = running.names.group("out")
    admin = running.settings.admin()
    await asyncio.to_thread(admin.delete_consumer_groups([group])[group].result, 15)
    await running.start()
    failed = await running.until_failed("out")
    assert failed.code == "offsets.missing"
    assert "trunkline offsets set out --to saved" in (failed.hint or "")
    await running.stop()

    def restore() -> None:
        saved = saved_positions(Board(running.settings, running.names).reports())["out"]
        set_offsets(
            running.settings, running.names, "out", wanted_offsets(running.settings, list(saved), "saved", saved)
        )

    await asyncio.to_thread(restore)
    await running.start()
    await running.until_running("out")
    await running.send_orders(running.name("orders"), [order(5)])
    await running.until(lambda: 5 in endpoint.ids("/out"), "the sixth delivery")
    assert endpoint.ids("/out") == [0, 1, 2, 3, 4, 5]


async def test_offsets_are_not_changed_under_a_pipeline_that_runs(running: Bus) -> None:
    place = (running.name("orders"), 0)
    with pytest.raises(ConfigurationError) as refused:
        await asyncio.to_thread(set_offsets, running.settings, running.names, "out", {place: 0})
    assert refused.value.code == "offsets.in_use"
    assert running.counts("out")["delivered"] == 5


async def test_a_pipeline_set_back_delivers_again_and_its_new_epoch_closes(running: Bus, endpoint: Endpoint) -> None:
    await running.stop()
    place = (running.name("orders"), 0)
    before = await asyncio.to_thread(committed, running.settings, running.names, "out")
    wanted = await asyncio.to_thread(wanted_offsets, running.settings, [place], "earliest", {})
    await asyncio.to_thread(set_offsets, running.settings, running.names, "out", wanted)
    await running.start()
    await running.until(lambda: len(endpoint.ids("/out")) == 10, "the orders delivered again")
    assert endpoint.ids("/out") == [0, 1, 2, 3, 4] * 2
    await running.stop()
    after = await asyncio.to_thread(committed, running.settings, running.names, "out")
    assert after[place][1].epoch == before[place][1].epoch + 1
    checks = await asyncio.to_thread(reconcile, running.settings, running.names, "out")
    assert all(check.closes for check in checks), checks
    assert sum(check.read for check in checks) == 5
