"""Row 3: schedules of tracker, retry, dead letters and idempotency keys on a fake clock."""

from __future__ import annotations

import asyncio

from tests.chaos.campaign import Run, row
from tests.chaos.schedules import STEPS, run_schedules


@row(
    3,
    "schedules on a fake clock",
    load="{schedules:,} schedules of up to " + str(STEPS) + " steps, by a hypothesis state machine",
    fault="failed, late and lost answers, revoked and lost partitions, kills, in any order",
    full={"schedules": 5000, "replayed": 250},
    short={"schedules": 50, "replayed": 5},
    minutes=10,
)
async def schedules(run: Run) -> None:
    """No invariant is broken, and a seed replays identically."""
    await asyncio.to_thread(run_schedules, run["schedules"], run.seed)
    once = await asyncio.to_thread(run_schedules, run["replayed"], run.seed)
    again = await asyncio.to_thread(run_schedules, run["replayed"], run.seed)
    run.claim(once == again, f"the seed {run.seed} did not replay: {once} and then {again}")
    run.note("replayed identically", run["replayed"])
    run.note("digest", once)
