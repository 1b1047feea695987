"""Row 6: one of two members stands still for longer than its session, loses its partitions, and wakes up."""

from __future__ import annotations

import asyncio

from tests.chaos.campaign import Run, row
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.faults.processes import FREEZE, Fleet
from tests.chaos.scene import HELD_AT_MOST, PATIENCE, Scene

MOVED = "partitions moved"


@row(
    6,
    "a member frozen",
    load="{events:,} events, {routes} route file → stream → http, 2 workers",
    fault="SIGSTOP of one of them past its session of 6 s, {freezes} times, then SIGCONT",
    full={"events": 40_000, "routes": 1, "freezes": 10, "partitions": 12},
    short={"events": 1_000, "routes": 1, "freezes": 1, "partitions": 4},
    minutes=8,
)
async def frozen_member(run: Run) -> None:
    """Who wakes up commits nothing of what another one owns by then, and nothing is lost or done twice."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed, rules=(Rule(200, delay=0.02),)) as server:
        scene = Scene(
            kafka,
            server,
            run.folder,
            run.chance,
            run["events"],
            run["routes"],
            run["partitions"],
            delivery=", in_flight: 16",
        )
        project = await asyncio.to_thread(scene.prepare)
        with scene.fleet(project, workers=2) as workers:
            for number in range(2):
                await _assigned_again(scene, workers, number, 0)
            for number in range(run["freezes"]):
                mark = int(run["events"] * (number + run.chance.random()) / (run["freezes"] + 1))
                await scene.until_effects(max(1, mark), PATIENCE, workers)
                frozen = run.chance.randrange(2)
                before = [_assigned(scene, workers, number) for number in range(2)]
                with workers.frozen(frozen):
                    await _assigned_again(scene, workers, 1 - frozen, before[1 - frozen])
                    run.fires({MOVED: 1})
                # Before that it has nothing that could be taken from it once more.
                await _assigned_again(scene, workers, frozen, before[frozen])
            await scene.until_settled(PATIENCE, workers)
            run.claim(not workers.crashed, f"workers died by themselves: {workers.crashed}")
            run.fires(workers.fired)
        run.must_fire(FREEZE, run["freezes"])
        run.must_fire(MOVED, run["freezes"])
        history = await scene.history()
        run.judge(history, scene.promises(most_repeats=run["freezes"] * HELD_AT_MOST))
        run.note("repeated calls", len(server.calls()) - run["events"])


async def _assigned_again(scene: Scene, workers: Fleet, number: int, before: int) -> None:
    """Waits until a worker was given partitions more often than `before`."""
    await scene.until(
        lambda: _assigned(scene, workers, number) > before,
        f"worker {number} with partitions",
        PATIENCE,
        workers=workers,
    )


def _assigned(scene: Scene, workers: Fleet, number: int) -> int:
    """How often a worker's log says that partitions came to its sink. The groups of other pipelines move when they do."""
    file, sink = workers.log_file(number), f'"pipeline": "{scene.routes[0].sink}"'
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.exists() else []
    return sum(sink in line and '"event": "assigned"' in line for line in lines)
