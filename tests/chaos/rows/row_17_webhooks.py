"""Row 17: webhooks arrive at a steady rate while the broker is away, comes back, and is away again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import aiohttp

from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.doors import PROVIDERS, Doors
from tests.chaos.faults.brokers import KILL, Broker
from tests.chaos.history import Acknowledged, History, Sent
from tests.chaos.scene import PATIENCE
from tests.namespaces import new_namespace
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names

DOOR = "github"
SOME = 20
"""Deliveries that must be accepted before and after each kill, and requests that must find the broker away, at the least."""
UNMET = "requests while the broker was away"
ANSWER_SECONDS = 120.0
SETTLING_SECONDS = PATIENCE


class Senders:
    """Senders that don't wait for each other: so many deliveries a second, each again after 503 until it is accepted.

    While `most` deliveries wait no further one begins: a broker that takes long to come back would otherwise be kept from it by
    ever more senders that try again.
    """

    def __init__(self, rate: int, most: int, again: float) -> None:
        self.history = History()
        self.statuses: Counter[str] = Counter()
        self.away = False
        self.unmet = 0
        self.accepted = 0
        self._rate, self._most, self._again = rate, most, again
        self._waiting = 0
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """No new deliveries; those that were refused still come again."""
        self._stop.set()

    async def run(self, url: str) -> None:
        """Sends until `stop`, and then until the last delivery is accepted."""
        begun, due, number = time.monotonic(), 0, 0
        no_limit = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(url, connector=no_limit, timeout=aiohttp.ClientTimeout(ANSWER_SECONDS)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            while not self._stop.is_set():
                before, due = due, int((time.monotonic() - begun) * self._rate)
                for _ in range(min(due - before, self._most - self._waiting)):
                    self._waiting += 1
                    tasks.create_task(self._deliver(session, f"d{number}"))
                    number += 1
                await asyncio.sleep(0.02)

    async def _deliver(self, session: aiohttp.ClientSession, identity: str) -> None:
        try:
            await self._until_accepted(session, identity)
        finally:
            self._waiting -= 1

    async def _until_accepted(self, session: aiohttp.ClientSession, identity: str) -> None:
        self.history.add(Sent(identity, DOOR, key=identity, at=time.time()))
        request, deadline = PROVIDERS[DOOR].request(identity), time.monotonic() + SETTLING_SECONDS
        while time.monotonic() < deadline:
            self.unmet += self.away
            try:
                async with session.post(f"/hooks/{DOOR}", data=request.body, headers=request.headers) as answer:
                    await answer.read()
                    status = answer.status
            except (aiohttp.ClientError, TimeoutError) as error:
                self.statuses[type(error).__name__] += 1
                return
            self.statuses[str(status)] += 1
            if status in {200, 202}:
                self.history.add(Acknowledged(identity, DOOR, time.time(), by="2xx"))
                self.accepted += 1
                return
            if status != 503:
                return
            await asyncio.sleep(self._again)


@row(
    17,
    "webhooks while the broker is away",
    load="{rate} signed webhooks/s, each sent again after 503, {most:,} waiting at most",
    fault="broker kill -9 and {away} s away, {kills} times",
    full={"rate": 300, "most": 12_000, "kills": 3, "away": 10, "between": 10, "MiB": 256},
    short={"rate": 100, "most": 40, "kills": 1, "away": 0, "between": 0, "MiB": 256},
    minutes=5,
)
async def webhooks(run: Run) -> None:
    """Every delivery that got 2xx is in the topic, once; whoever got none was told 503; the worker stays within its memory."""
    broker = await run.own_broker()
    names = Names(new_namespace("chaos"))
    secret = {"CHAOS_SECRET": PROVIDERS[DOOR].secret}
    kafka = KafkaSettings(broker.direct)
    doors = Doors(
        kafka,
        names,
        run.folder,
        {DOOR: (PROVIDERS[DOOR], ("CHAOS_SECRET",))},
        secret,
        memory=f"{run['MiB']}MiB",
    )
    unmet = max(SOME, run["rate"] * run["away"] // 2)
    with doors.fleet as workers:
        (url,) = await doors.until_open()
        pid = workers.pid(0)
        senders = Senders(run["rate"], run["most"], again=5.0 if run.full else 0.5)
        sending = asyncio.create_task(senders.run(url))
        try:
            for number in range(run["kills"]):
                await _accepts(senders, run["between"])
                await _away(broker, senders, run["away"], (number + 1) * unmet)
            await _accepts(senders, run["between"])
        finally:
            senders.stop()
            await sending
        peak = doors.memory()
        run.claim(workers.is_alive(0) and workers.pid(0) == pid, "the worker ended")
        history = senders.history
        history.extend(await asyncio.to_thread(lambda: list(doors.published(DOOR))))
    run.judge(history, [Promise(f"{DOOR}-topic", (DOOR,))])
    sent, taken = len(history.of(Sent)), len(history.of(Acknowledged))
    run.claim(taken == sent, f"{sent - taken} of {sent} deliveries were never accepted")
    strange = {status: times for status, times in senders.statuses.items() if status not in {"200", "202", "503"}}
    run.claim(not strange, f"answers besides 2xx and 503: {strange}")
    run.claim(peak <= run["MiB"], f"the worker took {peak:.0f} MiB of {run['MiB']}")
    run.fires({UNMET: senders.unmet})
    run.must_fire(KILL, run["kills"])
    run.must_fire(UNMET, run["kills"] * unmet)
    run.note("deliveries", sent)
    run.note("503", senders.statuses["503"])
    run.note("most memory", f"{peak:.0f} MiB")


async def _accepts(senders: Senders, seconds: float) -> None:
    """Waits so long, and until some more deliveries were accepted."""
    before = senders.accepted
    await asyncio.sleep(seconds)
    await _until(lambda: senders.accepted >= before + SOME, "deliveries accepted")


async def _away(broker: Broker, senders: Senders, seconds: float, unmet: int) -> None:
    """The broker is away so long, and until so many requests found it away in all."""
    await asyncio.to_thread(broker.kill)
    senders.away = True
    await asyncio.sleep(seconds)
    await _until(lambda: senders.unmet >= unmet, UNMET)
    await asyncio.to_thread(broker.start)
    senders.away = False


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SETTLING_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: too few in {SETTLING_SECONDS:g} s")
        await asyncio.sleep(0.02)
