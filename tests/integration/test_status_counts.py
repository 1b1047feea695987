"""What `trunkline status` counts: each record that was read is in one class, the last that it reached."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from confluent_kafka import TopicPartition
from conftest import KafkaUnderTest

from trunkline.bus.accounting.outcomes import CLASSES, Outcomes
from trunkline.bus.ledger import Ledger
from trunkline.bus.redrive import dropping, waiting
from trunkline.bus.redrive.dropping import DropOrder
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.states import Desired, State
from trunkline.bus.worker.remains import remains_of
from trunkline.cli.statustable import sum_of
from trunkline.control import reconcile
from trunkline.control.cluster import Cluster
from trunkline.control.redrives import order_of
from trunkline.control.status import statuses
from trunkline.core.errors import CheckFailedError

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
BAD = 12


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("counts")) as made:
        yield made


async def sink(running: Bus, endpoint: Endpoint, name: str) -> str:
    """A topic and a sink that has taken 18 of its 30 orders: the other side refuses the BAD ones."""
    endpoint.answers[f"/{name}"] = lambda asked, _times: 422 if asked.json["amount"] < 0 else 200
    topic = running.name(name)
    await running.add(
        topic_manifest(topic)
        + http_connection(f"peer-{name}", endpoint.url)
        + http_sink(name, topic, connection=f"peer-{name}")
    )
    await running.until_running(name)
    await running.send_orders(topic, [order(number, f"c{number}", -1 if number < BAD else 1) for number in range(30)])
    return topic


def cluster(running: Bus) -> Cluster:
    def registry() -> Any:
        raise AssertionError("counts need no registry")

    return Cluster(running.settings, running.names, "a test", registry)


async def counted(running: Bus, pipeline: str) -> Outcomes:
    """What status says became of the records."""
    [found] = await asyncio.to_thread(statuses, cluster(running), pipeline)
    return found.outcomes or Outcomes()


async def until_counted(running: Bus, pipeline: str, **expected: int) -> Outcomes:
    """Waits until status says so, and gives all that it says."""
    last = Outcomes()

    async def so_far() -> bool:
        nonlocal last
        last = await counted(running, pipeline)
        return {name: getattr(last, name) for name in expected} == expected

    try:
        await running.until(so_far, f"{expected} of {pipeline}", seconds=30)
    except AssertionError as error:
        raise AssertionError(f"{error}; status says {last}") from None
    return last


async def redrive(running: Bus, pipeline: str) -> int:
    def send() -> int:
        again = Redrive(running.settings, running.names, pipeline)
        return again.send(again.waiting(), by="a test")

    return await asyncio.to_thread(send)


async def drop(running: Bus, pipeline: str, limit: int | None) -> int:
    def settle() -> int:
        letters = order_of(cluster(running), pipeline, where=None, limit=limit, rate=None, cap=100, edit=None)
        order = DropOrder(letters, "of a test", "a test", lambda: None)
        return dropping.drop(running.settings, running.names, pipeline, order)

    return await asyncio.to_thread(settle)


async def in_the_topic(running: Bus, pipeline: str) -> int:
    """How many letters wait, as `dlq ls` lists them."""
    letters = await asyncio.to_thread(Redrive(running.settings, running.names, pipeline).waiting)
    return len(letters)


def adds_up(found: Outcomes) -> bool:
    return found.read == sum(getattr(found, name) for name in CLASSES)


async def test_dead_letters_that_were_redriven_and_delivered_are_delivered_and_dead_no_more(
    running: Bus, endpoint: Endpoint
) -> None:
    await sink(running, endpoint, "redriven")
    before = await until_counted(running, "redriven", read=30, delivered=18, dead=BAD)
    await running.wish("redriven", Desired.STOPPED)
    await running.until(lambda: running.report("redriven").state is State.STOPPED, "stopped")
    assert await redrive(running, "redriven") == BAD
    between = await until_counted(running, "redriven", read=30, delivered=18, dead=0, redriving=BAD)
    del endpoint.answers["/redriven"]
    await running.wish("redriven", Desired.RUNNING)
    after = await until_counted(running, "redriven", read=30, delivered=30, dead=0, redriving=0)
    assert all(map(adds_up, (before, between, after)))


@pytest.mark.slow
async def test_dead_letters_that_were_dropped_are_dropped_and_wait_no_more(running: Bus, endpoint: Endpoint) -> None:
    await sink(running, endpoint, "given-up")
    await until_counted(running, "given-up", read=30, delivered=18, dead=BAD)
    assert await drop(running, "given-up", limit=5) == 5
    found = await until_counted(running, "given-up", read=30, delivered=18, dead=BAD - 5, dropped=5)
    assert adds_up(found)
    assert found.carried == 0
    assert await in_the_topic(running, "given-up") == BAD - 5
    assert await redrive(running, "given-up") == BAD - 5
    again = await until_counted(running, "given-up", read=30, delivered=18, dead=BAD - 5, dropped=5, redriving=0)
    assert adds_up(again), "what failed again is another letter than the one that was sent"
    assert await drop(running, "given-up", limit=None) == BAD - 5
    assert adds_up(await until_counted(running, "given-up", read=30, delivered=18, dead=0, dropped=BAD))
    left = await asyncio.to_thread(remains_of, running.settings, running.names, {"given-up": "Sink"})
    assert [(one.dropped, one.redriven) for one in left] == [(BAD, BAD - 5)]


async def test_what_fails_again_after_a_redrive_is_dead_once(running: Bus, endpoint: Endpoint) -> None:
    await sink(running, endpoint, "again")
    await until_counted(running, "again", dead=BAD)
    for _ in range(2):
        assert await redrive(running, "again") == BAD
        found = await until_counted(running, "again", read=30, delivered=18, dead=BAD, redriving=0)
        assert adds_up(found)
    assert await in_the_topic(running, "again") == BAD


@pytest.mark.slow
async def test_letters_that_were_saved_and_redriven_before_their_commit_leave_no_count_too_small(
    running: Bus, endpoint: Endpoint
) -> None:
    topic = await sink(running, endpoint, "killed")
    await until_counted(running, "killed", dead=BAD)
    await running.wish("killed", Desired.STOPPED)
    await running.until(lambda: running.report("killed").state is State.STOPPED, "stopped")
    # What a worker leaves that was killed when the letters were saved and nothing was committed.
    ledger = (await running.commits("killed"))[topic, 0][1]
    fresh = Ledger(topic_id=ledger.topic_id).to_metadata()
    await running.commit("killed", {(topic, 0): (0, fresh)})
    found = await counted(running, "killed")
    assert (found.read, found.dead, found.ahead) == (0, 0, BAD)
    assert await redrive(running, "killed") == BAD
    await running.wish("killed", Desired.RUNNING)
    # Read again, and redriven: refused both times.
    found = await until_counted(running, "killed", read=30, delivered=18, redriving=0, dead=2 * BAD)
    assert found.dead == await in_the_topic(running, "killed")
    assert (found.carried, found.exact) == (BAD, True)


@pytest.mark.slow
async def test_letters_that_are_gone_are_missed(running: Bus, endpoint: Endpoint) -> None:
    await sink(running, endpoint, "emptied")
    await until_counted(running, "emptied", dead=BAD)
    admin = running.settings.admin()
    place = TopicPartition(running.names.dead_letters("emptied"), 0, 5)
    await asyncio.to_thread(lambda: next(iter(admin.delete_records([place]).values())).result(20))
    found = await counted(running, "emptied")
    assert (found.dead, found.carried) == (BAD - 5, -5)
    became = await asyncio.to_thread(reconcile.became, cluster(running), "emptied")
    assert became is not None
    assert (became.dead, sum_of(became)) == (
        BAD - 5,
        "read 30 = delivered 18 + dead 7 + 5 dead letters that are gone",
    )
    with pytest.raises(CheckFailedError, match="have no letter any more"):
        reconcile.judge("emptied", [], became)


@pytest.mark.slow
async def test_of_more_letters_than_are_read_the_number_is_worked_out_and_says_so(
    running: Bus, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sink(running, endpoint, "many")
    await until_counted(running, "many", dead=BAD)
    assert await redrive(running, "many") == BAD
    await until_counted(running, "many", dead=BAD, redriving=0)
    read: list[str] = []
    counting: Callable[..., Any] = waiting.count_waiting
    monkeypatch.setattr(waiting, "count_waiting", lambda *asked: read.append(asked[2]) or counting(*asked))
    found = await counted(running, "many")
    assert (found.dead, found.exact, read) == (BAD, True, []), "its topic has as many as the ledgers count"
    died = {"many": waiting.Died(99, 3, whole=False, atomic=False, commits={})}
    assert await asyncio.to_thread(waiting.waiting_letters, running.settings, running.names, died, 1) == {}
    exact = await asyncio.to_thread(waiting.waiting_letters, running.settings, running.names, died)
    assert exact["many"].letters == BAD
