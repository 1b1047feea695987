"""Row 4: workers are killed by chance, again and again, while events flow."""

from __future__ import annotations

import asyncio
import time

from tests.chaos.campaign import Run, row
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.faults.processes import KILL
from tests.chaos.history import Attempt
from tests.chaos.scene import HELD_AT_MOST, PATIENCE, Scene


@row(
    4,
    "workers killed",
    load="{events:,} events, {routes} routes file → stream → http, {workers} workers",
    fault="kill -9 of a random worker, {kills} times",
    full={"events": 60_000, "routes": 3, "workers": 2, "kills": 30, "partitions": 12},
    short={"events": 800, "routes": 1, "workers": 1, "kills": 1, "partitions": 3},
    minutes=8,
)
async def killed_workers(run: Run) -> None:
    """Nothing is lost, no effect is repeated, and calls are repeated only for what was not committed at a kill."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        scene = Scene(kafka, server, run.folder, run.chance, run["events"], run["routes"], run["partitions"])
        project = await asyncio.to_thread(scene.prepare)
        begun = time.monotonic()
        with scene.fleet(project, workers=run["workers"]) as workers:
            for number in range(run["kills"]):
                # Spread over the work: the n-th kill comes when about n of `kills` parts of it are done.
                mark = int(run["events"] * (number + run.chance.random()) / (run["kills"] + 1))
                await scene.until_effects(mark, PATIENCE, workers)
                killed = await asyncio.to_thread(workers.kill_any, run.chance)
                workers.start_one(killed)
            await scene.until_settled(PATIENCE, workers)
            run.fires(workers.fired)
            run.claim(not workers.crashed, f"workers died by themselves: {workers.crashed}")
            run.must_fire(KILL, run["kills"])
        history = await scene.history()
        run.judge(history, scene.promises(most_repeats=run["kills"] * HELD_AT_MOST))
        run.note("events/s", round(run["events"] / (time.monotonic() - begun)))
        run.note("repeated calls", len(history.of(Attempt)) - run["events"])
