"""Row 5: the broker is killed and frozen while events flow."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.campaign import Run, row
from tests.chaos.faults.brokers import FREEZE, KILL, Broker
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.faults.processes import Fleet
from tests.chaos.gather import Ledgers
from tests.chaos.scene import HELD_AT_MOST, PATIENCE, Scene
from trunkline.bus.kafka import KafkaSettings

RECOVERY_SECONDS = 30.0


@row(
    5,
    "the broker gone",
    load="{events:,} events, {routes} routes file → stream → http",
    fault="broker kill -9, {kills} times, and SIGSTOP for {seconds} s, {freezes} times",
    full={"events": 40_000, "routes": 2, "kills": 6, "freezes": 4, "seconds": 10, "partitions": 4},
    short={"events": 600, "routes": 1, "kills": 1, "freezes": 0, "seconds": 2, "partitions": 2},
    minutes=8,
)
async def broker_gone(run: Run) -> None:
    """Nothing acknowledged is lost, no worker dies of it, and commits go on within seconds of the broker's return."""
    broker = await run.own_broker()
    kafka = KafkaSettings(broker.direct)
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        scene = Scene(kafka, server, run.folder, run.chance, run["events"], run["routes"], partitions=run["partitions"])
        project = await asyncio.to_thread(scene.prepare)
        faults = [KILL] * run["kills"] + [FREEZE] * run["freezes"]
        run.chance.shuffle(faults)
        slowest = 0.0
        with scene.fleet(project) as workers:
            for number, fault in enumerate(faults):
                mark = int(run["events"] * (number + run.chance.random()) / (len(faults) + 1))
                await scene.until_effects(max(1, mark), PATIENCE, workers)
                await asyncio.to_thread(_break, broker, fault, run["seconds"])
                slowest = max(slowest, await _recovery(scene, workers))
            await scene.until_settled(PATIENCE, workers)
            run.claim(not workers.crashed, f"the worker died with the broker: {workers.crashed}")
        run.must_fire(KILL, run["kills"])
        run.must_fire(FREEZE, run["freezes"])
        run.note("slowest recovery", f"{slowest:.1f} s")
        if run.full:
            run.claim(slowest <= RECOVERY_SECONDS, f"a recovery took {slowest:.1f} s")
        history = await scene.history()
        run.judge(history, scene.promises(most_repeats=len(faults) * HELD_AT_MOST))


def _break(broker: Broker, fault: str, seconds: int) -> None:
    if fault == KILL:
        broker.kill()
        broker.start()
    else:
        with broker.frozen():
            time.sleep(seconds)  # the fault is a pause of this length


async def _recovery(scene: Scene, workers: Fleet) -> float:
    """Seconds until a commit moves, from when the broker was back; 0 where everything was committed already."""
    ledgers = Ledgers(scene.kafka, scene.names)
    route = scene.routes[0]
    count = len(scene.sent[route.name])
    begun = time.monotonic()
    first: list[int] = []

    def moved() -> bool:
        read = ledgers.read(route.sink, route.second)
        first.append(read)
        return read > first[0] or read >= count

    try:
        await scene.until(moved, "a commit after the broker came back", PATIENCE, workers=workers)
    finally:
        await asyncio.to_thread(ledgers.close)
    return time.monotonic() - begun
