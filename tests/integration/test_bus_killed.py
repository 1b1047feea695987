"""A worker that is killed twice in the middle of its work: what it left in topics, files and another system.

One scenario, many claims: a file of orders goes into a topic; an exactly-once and an at-least-once stream read that; a file
sink writes all of it and an http sink delivers some of it. Every pipeline is busy when the worker is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import Bus, Endpoint, bus, http_connection, order, text_headers, topic_manifest, unframed
from conftest import KafkaUnderTest

from tests.chaos.faults.warm import WarmProcess
from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.kafka import end_offsets
from trunkline.bus.source.positions import read_positions

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]

COUNT = 8_000
DELIVERED = 800
CUSTOMERS = 50
BATCH = 50
"""Small, so that the source is not through with its file before a busy machine comes to look how far it is."""
KILLS = 2
SEED = int(os.environ.get("TRUNKLINE_TEST_SEED", random.SystemRandom().randrange(10**6)))


@dataclass
class Aftermath:
    """The bus after the worker was killed and has done everything, and what happened meanwhile."""

    bus: Bus
    endpoint: Endpoint
    folder: Path
    kills: list[int]
    """At each kill, how many offsets the input topic had."""
    exit_status: int
    log: str

    def topic(self, name: str) -> str:
        return self.bus.name(name)


def _manifests(made: Bus, orders: Path, folder: Path, endpoint: Endpoint) -> str:
    source, exact, repeated = made.name("in"), made.name("exact"), made.name("repeated")
    steps = """
    - filter: event.id % 3 != 0
    - map: {keep: all, set: {amount: event.amount * 2}}"""
    streams = "".join(
        f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec:
  from: "{source}"
  start: earliest
  steps: {steps}
  to: "{target}"
  processing: {processing}
"""
        for name, target, processing in (
            ("stream-exact", exact, "exactly-once"),
            ("stream-repeated", repeated, "at-least-once"),
        )
    )
    return (
        topic_manifest(source, 4)
        + topic_manifest(exact, 4)
        + topic_manifest(repeated, 4)
        + http_connection("peer", endpoint.url)
        + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: orders}}
spec:
  connector: file
  config: {{path: "{orders}", format: jsonl, watch: false, batch: {BATCH}}}
  to: {{topic: "{source}", key: event.customer}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: files}}
spec:
  from: "{source}"
  start: earliest
  connector: file
  config: {{folder: "{folder}", format: jsonl}}
  delivery: {{batch: {{count: 700, age: 300ms}}}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: posts}}
