"""Budgets on the real Kafka: several workers deliver to one account that counts, and never counts more than it allows."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from bus_harness import Bus, bus, order, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus.budget.claim import Claim
from trunkline.bus.budget.overview import overview
from trunkline.bus.kafka import read_all

pytestmark = pytest.mark.kafka
WORKER = Path(__file__).parent / "bus_worker.py"


class CountingAccount:
    """An HTTP server that notes when requests came, and how many were under way at once."""

    def __init__(self) -> None:
        self.arrivals: list[tuple[float, int]] = []
        self.work = 0.02
        self.at_once = self.most_at_once = 0
        self.pauses: dict[int, int] = {}
        """The seconds that the request of that number is asked to wait, with a 429."""
        self.paused_at: float | None = None
        self.url = ""

    async def start(self) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, backlog=512).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.arrivals.append((time.monotonic(), (await request.json())["id"]))
        number = len(self.arrivals)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.work)
        finally:
            self.at_once -= 1
        pause = self.pauses.pop(number, None)
        if pause is not None:
            self.paused_at = time.monotonic()
            return web.Response(status=429, headers={"Retry-After": str(pause)})
        return web.Response()

    @property
    def delivered(self) -> set[int]:
        return {number for _, number in self.arrivals}

    def most_in_a_second(self) -> int:
        """The most requests in any second, its end left out."""
        times = sorted(at for at, _ in self.arrivals)
        first = most = 0
        for place, at in enumerate(times):
            while at - times[first] >= 1.0:
                first += 1
            most = max(most, place - first + 1)
        return most


@pytest_asyncio.fixture
async def account() -> AsyncIterator[CountingAccount]:
    made = CountingAccount()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def made(kafka: KafkaUnderTest, tmp_path: Path) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        yield made


def connection(account: CountingAccount, limits: str) -> str:
    """The account as a connection."""
    return f"""---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: counted}}
spec:
  connector: http
  config: {{base_url: "{account.url}", http: {{allow_private: ["127.0.0.1"]}}}}
  {limits}
"""


def sink(name: str, topic: str, priority: str = "normal") -> str:
    """A sink that would send as fast as it is let."""
    return f"""---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: "{topic}"
  start: earliest
  connector: http
  connection: counted
  config: {{url: "/{name}", idempotent: true}}
  delivery: {{order: none, priority: {priority}, timeout: 5s, retry: {{min_delay: 10ms, max_delay: 100ms}}}}
