"""Row 17: webhooks arrive at a steady rate while the broker is away, comes back, and is away again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter

import aiohttp

from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.doors import PROVIDERS, Doors
from tests.chaos.faults.brokers import KILL, Broker
from tests.chaos.history import Acknowledged, History, Sent
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names

DOOR = "github"
UNMET = "requests while the broker was away"
SETTLING_SECONDS = 120.0


class Senders:
    """Senders that don't wait for each other: so many deliveries a second, each again after 503 until it is accepted."""

    def __init__(self, doors: Doors, rate: int, again: float) -> None:
        self.history = History()
        self.statuses: Counter[str] = Counter()
        self.away = False
        self.unmet = 0
        self._doors, self._rate, self._again = doors, rate, again
        self._stop = asyncio.Event()
        self.accepted = asyncio.Event()

    def stop(self) -> None:
        """No new deliveries; those that were refused still come again."""
        self._stop.set()

    async def run(self, url: str) -> None:
        """Sends until `stop`, and then until the last delivery is accepted."""
        begun, number = time.monotonic(), 0
        no_limit = aiohttp.TCPConnector(limit=0)
        async with (
            aiohttp.ClientSession(url, connector=no_limit, timeout=aiohttp.ClientTimeout(60)) as session,
            asyncio.TaskGroup() as tasks,
        ):
            while not self._stop.is_set():
                due = int((time.monotonic() - begun) * self._rate)
                for one in range(number, due):
                    tasks.create_task(self._deliver(session, f"d{one}"))
                number = max(number, due)
                await asyncio.sleep(0.02)

    async def _deliver(self, session: aiohttp.ClientSession, identity: str) -> None:
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
                self.accepted.set()
                return
            if status != 503:
                return
            await asyncio.sleep(self._again)


@row(
    17,
    "webhooks while the broker is away",
    load="{rate} signed webhooks/s, each sent again after 503",
    fault="broker kill -9 and {away} s away, {kills} times",
    full={"rate": 300, "kills": 3, "away": 10, "between": 10, "MiB": 256},
    short={"rate": 60, "kills": 1, "away": 1, "between": 1, "MiB": 256},
    minutes=5,
)
async def webhooks(run: Run) -> None:
    """Every delivery that got 2xx is in the topic, once; whoever got none was told 503; the worker stays within its memory."""
    broker = await run.own_broker()
    names = Names(f"chaos{uuid.uuid4().hex[:8]}")
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
    with doors.fleet as workers:
        (url,) = await doors.until_open()
        pid = workers.pid(0)
        senders = Senders(doors, run["rate"], again=5.0 if run.full else 0.5)
        sending = asyncio.create_task(senders.run(url))
        try:
            for _ in range(run["kills"]):
                await asyncio.sleep(run["between"])
                await _away(broker, senders, run["away"])
                senders.accepted.clear()
                await asyncio.wait_for(senders.accepted.wait(), SETTLING_SECONDS)
            await asyncio.sleep(run["between"])
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
    run.must_fire(UNMET, run["rate"] * run["away"] * run["kills"] // 2)
    run.note("deliveries", sent)
    run.note("503", senders.statuses["503"])
    run.note("most memory", f"{peak:.0f} MiB")


async def _away(broker: Broker, senders: Senders, seconds: float) -> None:
    await asyncio.to_thread(broker.kill)
    senders.away = True
    await asyncio.sleep(seconds)
    await asyncio.to_thread(broker.start)
    senders.away = False
