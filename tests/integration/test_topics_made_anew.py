"""Topics that are deleted and made anew under a pipeline: nothing of the new one is read, or skipped, by what was read of the old."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from bus_harness import Bus, Endpoint, bus, delete_topic, http_connection, http_sink, order, topic_manifest

from tests.remaking import make_anew
from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.moves import Target
from trunkline.bus.accounting.reconcile import PartitionCheck, reconcile
from trunkline.bus.parking.partitions import parked_records
from trunkline.bus.state import changelog_config
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import TopicPlan, grow_topics, topic_identities
from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.reported import reported_offsets

pytestmark = pytest.mark.kafka


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    served = Endpoint()
    await served.start()
    yield served
    await served.stop()


def _stream(name: str, source: str, target: str) -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec: {{from: "{source}", start: earliest, steps: [], to: "{target}"}}
"""


async def remade(made: Bus, topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
    """Deletes a topic, makes another one of its name, and gives that one's id."""
    plan = TopicPlan(topic, partitions, config=config or {})
    found = await asyncio.to_thread(make_anew, made.settings, [plan])
    return found[topic][1]


class Orders:
    """A topic of orders, with a sink and a stream that have read five of them."""

    def __init__(self, running: Bus, endpoint: Endpoint) -> None:
        self.bus = running
        self.endpoint = endpoint
        self.topic = running.name("orders")
        self.copies = running.name("copies")
        self.ids: list[str] = []

    async def begin(self) -> None:
        await self.bus.start(
            topic_manifest(self.topic)
            + topic_manifest(self.copies)
            + http_connection("shop", self.endpoint.url)
            + http_sink("out", self.topic, connection="shop", retry="attempts: 2, min_delay: 5ms, max_delay: 60ms")
            + _stream("copy", self.topic, self.copies)
        )
        self.ids.append(await self.id())
        await self.bus.until_running("out", "copy")
        await self.send(0, 5)
        await self.until_done(5)

    async def id(self) -> str:
        found = await asyncio.to_thread(topic_identities, self.bus.settings, [self.topic])
        return found[self.topic].id

    async def send(self, first: int, end: int) -> None:
        await self.bus.send_orders(self.topic, [order(number) for number in range(first, end)])

    async def make_anew(self, first: int, end: int) -> None:
        """Deletes the topic and makes it again, with other orders."""
        self.ids.append(await remade(self.bus, self.topic))
        await self.send(first, end)

    async def until_done(self, count: int) -> None:
        await self.bus.until(
            lambda: all(self.bus.counts(one).get("delivered") == count for one in ("out", "copy")), f"{count} orders"
        )

    async def until_made_anew(self, pipeline: str) -> Report:
        """Between the two topics it may have seen none."""

        def made_anew() -> Report | None:
            report = self.bus.report(pipeline)
            return report if report.state is State.FAILED and report.code == "topic.made_anew" else None

        found: Report = await self.bus.until(made_anew, f"{pipeline} told of its topic")
        return found

    async def choose(self, target: Target) -> None:
        for pipeline in ("out", "copy"):
            await self.bus.set_offsets(pipeline, target, topics=[self.topic])

    async def copied(self) -> list[int]:
        return [one["id"] for one in await self.bus.orders(self.copies)]

    async def reconciled(self) -> list[PartitionCheck]:
        """The sink's ledger beside its topics."""

        def check() -> list[PartitionCheck]:
            settings, names = self.bus.settings, self.bus.names
            known = reported_offsets(Board(settings, names).reports())["out"]
            return reconcile(settings, names, "out", known=known)

        return await asyncio.to_thread(check)

    def judge(self, report: Report, *, read: int) -> None:
        """The report names what happened, and the choices with their commands."""
        assert report.code == "topic.made_anew"
        assert report.reason is not None
        assert report.hint is not None
        for told in (self.topic, *self.ids, f"read up to {read}", "offsets 0 to "):
            assert told in report.reason
        for command in (
            f"set {report.pipeline} --to earliest",
            f"set {report.pipeline} --to latest",
            f"adopt {report.pipeline}",
        ):
            assert f"trunkline offsets {command} --topic {self.topic}" in report.hint


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker looks at its topics ten times as often as usual."""
    monkeypatch.setattr("trunkline.bus.worker.watches.WATCH_SECONDS", 0.5)


@pytest.fixture
async def orders(kafka: Any, tmp_path: Path, endpoint: Endpoint) -> AsyncIterator[Orders]:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        found = Orders(made, endpoint)
        await found.begin()
        yield found


async def test_an_input_made_anew_while_the_worker_was_down_waits_for_a_person(orders: Orders) -> None:
    await orders.bus.stop()
    await orders.make_anew(100, 108)
    await orders.bus.start()
    for pipeline in ("out", "copy"):
        orders.judge(await orders.bus.until_failed(pipeline), read=5)
    assert orders.endpoint.ids("/out") == [0, 1, 2, 3, 4]
    assert await orders.copied() == [0, 1, 2, 3, 4]
    checks = {one.topic: one for one in await orders.reconciled()}
    assert not checks[orders.topic].closes, "a ledger of the old topic closes over the new one"
    assert "made anew" in (checks[orders.topic].problem or "")
    await orders.choose("earliest")
    await orders.until_done(8)
    assert orders.endpoint.ids("/out") == [0, 1, 2, 3, 4, *range(100, 108)]
    assert await orders.copied() == [0, 1, 2, 3, 4, *range(100, 108)]
    await orders.bus.stop()
    assert all(one.closes for one in await orders.reconciled())


async def test_an_input_made_anew_under_running_pipelines_is_not_read_by_the_old_offset(orders: Orders) -> None:
    await orders.make_anew(100, 120)
    for pipeline in ("out", "copy"):
        orders.judge(await orders.until_made_anew(pipeline), read=5)
    for pipeline in ("out", "copy"):
        commits = await asyncio.to_thread(committed, orders.bus.settings, orders.bus.names, pipeline)
        found = commits.get((orders.topic, 0))
        assert found is None or found[1].topic_id == orders.ids[0], "an offset of the old topic counts in the new one"
    assert orders.endpoint.ids("/out") == [0, 1, 2, 3, 4]
    assert await orders.copied() == [0, 1, 2, 3, 4]


async def test_a_paused_pipeline_says_that_its_input_is_gone_and_then_that_it_is_another_one(orders: Orders) -> None:
    await orders.bus.wish("out", Desired.PAUSED)
    await orders.bus.until(lambda: orders.bus.report("out").state is State.PAUSED, "a pause")
    await delete_topic(orders.bus.settings, orders.topic)
    for pipeline in ("out", "copy"):
        report = await orders.bus.until_failed(pipeline)
        assert (report.code, report.state) == ("topic.missing", State.FAILED)
        assert orders.topic in (report.reason or "")
    await orders.bus.create(orders.topic)
    orders.ids.append(await orders.id())
    for pipeline in ("out", "copy"):
        orders.judge(await orders.until_made_anew(pipeline), read=5)


async def test_an_output_that_is_made_anew_gets_what_comes_from_then_on(orders: Orders) -> None:
    await remade(orders.bus, orders.copies)
    await orders.send(5, 10)
    await orders.until_done(10)
    assert await orders.copied() == [5, 6, 7, 8, 9]


async def test_partitions_that_are_added_to_an_input_have_their_place_among_the_dead_letters(orders: Orders) -> None:
    await asyncio.to_thread(grow_topics, orders.bus.settings, {orders.topic: 3})
    # It can't be read: in a topic of one partition its dead letter had no place.
    await orders.bus.until(lambda: _has_partitions(orders.bus, orders.bus.names.dead_letters("copy"), 3), "a place")
    await orders.bus.send(orders.topic, [(b"nonsense", b"k", [])], 2)
    for pipeline in ("out", "copy"):
        await orders.bus.until(lambda one=pipeline: orders.bus.counts(one).get("dead") == 1, "a dead letter")  # type: ignore[misc]
        (letter,) = await orders.bus.dead_letters(pipeline)
        assert letter.origin == (orders.topic, 2, 0)


async def test_parked_records_survive_their_topic_whether_it_is_made_anew_while_the_worker_runs_or_not(
    orders: Orders,
) -> None:
    made, ill = orders.bus, {"c9"}
    orders.endpoint.answers["/out"] = lambda asked, _times: 500 if asked.json["customer"] in ill else 200
    await made.send_orders(orders.topic, [order(number, "c9") for number in (50, 51, 52)])
    await made.until(lambda: made.report("out").parked_records == 3, "three parked records")
    parked = made.names.parked("out")
    await remade(made, parked, config=changelog_config(2**21))
    await made.until(lambda: _kept(made, 3), "the records put back while it runs")
    await made.stop()
    await remade(made, parked, config=changelog_config(2**21))
    ill.clear()
    await made.start()
    await made.until(lambda: len(orders.endpoint.effects_at("/out")) == 8, "the parked orders")
    assert [one["id"] for one in orders.endpoint.effects_at("/out")][-3:] == [50, 51, 52]


async def _kept(made: Bus, count: int) -> bool:
    found = await asyncio.to_thread(parked_records, made.settings, made.names, "out")
    return len(list(found)) == count


async def _has_partitions(made: Bus, topic: str, count: int) -> bool:
    return (await asyncio.to_thread(topic_identities, made.settings, [topic]))[topic].partitions == count