"""


async def claims(made: Bus) -> list[Claim]:
    """What was claimed, in order."""
    found = await asyncio.to_thread(lambda: list(read_all(made.settings, made.names.budgets)))
    return [Claim.from_record(message.value() or b"") for message in found]


async def test_three_workers_together_never_send_more_than_the_account_allows_and_use_nearly_all_of_it(
    made: Bus, account: CountingAccount, tmp_path: Path
) -> None:
    count, per_second = 320, 20
    topic = made.name("in")
    manifests = topic_manifest(topic, 6) + connection(account, f"limits: {{per_second: {per_second}, concurrent: 9}}")
    await made.start(manifests + sink("posts", topic))
    for number in range(2):
        await made.another(tmp_path / f"more-{number}")
    await made.until(
        lambda: all(made.report("posts", one).positions for one in [made.worker, *made.more]), "partitions for all"
    )
    await made.send_orders(topic, [order(n, f"c{n}") for n in range(count)])
    await made.until(lambda: len(account.delivered) == count, "everything delivered", 60)
    assert account.most_in_a_second() <= per_second
    assert account.most_at_once <= 9
    # From when each has its slice to before the first of them has nothing left to send.
    first, last = account.arrivals[0][0] + 5.0, account.arrivals[count * 3 // 4][0]
    used = sum(first <= at < last for at, _ in account.arrivals)
    assert used >= 0.8 * per_second * (last - first)
    assert len({claim.worker for claim in await claims(made) if claim.second}) == 3
    (shown,) = await asyncio.to_thread(overview, made.settings, made.names)
    assert (shown["account"], shown["limits"]["per_second"], len(shown["workers"])) == ("counted", per_second, 3)
    assert sum(worker["per_second"] for worker in shown["workers"]) <= per_second


async def test_when_the_worker_with_the_largest_slice_is_killed_the_limit_holds_and_delivery_goes_on(
    kafka: KafkaUnderTest, made: Bus, account: CountingAccount, tmp_path: Path
) -> None:
    if kafka.kind == "external":
        pytest.skip("a killed member's session lasts 45 s there; the embedded broker lowers that")
    count, per_second = 700, 40
    topic = made.name("in")
    await made.create(topic, 4)
    manifests = topic_manifest(topic, 4) + connection(account, f"limits: {{per_second: {per_second}}}")
    project = tmp_path / "project.yaml"
    project.write_text(manifests + sink("posts", topic))
    log = tmp_path / "workers.log"

    async def spawn(home: str) -> asyncio.subprocess.Process:
        with log.open("ab") as stream:
            return await asyncio.create_subprocess_exec(
                sys.executable, str(WORKER), kafka.bootstrap, made.names.namespace, str(tmp_path / home), str(project),
                stdout=stream, stderr=stream,
            )  # fmt: skip

    await made.send_orders(topic, [order(n, f"c{n}") for n in range(count)])
    workers = {"first": await spawn("first")}
    try:
        await made.until(lambda: account.arrivals, "the first worker delivering", 60)
        workers["second"] = await spawn("second")
        await made.until(lambda: len(account.delivered) >= 120, "some delivered", 60)

        async def shared() -> bool:
            return len({claim.worker for claim in await claims(made) if claim.second}) == 2

        await made.until(shared, "slices of both")
        latest = {claim.worker: claim.second for claim in await claims(made)}
        ids = {home: (tmp_path / home / "workers" / "0").read_text().strip() for home in workers}
        largest = max(workers, key=lambda home: latest.get(ids[home], 0))
        victim = workers.pop(largest)
        os.kill(victim.pid, signal.SIGKILL)
        await victim.wait()
        await made.until(lambda: len(account.delivered) == count, "everything delivered", 90)
    finally:
        for worker in workers.values():
            if worker.returncode is None:
                os.kill(worker.pid, signal.SIGKILL)
                await worker.wait()
        print(log.read_text()[-10_000:])
    assert account.most_in_a_second() <= per_second
    assert (
        max(claim.second for claim in (await claims(made))[-3:]) > per_second // 2
    )  # what the dead one had was taken over


async def test_a_wait_that_the_account_names_to_one_worker_silences_all(
    made: Bus, account: CountingAccount, tmp_path: Path
) -> None:
    topic = made.name("in")
    account.work = 0.2
    account.pauses = {100: 4}
    await made.start(topic_manifest(topic, 6) + connection(account, "limits: {}") + sink("posts", topic))
    await made.another(tmp_path / "more")
    await made.until(
        lambda: all(made.report("posts", one).positions for one in [made.worker, *made.more]), "partitions for both"
    )
    await made.send_orders(topic, [order(n, f"c{n}") for n in range(1200)])
    await made.until(lambda: len(account.delivered) == 1200, "everything delivered", 60)
    assert account.paused_at is not None
    silent = [at for at, _ in account.arrivals if account.paused_at + 2.0 < at < account.paused_at + 4.0]
    assert silent == []
    assert [claim.hold for claim in await claims(made) if claim.hold] != []


async def test_pipelines_of_one_account_share_it_by_priority(made: Bus, account: CountingAccount) -> None:
    topic = made.name("in")
    await made.start(topic_manifest(topic, 2) + connection(account, "limits: {per_second: 30}"))
    await made.send_orders(topic, [order(n, f"c{n}") for n in range(400)])
    paths = {"urgent": "high", "later": "low"}
    await made.add("".join(sink(name, topic, priority) for name, priority in paths.items()))
    await made.until(lambda: made.counts("urgent").get("delivered", 0) >= 160, "the urgent ones delivered", 60)
    urgent, later = (made.counts(name).get("delivered", 0) for name in paths)
    assert later > 0
    assert 2.5 <= urgent / later <= 6.5


async def test_an_account_without_limits_costs_no_record(made: Bus, account: CountingAccount) -> None:
    topic = made.name("in")
    await made.start(topic_manifest(topic) + connection(account, "limits: {}") + sink("posts", topic))
    await made.send_orders(topic, [order(n, f"c{n}") for n in range(20)])
    await made.until(lambda: len(account.delivered) == 20, "everything delivered")
    assert await claims(made) == []
