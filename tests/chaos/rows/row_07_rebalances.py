"""Row 7: members join and leave while records flow, by each protocol of Kafka's groups."""

from __future__ import annotations

import asyncio

from tests.chaos.campaign import Run, row
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.faults.members import Watch
from tests.chaos.history import Attempt, Committed
from tests.chaos.membership import PROTOCOLS, Group, groups

JOINED, LEFT = "joined", "left"
MEMBERS = 3


@row(
    7,
    "members joining and leaving",
    load="{events:,} records an event of the group's, {protocols} groups (KIP-848, range, cooperative-sticky), 3 members at most",
    fault="{changes} joins and leaves of each group",
    full={"events": 300, "protocols": 3, "changes": 12},
    short={"events": 60, "protocols": 3, "changes": 1},
    minutes=12,
)
async def joining_and_leaving(run: Run) -> None:
    """Nothing is lost, repeated or swapped, and no commit passes what is not settled or is made by who does not own it."""
    kafka = await run.kafka()
    watch = Watch()
    with HttpSinkServer(run.folder, seed=run.seed, rules=(Rule(200, delay=0.01),)) as server:
        async with groups(kafka, server, run.folder, run.chance, PROTOCOLS[: run["protocols"]], watch) as made:
            await run.beside_each_other(_changes(run, group) for group in made)
            repeated = 0
            for group in made:
                history = await asyncio.to_thread(group.history)
                run.judge(history, [group.promise])
                run.claim(any(one.by for one in history.of(Committed)), f"{group.protocol}: no commit has a member")
                repeated += len(history.of(Attempt)) - len(group.sent)
            run.note("repeated calls", repeated)
            if run.full:  # of a few changes chance may make all leave
                run.must_fire(JOINED, 1)
            run.claim(
                run.fired[JOINED] + run.fired[LEFT] >= len(made) * run["changes"], f"too few changes: {run.fired}"
            )


async def _changes(run: Run, group: Group) -> None:
    """Each change comes while records of the one before are on their way."""
    for _ in range(MEMBERS - 1):
        await group.join()
    await group.send(run["events"])
    await group.until_shared(MEMBERS - 1)
    for _ in range(run["changes"]):
        await group.send(run["events"])
        living = sorted(group.workers)
        joins = len(living) == 1 or (len(living) < MEMBERS and group.chance.random() < 0.6)
        if joins:
            await group.join()
        else:
            await group.leave(group.chance.choice(living))
        await group.until_shared(len(group.workers))
        run.fires({JOINED if joins else LEFT: 1})
    await group.until_settled()