spec:
  from: "{source}"
  start: earliest
  when: event.id % {COUNT // DELIVERED} == 0
  connector: http
  connection: peer
  config: {{url: /posts, idempotent: true}}
  delivery: {{in_flight: 16, retry: {{min_delay: 10ms, max_delay: 100ms}}}}
"""
        + streams
    )


PIPELINES = ("stream-exact", "stream-repeated", "files", "posts")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def after(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Aftermath]:
    if kafka.kind == "external":
        pytest.skip("a killed member's session lasts 45 s there; the embedded broker lowers that")
    place = tmp_path_factory.mktemp("killed")
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    orders = place / "orders.jsonl"
    orders.write_text("".join(json.dumps(order(n, f"c{n % CUSTOMERS}", n)) + "\n" for n in range(COUNT)))
    endpoint = Endpoint()
    await endpoint.start()
    async with bus(kafka.bootstrap, place / "home") as made:
        project = place / "project.yaml"
        project.write_text(_manifests(made, orders, place / "out", endpoint))
        log = place / "worker.log"

        def spawn() -> WarmProcess:
            arguments = [kafka.bootstrap, made.names.namespace, str(made.home), str(project)]
            return WarmProcess("tests.integration.bus_worker", arguments, log=log, environment=os.environ)

        worker = spawn()
        kills = []
        try:
            for number in range(KILLS):
                mark = chance.randrange(number * COUNT // KILLS + 1, (number + 1) * COUNT // KILLS - 1500)

                async def reached(mark: int = mark, worker: WarmProcess = worker) -> int:
                    assert worker.poll() is None, log.read_text()
                    found = await asyncio.to_thread(end_offsets, made.settings, made.name("in"))
                    return sum(found.values()) if sum(found.values()) >= mark else 0

                kills.append(await made.until(reached, f"{mark} orders in the topic"))
                worker.kill()
                assert await asyncio.to_thread(worker.wait) == -signal.SIGKILL
                worker = spawn()

            async def finished() -> bool:
                assert worker.poll() is None, log.read_text()
                for pipeline in PIPELINES:
                    commits = await made.commits(pipeline)
                    if sum(ledger.read for _, ledger, _ in commits.values()) < COUNT:
                        return False
                return True

            await made.until(finished, "everything settled")
            worker.terminate()
            status = await asyncio.to_thread(worker.wait, 120)
        finally:
            if worker.poll() is None:
                worker.kill()
                await asyncio.to_thread(worker.wait)
            print(log.read_text()[-20_000:])
        yield Aftermath(made, endpoint, place / "out", kills, status, log.read_text())
    await endpoint.stop()


def _expected() -> list[dict[str, Any]]:
    return [order(n, f"c{n % CUSTOMERS}", 2 * n) for n in range(COUNT) if n % 3]


def _by_customer(orders: list[dict[str, Any]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for one in orders:
        found.setdefault(one["customer"], []).append(one["id"])
    return found


async def test_the_worker_was_killed_in_the_middle_each_time(after: Aftermath) -> None:
    assert len(after.kills) == KILLS
    assert after.kills[0] < COUNT
    assert after.log.count("split begins") > KILLS


async def test_a_source_neither_loses_nor_repeats_a_row(after: Aftermath) -> None:
    orders = await after.bus.orders(after.topic("in"))
    assert sorted(one["id"] for one in orders) == list(range(COUNT))
    assert all(ids == sorted(ids) for ids in _by_customer(orders).values())
    positions = await asyncio.to_thread(read_positions, after.bus.settings, after.bus.names)
    (position,) = [found for (pipeline, _), found in positions.items() if pipeline == "orders"]
    assert (position.read, position.delivered, position.filtered, position.dead) == (COUNT, COUNT, 0, 0)
    assert position.finished


async def test_an_exactly_once_streams_output_is_what_the_work_gives_for_the_input(after: Aftermath) -> None:
    found = await after.bus.orders(after.topic("exact"))
    assert sorted(found, key=lambda one: one["id"]) == _expected()
    assert all(ids == sorted(ids) for ids in _by_customer(found).values())


async def test_an_at_least_once_stream_loses_nothing(after: Aftermath) -> None:
    found = await after.bus.orders(after.topic("repeated"))
    unique = {one["id"]: one for one in found}
    assert [unique[number] for number in sorted(unique)] == _expected()


async def test_an_event_keeps_its_id_and_its_correlation_id_on_its_way(after: Aftermath) -> None:
    def known(messages: list[Any]) -> dict[int, tuple[str, str]]:
        found = {}
        for message in messages:
            headers = text_headers(message)
            found[unframed(message.value())["id"]] = (headers["ce_id"], headers["ce_correlationid"])
        return found

    before = known(await after.bus.read(after.topic("in")))
    exact = known(await after.bus.read(after.topic("exact")))
    assert len(set(before.values())) == COUNT
    assert all(before[number] == pair for number, pair in exact.items())


async def test_the_files_together_hold_every_record_once(after: Aftermath) -> None:
    names = sorted(path.name for path in after.folder.iterdir())
    assert all(name.endswith(".jsonl") for name in names), names
    rows = [json.loads(line)["id"] for path in after.folder.iterdir() for line in path.read_text().splitlines()]
    repeated = [number for number, times in Counter(rows).items() if times > 1]
    assert repeated == [], f"{len(repeated)} rows twice, {names}"
    assert sorted(rows) == list(range(COUNT))


async def test_an_http_sink_loses_nothing_keeps_each_keys_order_and_repeats_little(after: Aftermath) -> None:
    expected = [number for number in range(COUNT) if number % (COUNT // DELIVERED) == 0]
    ids = after.endpoint.ids("/posts")
    assert sorted(set(ids)) == expected
    assert len(after.endpoint.effects) == DELIVERED  # a repeated record has the same idempotency key
    assert len(ids) - DELIVERED <= KILLS * 1000
    first = list(dict.fromkeys(ids))
    for customer in range(CUSTOMERS):
        mine = [number for number in first if number % CUSTOMERS == customer]
        assert mine == sorted(mine)


@pytest.mark.parametrize("pipeline", PIPELINES)
async def test_every_ledger_closes(after: Aftermath, pipeline: str) -> None:
    checks = await asyncio.to_thread(reconcile, after.bus.settings, after.bus.names, pipeline)
    assert [check.problem for check in checks if check.problem] == []
    inputs = [check for check in checks if check.topic == after.topic("in")]
    assert sum(check.read for check in inputs) == sum(check.present for check in inputs) == COUNT
    sums = Counter[str]()
    for check in inputs:
        sums.update(check.outcomes)
    delivered = {
        "stream-exact": len(_expected()),
        "stream-repeated": len(_expected()),
        "files": COUNT,
        "posts": DELIVERED,
    }
    assert (sums["delivered"], sums["filtered"]) == (delivered[pipeline], COUNT - delivered[pipeline])


async def test_a_worker_that_is_told_to_end_does_so_by_itself(after: Aftermath) -> None:
    assert after.exit_status == 0
    assert "Traceback" not in after.log
