"""Offsets that Kafka forgot, and offsets that a person sets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from confluent_kafka import TopicPartition

from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.states import Desired, State
from trunkline.control import splits
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

    await running.set_offsets("out", "saved", topics=[running.name("orders"), running.names.retry("out")])
    await running.start()
    await running.until_running("out")
    await running.send_orders(running.name("orders"), [order(5)])
    await running.until(lambda: 5 in endpoint.ids("/out"), "the sixth delivery")
    assert endpoint.ids("/out") == [0, 1, 2, 3, 4, 5]


async def test_offsets_are_not_changed_under_a_pipeline_that_runs(running: Bus) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await running.set_offsets("out", "earliest")
    assert refused.value.code == "offsets.in_use"
    assert running.counts("out")["delivered"] == 5


async def test_a_pipeline_set_back_delivers_again_and_its_new_epoch_closes(running: Bus, endpoint: Endpoint) -> None:
    await running.stop()
    place = (running.name("orders"), 0)
    before = await asyncio.to_thread(committed, running.settings, running.names, "out")
    planned = await running.set_offsets("out", "earliest")
    assert (planned.again, planned.skipped, planned.exact, planned.redriven) == (5, 0, True, False)
    await running.start()
    await running.until(lambda: len(endpoint.ids("/out")) == 10, "the orders delivered again")
    assert endpoint.ids("/out") == [0, 1, 2, 3, 4] * 2
    await running.stop()
    after = await asyncio.to_thread(committed, running.settings, running.names, "out")
    assert after[place][1].epoch == before[place][1].epoch + 1
    checks = await asyncio.to_thread(reconcile, running.settings, running.names, "out")
    assert all(check.closes for check in checks), checks
    assert sum(check.read for check in checks) == 5


async def test_records_deleted_unread_are_named_by_partition_and_only_they_are_passed_over(
    kafka: Any, tmp_path: Path, endpoint: Endpoint
) -> None:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        topic = made.name("orders")
        sink = http_sink("out", topic, connection="shop")
        await made.start(topic_manifest(topic, 2) + http_connection("shop", endpoint.url) + sink)
        await made.until_running("out")
        encoder = await made.encoder(topic)

        async def send(partition: int, numbers: Iterable[int]) -> None:
            await made.send(topic, [(encoder.encode(order(one)), b"k", []) for one in numbers], partition)

        await send(0, range(4))
        await send(1, range(10, 14))
        await made.until(lambda: made.counts("out").get("delivered") == 8, "eight deliveries")
        await made.wish("out", Desired.PAUSED)
        await made.until(lambda: made.report("out").state is State.PAUSED, "a pause")
        await send(0, range(4, 6))
        await send(1, range(14, 20))
        await asyncio.to_thread(_delete_before, made, topic, 1, 7)
        await made.wish("out", Desired.RUNNING)
        failed = await made.until_failed("out")
        assert failed.code == "offsets.out_of_range"
        assert failed.reason == (
            f"{topic}[1] is committed up to 4 and its first record is at 7 now: 3 were deleted before they were read"
        )
        assert failed.hint is not None
        assert "`trunkline offsets set out --to after-gap`" in failed.hint
        planned = await made.set_offsets("out", "after-gap")
        assert [(one.partition, one.lost, one.again, one.skipped) for one in planned.moves] == [(1, 3, 0, 0)]
        expected = [*range(6), *range(10, 14), *range(17, 20)]
        await made.until(lambda: len(endpoint.ids("/out")) >= len(expected), "what is left")
        assert sorted(endpoint.ids("/out")) == expected


def _delete_before(made: Bus, topic: str, partition: int, offset: int) -> None:
    admin = made.settings.admin()
    (done,) = admin.delete_records([TopicPartition(topic, partition, offset)]).values()
    done.result(20)


async def test_a_source_that_is_sent_back_reads_again_what_is_there_and_counts_it(kafka: Any, tmp_path: Path) -> None:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        rows = tmp_path / "orders.jsonl"
        rows.write_text("".join(json.dumps(order(number)) + "\n" for number in (1, 2, 3)), encoding="utf-8")
        topic = made.name("orders")
        await made.start(
            topic_manifest(topic)
            + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: orders-in}}
spec: {{connector: file, config: {{path: "{rows}", format: jsonl, watch: false}}, to: "{topic}"}}
"""
        )
        await made.until(lambda: made.counts("orders-in").get("read") == 3, "three rows")
        with pytest.raises(ConfigurationError) as running:
            await asyncio.to_thread(
                lambda: splits.carry_out(made.cluster, splits.plan(made.cluster, "orders-in", "start"))
            )
        assert running.value.code == "offsets.in_use"
        await made.wish("orders-in", Desired.STOPPED)
        await made.until(lambda: made.report("orders-in").state is State.STOPPED, "a stop")
        (split,) = await asyncio.to_thread(splits.of_source, made.cluster, "orders-in")
        assert (split.read, split.delivered) == (3, 3)
        assert split.position is not None
        planned = await asyncio.to_thread(splits.plan, made.cluster, "orders-in", "start", splits=[split.split])
        await made.until(lambda: _carried_out(made, planned), "no worker has it any more")
        await made.wish("orders-in", Desired.RUNNING)
        await made.until(lambda: made.counts("orders-in").get("read") == 6, "the rows once more")
        assert [one["id"] for one in await made.orders(topic)] == [1, 2, 3, 1, 2, 3]


async def _carried_out(made: Bus, planned: splits.SplitsPlan) -> bool:
    try:
        await asyncio.to_thread(splits.carry_out, made.cluster, planned)
    except ConfigurationError as error:
        if error.code != "offsets.in_use":
            raise
        return False
    return True
