"""Row 2: nothing fails. What the other rows are compared with."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.campaign import Run, row
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.history import Effect, History, Placed
from tests.chaos.scene import PATIENCE, Scene


@row(
    2,
    "no fault",
    load="{events:,} events of 1 KB, {partitions} partitions, {routes} routes file → stream → http",
    fault="none",
    full={"events": 60_000, "partitions": 12, "routes": 3},
    short={"events": 300, "partitions": 2, "routes": 2},
    minutes=6,
)
async def no_fault(run: Run) -> None:
    """Everything arrives once and in order, in one worker."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        scene = Scene(kafka, server, run.folder, run.chance, run["events"], run["routes"], partitions=run["partitions"])
        project = await asyncio.to_thread(scene.prepare)
        begun = time.monotonic()
        with scene.fleet(project) as workers:
            await scene.until_settled(PATIENCE, workers)
            run.note("events/s with start", round(run["events"] / (time.monotonic() - begun)))
        history = await scene.history()
        run.judge(history, scene.promises(most_repeats=0))
        for name, value in latencies(history, [route.first for route in scene.routes]).items():
            run.note(name, value)


def latencies(history: History, topics: list[str]) -> dict[str, str | int]:
    """Events/s between the first and the last effect, and how long an event took from its first record to its effect."""
    began = {one.id: one.at for one in history.of(Placed) if one.topic in topics}
    effects = [one for one in history.of(Effect) if one.route.endswith("-send")]
    took = sorted(one.at - began[one.id] for one in effects if one.id in began)
    if not took:
        return {}
    span = max(one.at for one in effects) - min(one.at for one in effects)
    return {
        "events/s": round(len(effects) / span) if span else len(effects),
        "p50": f"{took[len(took) // 2]:.2f} s",
        "p99": f"{took[len(took) * 99 // 100]:.2f} s",
    }
