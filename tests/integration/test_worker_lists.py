"""Workers as they are listed, and their log level: changed on all of them through Kafka, wherever they run, and audited."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import version

import pytest
import pytest_asyncio
from bus_harness import Bus, bus, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus.accounting.audit import entries
from trunkline.bus.worker.board import Board, Heartbeat
from trunkline.bus.worker.loglevels import KEY, take_level
from trunkline.bus.worker.wishes import read_wishes
from trunkline.control import workers
from trunkline.core.errors import ConfigurationError, UnavailableError

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

SINK = """---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: out}}
spec: {{from: [{topic}], start: earliest, connector: file, config: {{folder: "{folder}", format: jsonl}}}}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("listed")) as made:
        topic, folder = made.name("orders"), tmp_path_factory.mktemp("outbox")
        await made.add(topic_manifest(topic) + SINK.format(topic=topic, folder=folder))
        await made.until_running("out")
        yield made


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


async def test_a_worker_is_listed_with_its_host_its_version_its_pipelines_and_its_plug_ins(running: Bus) -> None:
    assert running.worker is not None

    async def said() -> list[workers.WorkerLine]:
        found = await asyncio.to_thread(workers.workers, running.cluster)
        return [one for one in found if one.plugins and one.reports and one.beat.pipelines]

    (line,) = await running.until(said, "what the worker has")
    found = line.as_dict()
    assert (found["worker"], found["state"]) == (running.worker.id, "LIVE")
    assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
    assert (found["version"], found["url"]) == (version("trunkline"), running.worker.url)
    assert found["heard_seconds_ago"] < 8
    assert [(one["pipeline"], one["state"]) for one in found["pipelines"]] == [("out", "RUNNING")]
    assert found["plugins"]["sink"]["file"] == []
    assert workers.worker(running.cluster, running.worker.id).beat.worker == running.worker.id
    with pytest.raises(ConfigurationError) as refused:
        workers.worker(running.cluster, running.worker.id[:-1])
    assert (refused.value.code, running.worker.id in str(refused.value.hint)) == ("worker.unknown", True)


async def test_the_log_level_of_every_worker_is_changed_and_audited(running: Bus) -> None:
    assert running.worker is not None

    def change() -> list[str]:
        return [f"{one.worker} {one.level}" for one in workers.set_level(running.cluster, "debug", None, 30)]

    assert await asyncio.to_thread(change) == [f"{running.worker.id} debug"]
    assert logging.getLogger().level == logging.DEBUG
    assert [one.level for one in await asyncio.to_thread(workers.live, running.cluster)] == ["debug"]
    trail = await asyncio.to_thread(lambda: list(entries(running.settings, running.names)))
    last = [one for one in trail if one.action == "worker.loglevel"][-1]
    assert (last.who, last.subject, last.details["after"]) == ("a test", "every worker", {"level": "debug"})
    assert KEY not in await asyncio.to_thread(read_wishes, running.settings, running.names)


async def test_a_level_for_one_worker_is_for_no_other(running: Bus) -> None:
    assert running.worker is not None
    worker = running.worker.id
    changed = await asyncio.to_thread(lambda: list(workers.set_level(running.cluster, "error", worker, 30)))
    assert [one.level for one in changed] == ["error"]
    logging.getLogger().setLevel(logging.INFO)
    assert take_level("another", f"{KEY}.{worker}", b'{"v":1,"level":"debug","by":"x"}')
    assert logging.getLogger().level == logging.INFO
    assert take_level("another", KEY, b'{"v":1,"level":"loud","by":"x"}'), "an unknown one is passed over"
    assert logging.getLogger().level == logging.INFO
    assert not take_level("another", "out", b"{}"), "a wish for a pipeline is none for a level"


async def test_what_can_not_be_changed_is_refused(running: Bus) -> None:
    def change(level: str, worker: str | None) -> None:
        list(workers.set_level(running.cluster, level, worker, 10))

    for level, worker, code in (("loud", None, "option.level"), ("debug", "nobody", "worker.unknown")):
        with pytest.raises(ConfigurationError) as refused:
            await asyncio.to_thread(change, level, worker)
        assert refused.value.code == code


async def test_a_worker_that_does_not_follow_is_named(running: Bus) -> None:
    board = Board(running.settings, running.names)
    # By its clock, which is ahead, it was heard just now, however long this test takes.
    board.beat(Heartbeat("w-deaf", time.time() + 3600, time.time()))
    await asyncio.to_thread(board.flush)
    try:
        with pytest.raises(UnavailableError, match="w-deaf did not say"):
            await asyncio.to_thread(lambda: list(workers.set_level(running.cluster, "warning", None, 3)))
    finally:
        board.leave("w-deaf")
        await asyncio.to_thread(board.flush)
