"""What a worker tells of lag while pipelines stand still, and of which partitions: metric, command line and status agree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from conftest import KafkaUnderTest, LeavingKafka
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest

from trunkline.bus.states import Desired, State
from trunkline.bus.worker.worker import Worker
from trunkline.control.cluster import Cluster
from trunkline.control.lag import by_pipeline, measure
from trunkline.control.status import statuses

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

Series = dict[tuple[str, ...], float]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("lag-metrics")) as made:
        yield made


async def scraped(worker: Worker, metric: str) -> Series:
    """The series of one lag metric as this worker tells them now, by their labels."""
    await worker.measure()
    return {labels: value for name, labels, value in worker.lag.samples() if name == metric}


async def told(
    running: Bus, pipeline: str, worker: Worker | None = None
) -> tuple[float | None, float | None, set[str]]:
    """Records, seconds and reasons of what is unknown, as a worker tells them of a pipeline; None where there is no series."""
    worker = worker or running.worker
    assert worker is not None
    group = running.names.group(pipeline)
    records = [
        value for labels, value in (await scraped(worker, "kafka_consumergroup_lag")).items() if labels[0] == group
    ]
    seconds = (await scraped(worker, "kafka_consumergroup_group_max_lag_seconds")).get((group,))
    unknown = {labels[1] for labels in await scraped(worker, "trunkline_lag_unknown") if labels[0] == pipeline}
    return (sum(records) if records else None), seconds, unknown


def cluster(running: Bus) -> Cluster:
    def registry() -> Any:
        raise AssertionError("lag needs no registry")

    return Cluster(running.settings, running.names, "a test", registry)


async def asked(running: Bus, pipeline: str) -> tuple[int | None, float | None, set[str]]:
    """The same, as `trunkline lag` tells it."""
    found = await asyncio.to_thread(lambda: by_pipeline(measure(cluster(running), pipeline)))
    return found[0].records, found[0].seconds, set(found[0].unknown)


async def in_status(running: Bus, pipeline: str) -> tuple[int | None, float | None, set[str]]:
    """The same, as `trunkline status` tells it."""
    [found] = await asyncio.to_thread(statuses, cluster(running), pipeline)
    return found.lag_records, found.lag_seconds, set(found.lag_unknown)


async def sink(running: Bus, endpoint: Endpoint, name: str, *, partitions: int = 2) -> str:
    """A topic and a sink that reads it, with an account of its own, which have delivered two records each in a transaction."""
    topic = running.name(name)
    await running.add(
        topic_manifest(topic, partitions)
        + http_connection(f"peer-{name}", endpoint.url)
        + http_sink(name, topic, connection=f"peer-{name}")
    )
    await running.until_running(name)
    encoder = await running.encoder(topic)

    def write_in_a_transaction() -> None:
        # So that a marker follows the commit: behind it nothing waits, until something does.
        producer = running.settings.producer(transactional_id=f"{running.names.namespace}.{name}.first")
        producer.init_transactions(30)
        producer.begin_transaction()
        for partition in range(partitions):
            producer.produce(topic, encoder.encode(order(partition)), b"k", partition=partition)
        producer.commit_transaction(30)

    await asyncio.to_thread(write_in_a_transaction)
    await running.until(lambda: len(endpoint.effects_at(f"/{name}")) == partitions, "the first records delivered")

    async def caught_up() -> bool:
        return (await told(running, name))[:2] == (0, 0.0)

    await running.until(caught_up, f"{name} caught up")
    return topic


async def agree(running: Bus, pipeline: str, records: int) -> None:
    """Metric, `lag` and `status` say that so many records wait, and for how long, within a second."""

    async def all_waiting() -> bool:
        return (await told(running, pipeline))[0] == records

    await running.until(all_waiting, f"{records} records wait for {pipeline}")
    for attempt in range(5):  # on a busy machine the second may pass between two of them
        begun = time.monotonic()
        found = [await one(running, pipeline) for one in (told, asked, in_status)]
        assert [(count, unknown) for count, _, unknown in found] == [(records, set())] * 3
        seconds = [one[1] or 0.0 for one in found]
        if max(seconds) - min(seconds) <= time.monotonic() - begun + 1.0:
            break
        assert attempt < 4, seconds
    assert min(seconds) > 0


async def test_while_the_other_system_answers_503_what_waits_is_lag_and_not_0(running: Bus, endpoint: Endpoint) -> None:
    topic = await sink(running, endpoint, "stuck")
    endpoint.answers["/stuck"] = lambda _asked, _times: 503
    await running.send_orders(topic, [order(10 + number, f"c{number}") for number in range(100)])
    await agree(running, "stuck", 100)
    del endpoint.answers["/stuck"]

    async def caught_up() -> bool:
        return await told(running, "stuck") == (0, 0.0, set())

    await running.until(caught_up, "caught up again")


@pytest.mark.slow
async def test_of_a_pipeline_that_was_told_to_rest_what_waits_is_lag(running: Bus, endpoint: Endpoint) -> None:
    topic = await sink(running, endpoint, "resting")
    await running.wish("resting", Desired.PAUSED)
    await running.until(lambda: running.report("resting").state is State.PAUSED, "paused")
    await running.send_orders(topic, [order(10 + number, f"c{number}") for number in range(30)])
    await agree(running, "resting", 30)
    await running.wish("resting", Desired.STOPPED)
    await running.until(lambda: running.report("resting").state is State.STOPPED, "stopped")
    await agree(running, "resting", 30)


async def test_of_a_pipeline_that_failed_what_waits_is_lag(running: Bus, endpoint: Endpoint) -> None:
    topic = await sink(running, endpoint, "failing")
    endpoint.answers["/failing"] = lambda _asked, _times: 401
    await running.send_orders(topic, [order(10 + number, f"c{number}") for number in range(30)])
    await running.until_failed("failing")
    await agree(running, "failing", 30)


async def test_the_series_of_a_pipeline_that_is_removed_end_at_once(running: Bus, endpoint: Endpoint) -> None:
    await sink(running, endpoint, "removed")
    group = running.names.group("removed")
    manifest = running.manifests[-1]
    assert f'"{group}"' in generate_latest(REGISTRY).decode()
    await running.remove(manifest)
    assert f'"{group}"' not in generate_latest(REGISTRY).decode()


async def test_what_nobody_has_begun_to_read_is_unknown_and_no_lag_of_0(running: Bus, endpoint: Endpoint) -> None:
    topic = running.name("unread")
    await running.wish("unread", Desired.STOPPED)
    await running.add(
        topic_manifest(topic, 2)
        + http_connection("peer-unread", endpoint.url)
        + http_sink("unread", topic, connection="peer-unread")
    )
    await running.send_orders(topic, [order(1)])
    await running.until(lambda: running.report("unread").state is State.STOPPED, "stopped")
    assert await told(running, "unread") == (None, None, {"not_committed"})


async def test_of_two_workers_each_partition_is_told_by_one_and_by_the_other_when_it_is_gone(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path: Path
) -> None:
    async with bus(kafka.bootstrap, tmp_path) as running:
        topic = await sink(running, endpoint, "shared", partitions=4)
        first = running.worker
        assert first is not None
        second = await running.another(tmp_path / "second")
        places = {(running.names.group("shared"), topic, str(partition)) for partition in range(4)}

        async def told_by(worker: Worker) -> set[tuple[str, ...]]:
            return {labels for labels in await scraped(worker, "kafka_consumergroup_lag") if labels[1] == topic}

        async def told_once() -> bool:
            one, other = await told_by(first), await told_by(second)
            return bool(one) and bool(other) and one | other == places and not one & other

        await running.until(told_once, "each partition told once")
        await running.wish("shared", Desired.STOPPED)
        await running.until(
            lambda: {running.report("shared", one).state for one in (first, second)} == {State.STOPPED}, "stopped"
        )
        await running.send_orders(topic, [order(10 + number, f"c{number}") for number in range(30)])

        async def told_by_one() -> bool:
            found = [await told_by(first), await told_by(second)]
            return sorted(map(len, found)) == [0, 4]

        await running.until(told_by_one, "all told by one")
        assert sorted([(await told(running, "shared", one))[0] or 0 for one in (first, second)]) == [0, 30]
        speaker, other = (first, second) if await told_by(first) else (second, first)
        await speaker.close()

        async def told_by_the_other() -> bool:
            return await told_by(other) == places

        await running.until(told_by_the_other, "told by the worker that is left")
        running.worker, running.more = other, []


async def test_while_the_broker_is_away_lag_is_unknown_and_not_what_it_was(
    leaving_kafka: LeavingKafka, tmp_path: Path, endpoint: Endpoint
) -> None:
    async with bus(leaving_kafka.bootstrap, tmp_path) as running:
        await sink(running, endpoint, "away", partitions=1)
        leaving_kafka.leave()

        async def unknown() -> bool:
            return await told(running, "away") == (None, None, {"broker_away"})

        await running.until(unknown, "the lag unknown")
        leaving_kafka.come_back()

        async def known() -> bool:
            return await told(running, "away") == (0, 0.0, set())

        await running.until(known, "the lag known again")
