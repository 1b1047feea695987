"""Row 26: a member comes and goes again and again, and the one that stays neither grows nor leaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import Door, Record, event_encoder, letter_id, registry
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.faults.processes import Fleet
from tests.chaos.history import Effect, History
from tests.chaos.scene import EVENT, HELD_AT_MOST, PATIENCE, event_id
from tests.integration.bus_harness import http_connection, http_sink, topic_manifest
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.registry.codec import Encoder

STREAM, SINK = "rebalanced-work", "rebalanced-send"
MOVED = "rebalance"
WARM_UP = 2
"""So many rebalances come before the first look: a client of the broker, a pool of connections is made once."""
MORE_MB = 20
KEYS = 50
PARTITIONS = 6
READINGS = 5


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a process holds: resident memory in MiB, open files, threads."""

    memory: float
    files: int
    threads: int


@row(
    26,
    "a rebalance each minute",
    load="{rate} events/s through a stream and a sink, {seconds} s for each rebalance",
    fault="a second worker joins or leaves, {rebalances} times",
    full={"rate": 200, "rebalances": 12, "seconds": 60},
    short={"rate": 40, "rebalances": 4, "seconds": 1},
    minutes=20,
)
async def rebalances(run: Run) -> None:
    """After the warm-up the worker that stays takes no more memory, files or threads, and nothing is lost."""
    kafka = await run.kafka()
    names = Names(f"chaos26-{run.folder.name[-2:]}{os.getpid():x}")
    source, output = f"{names.namespace}.in", f"{names.namespace}.out"
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with registry() as (url, client):
            encoder = await event_encoder(client, source)
            project = run.folder / "project.yaml"
            project.write_text(_manifests(source, output, server), encoding="utf-8")
            fleet = Fleet(
                kafka.bootstrap,
                names.namespace,
                project,
                run.folder,
                count=2,
                environment={"TRUNKLINE_REGISTRY_URL": url},
            )
            fleet.start_one(0)
            with contextlib.ExitStack() as stack:
                stack.callback(fleet.end, 60.0)
                await _until(lambda: _assigned(fleet, 0) >= 2, "the first worker's partitions", fleet)
                door = Door(kafka, source)
                async with _events(run, door, encoder):
                    standings = await _standings(run, fleet)
                    run.claim(not fleet.crashed, f"workers died by themselves: {fleet.crashed}")
                await _until(lambda: server.effects >= len(list(door.places())), "every effect", fleet)
            history = await asyncio.to_thread(_history, kafka, names, door, server, output)
    run.must_fire(MOVED, run["rebalances"])
    # A worker that leaves has committed all that it called for: nothing is called for twice, but what a rebalance cut off may be.
    most = run["rebalances"] * HELD_AT_MOST
    run.judge(history, [Promise(STREAM, (source,)), Promise(SINK, (source,), most_repeats=most)])
    run.note("events", len(history.of(Effect)) // 2)
    _compare(run, standings)


async def _standings(run: Run, fleet: Fleet) -> list[_Standing]:
    """The second worker joins and leaves; whenever it has left, how the first one stands after a while."""
    standings: list[_Standing] = []
    for _ in range(run["rebalances"] // 2):
        before = _assigned(fleet, 0), _assigned(fleet, 1)
        fleet.start_one(1)
        await _until(lambda before=before: _assigned(fleet, 1) > before[1], "partitions of the second worker", fleet)
        run.fires({MOVED: 1})
        await asyncio.sleep(run["seconds"])
        before = _assigned(fleet, 0), _assigned(fleet, 1)
        await asyncio.to_thread(fleet.end_one, 1)
        await _until(lambda before=before: _assigned(fleet, 0) > before[0], "the partitions back", fleet)
        run.fires({MOVED: 1})
        await asyncio.sleep(run["seconds"] / 2)
        readings: list[_Standing] = []
        least = standings[_warm(run)] if len(standings) > _warm(run) else None
        deadline = time.monotonic() + PATIENCE
        # What a rebalance left to be closed may take a busy machine longer than the time that the row gives it.
        while len(readings) < READINGS or (least and _grew(least, readings) and time.monotonic() < deadline):
            readings.append(_standing(fleet.pid(0)))
            await asyncio.sleep(run["seconds"] / 2 / READINGS)
        standings.append(
            _Standing(
                median(one.memory for one in readings),
                min(one.files for one in readings),
                min(one.threads for one in readings),
            )
        )
    return standings


def _warm(run: Run) -> int:
    """The standing that later ones are compared with."""
    return WARM_UP // 2 - 1 + run.full


def _grew(before: _Standing, readings: list[_Standing]) -> bool:
    """What grows with each rebalance is more at each look. Connections that a pool keeps for a while come and go."""
    files, threads = min(one.files for one in readings), min(one.threads for one in readings)
    return threads > before.threads or files > before.files + 2


def _compare(run: Run, standings: list[_Standing]) -> None:
    warm, rest = standings[_warm(run)], standings[_warm(run) + 1 :]
    for name in ("memory", "files", "threads"):
        shown = ", ".join(f"{getattr(one, name):g}" for one in standings)
        run.note(f"{name} after each leave", shown)
    run.claim(
        max(one.memory for one in rest) - warm.memory <= MORE_MB, f"memory grew from {warm.memory:.0f} MiB: {rest}"
    )
    late = rest[-1]
    run.claim(not _grew(warm, [late]), f"threads and open files grew from {warm} to {late}")


def _standing(pid: int) -> _Standing:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    found = dict(re.findall(r"^(VmRSS|Threads):\s+(\d+)", status, re.MULTILINE))
    return _Standing(int(found["VmRSS"]) / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())), int(found["Threads"]))


