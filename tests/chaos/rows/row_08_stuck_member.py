"""Row 8: a member joins while another one is stuck past its poll interval, so that a rebalance is under way when it is thrown out.

What the stuck member is told of it is not to be trusted: librdkafka may take its partitions from it as if they were still its own
(librdkafka#5604).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tests.chaos.campaign import Run, row
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.faults.members import Watch
from tests.chaos.history import Committed
from tests.chaos.membership import PROTOCOLS, Group, groups
from tests.chaos.scene import PATIENCE

STUCK, TAKEN, RECOVERED = "member stuck", "partitions taken from it", "group recovered"
POLL_MS = 3_000


@row(
    8,
    "a member stuck",
    load="{events:,} records an event of the group's, {protocols} groups (KIP-848, range, cooperative-sticky)",
    fault="a member joins while another one is stuck past its poll interval, {stucks} times in each group",
    full={"events": 200, "protocols": 3, "stucks": 5},
    short={"events": 40, "protocols": 1, "stucks": 1},
    minutes=12,
)
async def member_stuck(run: Run) -> None:
    """Who was stuck commits nothing of what another one owns by then, and in the end each has a part again."""
    kafka = await run.kafka()
    protocols = PROTOCOLS[: run["protocols"]]
    watch = Watch(_shorter)
    with HttpSinkServer(run.folder, seed=run.seed, rules=(Rule(200, delay=0.01),)) as server:
        async with groups(kafka, server, run.folder, run.chance, protocols, watch) as made:
            await run.beside_each_other(_stucks(run, group) for group in made)
            for group in made:
                history = await asyncio.to_thread(group.history)
                run.judge(history, [group.promise])
                run.claim(any(one.by for one in history.of(Committed)), f"{group.protocol}: no commit has a member")
            for kind in (STUCK, TAKEN, RECOVERED):
                run.must_fire(kind, len(made) * run["stucks"])


def _shorter(config: Mapping[str, Any]) -> dict[str, Any]:
    """How long a member may be away. A classic one also says its session, which may be no longer than that."""
    if config.get("group.protocol") == "consumer":
        return {"max.poll.interval.ms": POLL_MS}
    return {"max.poll.interval.ms": POLL_MS, "session.timeout.ms": POLL_MS, "heartbeat.interval.ms": POLL_MS // 6}


async def _stucks(run: Run, group: Group) -> None:
    await group.join()
    for _ in range(run["stucks"]):
        await group.until_shared(1)
        await group.send(run["events"])
        stuck = group.member(0)
        stuck.hang()
        try:
            await group.made.until(stuck.hangs.is_set, "a member stuck")
            run.fires({STUCK: 1})
            await group.join()
            # By the other one alone: the stuck one answers no rebalance, so it is thrown out.
            await group.made.until(
                lambda name=stuck.name: len(group.owners() - {name}) == len(group.owners()) == 1,  # type: ignore[misc]
                "all at the other member",
                PATIENCE,
            )
            run.fires({TAKEN: 1})
            await group.send(run["events"])
        finally:
            stuck.go_on()
        await group.until_shared(2)
        run.fires({RECOVERED: 1})
        await group.leave(min(group.workers))
    await group.until_settled()
