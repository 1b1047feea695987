"""Row 16: workers of polled sources die at read, produce, position and acknowledgement, while what they read grows."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from itertools import product

from confluent_kafka import Message

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.faults.growing import EQUAL_TIMES, HALF_WRITTEN, ROTATED, GrowingApi, GrowingFolder
from tests.chaos.faults.victim import COMMITTED, POSITION, PRODUCED, READ
from tests.chaos.faults.victims import Victim
from tests.chaos.history import Acknowledged, Effect, History
from tests.chaos.scene import EVENT, PATIENCE
from tests.integration.bus_harness import Bus, bus, http_connection, topic_manifest, unframed
from trunkline.bus.source.positions import read_positions
from trunkline.core.errors import RetriableError

POINTS = (PRODUCED, COMMITTED, READ, POSITION)
"""The acknowledgement comes after the commit."""
KINDS = ("file", "poll")
ITEM = {**EVENT, "fields": [*EVENT["fields"], {"name": "changed", "type": "long", "default": 0}]}
STEP_SECONDS = 0.1


@row(
    16,
    "polled sources killed",
    load="file and poll sources of what grows by {step} events each 100 ms: equal timestamps, rotation, half-written lines",
    fault="kill -9 at {points} points (read, produce, position, ack) of each kind, {kills} times",
    full={"points": 4, "kills": 5, "step": 6, "passings": 4},
    short={"points": 1, "kills": 1, "step": 3, "passings": 2},
    minutes=12,
)
async def sources_killed(run: Run) -> None:
    """What was written comes into the topic, each event once, whatever the worker was about to do when it died."""
    kafka = await run.kafka()
    async with bus(kafka.bootstrap, run.folder / "nobody") as made:
        points = run.chance.sample(POINTS, run["points"])
        trials = [await _trial(run, made, kind, point) for kind, point in product(KINDS, points)]
        await run.beside_each_other(_go(run, made, trial) for trial in trials)
        for point in points:
            run.must_fire(f"killed at {point}", len(KINDS) * run["kills"])
        for what in (ROTATED, HALF_WRITTEN, EQUAL_TIMES):
            run.must_fire(what, 1)
        run.note("events", sum(len(trial.grows.sent) for trial in trials))


@dataclass
class _Trial:
    """One source, whose worker dies at one point."""

    source: str
    topic: str
    point: str
    grows: GrowingFolder | GrowingApi
    victim: Victim
    deaths: list[int]


async def _trial(run: Run, made: Bus, kind: str, point: str) -> _Trial:
    source, folder = f"{kind}-{point}", run.folder / f"{kind}-{point}"
    topic = made.name(source)
    grows: GrowingFolder | GrowingApi
    if kind == "file":
        grows = GrowingFolder(folder / "logs", source, run.chance)
        reads = f'connector: file\n  config: {{path: "{grows.folder}", pattern: "*.log", format: jsonl, poll_interval: 100ms}}'
        before = ""
    else:
        folder.mkdir()
        grows = GrowingApi(source, run.chance)
        await grows.start()
        run.stack.push_async_callback(grows.stop)
        before = http_connection(f"api-{point}", grows.url).replace("connector: http\n", "connector: http_poll\n")
        paging = "pagination: {type: page}, incremental: {field: changed, param: since}, interval: 100ms"
        reads = f"connector: http_poll\n  connection: api-{point}\n  config: {{path: /items, {paging}}}"
    project = folder / "project.yaml"
    project.write_text(before + _manifests(source, topic, reads), encoding="utf-8")
    victim = Victim(made.settings.bootstrap, made.names, folder / "worker", project, made.registry_url)
    run.stack.push_async_callback(victim.end)
    deaths = [run.chance.randint(1, run["passings"]) for _ in range(run["kills"])]
    return _Trial(source, topic, point, grows, victim, deaths)


def _manifests(source: str, topic: str, reads: str) -> str:
    return (
        topic_manifest(topic, 2, schema=ITEM)
        + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {source}}}
spec:
  {reads}
  to: {{topic: "{topic}", key: event.key}}
"""
    )


async def _go(run: Run, made: Bus, trial: _Trial) -> None:
    growing = asyncio.create_task(_grow(trial, run["step"]))
    try:
        for passing in trial.deaths:
            await trial.victim.dies(trial.point, passing, 0.0)
        await trial.victim.lives()
    finally:
        growing.cancel()
        with suppress(asyncio.CancelledError):
            await growing
    trial.grows.end()
    run.fires(trial.victim.fired)
    run.fires(trial.grows.fired)
    await made.until(lambda: asyncio.to_thread(_is_read, made, trial), f"everything of {trial.source} read", PATIENCE)
    await trial.victim.end()
    await asyncio.to_thread(_judge, run, made, trial)


async def _grow(trial: _Trial, events: int) -> None:
    while True:
        trial.grows.grow(events)
        await asyncio.sleep(STEP_SECONDS)


def _is_read(made: Bus, trial: _Trial) -> bool:
    try:
        positions = read_positions(made.settings, made.names)
    except RetriableError:
        return False
    return sum(one.read for (source, _), one in positions.items() if source == trial.source) >= len(trial.grows.sent)


def _judge(run: Run, made: Bus, trial: _Trial) -> None:
    history = History(trial.grows.sent)
    history.extend(Acknowledged(sent.id, trial.source, by="written") for sent in trial.grows.sent)
    history.extend(gather.published(made.settings, trial.topic, trial.source, _id))
    run.judge(history, [Promise(trial.source, (trial.source,))])
    run.claim(len(history.of(Effect)) > 0, f"{trial.source} published nothing")


def _id(message: Message) -> str:
    found: str = unframed(message.value() or b"", ITEM)["id"]
    return found