def _assigned(fleet: Fleet, number: int) -> int:
    """How often a worker's log says that partitions came to it."""
    file = fleet.log_file(number)
    return file.read_text(encoding="utf-8", errors="replace").count('"event": "assigned"') if file.exists() else 0


@contextlib.asynccontextmanager
async def _events(run: Run, door: Door, encoder: Encoder) -> AsyncIterator[None]:
    """Writes events at the rate asked for, for as long as the context lasts."""
    ended = asyncio.Event()

    async def write() -> None:
        begun, number = time.monotonic(), 0
        sequences = [0] * KEYS
        while not ended.is_set():
            while number < (time.monotonic() - begun) * run["rate"]:
                key = run.chance.randrange(KEYS)
                name = f"e{number}"
                value = encoder.encode({"id": name, "key": f"k{key}", "sequence": sequences[key], "padding": "x" * 200})
                door.send(Record(name, value, f"k{key}", sequences[key], f"k{key}".encode()))
                sequences[key] += 1
                number += 1
            await asyncio.sleep(0.05)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        ended.set()
        await writing
        await asyncio.to_thread(door.finish)


def _manifests(source: str, output: str, server: HttpSinkServer) -> str:
    return (
        topic_manifest(source, PARTITIONS, schema=EVENT)
        + topic_manifest(output, PARTITIONS, schema=EVENT)
        + http_connection("peer", server.url)
        + http_sink(SINK, output, connection="peer", delivery=", in_flight: 8").replace(
            "min_delay", "attempts: 1000, min_delay"
        )
        + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {STREAM}}}
spec: {{from: "{source}", start: earliest, steps: [{{map: {{keep: all}}}}], to: "{output}"}}
"""
    )


def _history(kafka: KafkaSettings, names: Names, door: Door, server: HttpSinkServer, output: str) -> History:
    history = History(door.facts)
    history.extend(gather.placed(kafka, output, event_id))
    history.extend(gather.published(kafka, output, STREAM, event_id))
    for pipeline in (STREAM, SINK):
        history.extend(gather.dead_letters(kafka, names, pipeline, letter_id))
    history.extend(gather.commits(kafka, names, [STREAM, SINK]))
    history.extend(server.facts({f"/{SINK}": SINK}))
    return history


async def _until(condition: object, what: str, fleet: Fleet, seconds: float = PATIENCE) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come to be in {seconds:g} s\n{fleet.logs[-4000:]}")
        fleet.revive()
        await asyncio.sleep(0.1)
