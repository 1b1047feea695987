"""Row 30: two people apply, change, break and remove manifests at random, while their worker is under load."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import Door, Record, event_encoder
from tests.chaos.faults.http_sink import HttpSinkServer
from tests.chaos.history import History
from tests.chaos.scene import EVENT
from tests.integration.bus_harness import Bus, bus, http_connection, http_sink, topic_manifest
from trunkline.bus.accounting.audit import Entry, entries
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.applied import read_applied
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.control import deletion, manifests
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, ConflictError
from trunkline.core.manifests import load_text
from trunkline.registry.client import RegistryClient

STEADY = ("steady-0", "steady-1")
KEYS = 20
MISSING = "${env:CHAOS_NOBODY_SET_THIS}"


@dataclass(frozen=True, slots=True)
class Made:
    """A change that one of them was told is made. `change` is the label of what was written, or of what was removed."""

    who: str
    action: str
    name: str
    change: str


@dataclass
class Crowd:
    """The pipelines that both change, and what came of it."""

    topic: str
    names: list[str]
    meeting: asyncio.Barrier
    broken: set[str] = field(default_factory=set)
    """The changes after which a pipeline can't be opened."""
    made: list[Made] = field(default_factory=list)
    refused: int = 0
    gone: int = 0

    def sink(self, name: str, change: str, attempts: int | None) -> str:
        """The manifest of a pipeline; without `attempts` of one that can't be opened, since a secret is missing."""
        connection = "peer" if attempts is not None else "nobody"
        return f"""---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}, labels: {{change: {change}}}}}
spec:
  from: "{self.topic}"
  start: earliest
  connector: http
  connection: {connection}
  config: {{url: /{name}, idempotent: true}}
  delivery: {{retry: {{attempts: {attempts or 5}, min_delay: 20ms, max_delay: 200ms}}}}
"""


class Person:
    """One of the two: plans a change, looks at it for a moment, and has it carried out."""

    def __init__(self, who: str, crowd: Crowd, running: Bus, chance: random.Random) -> None:
        self._who, self._crowd, self._chance = who, crowd, chance
        self._registry = RegistryClient(running.registry_url)

        @contextmanager
        def registry() -> Iterator[RegistryClient]:
            yield self._registry

        self._cluster = Cluster(running.settings, running.names, who, registry)

    async def work(self, changes: int) -> None:
        """Makes so many changes, or is told why not."""
        try:
            for number in range(changes):
                await self._change(f"{self._who}-{number}", first=number == 0)
        finally:
            self._registry.close()

    async def _change(self, change: str, *, first: bool) -> None:
        crowd, chance = self._crowd, self._chance
        name = crowd.names[0] if first else chance.choice(crowd.names)
        label = await asyncio.to_thread(self._label, name)
        if label is not None and not first and chance.random() < 0.25:
            await self._remove(name)
            return
        breaks = not first and chance.random() < 0.3
        if breaks:
            crowd.broken.add(change)
        text = crowd.sink(name, change, None if breaks else chance.randrange(3, 12))
        planned = await asyncio.to_thread(
            manifests.propose, self._cluster, self._registry, load_text(text), prune=False
        )
        if first:
            await crowd.meeting.wait()  # both have seen the same state: one of them wins
        await asyncio.sleep(chance.uniform(0, 0.3))
        try:
            (written,) = await asyncio.to_thread(manifests.carry_out, self._cluster, self._registry, planned)
        except ConflictError:
            crowd.refused += 1
            return
        crowd.made.append(Made(self._who, written.action, name, change))

    async def _remove(self, name: str) -> None:
        crowd = self._crowd
        try:
            planned = await asyncio.to_thread(deletion.propose, self._cluster, [f"sink/{name}"])
            if planned.ended:
                crowd.gone += 1  # the other one was faster
                return
            label = _label_of(planned.seen.manifests[f"Sink/{name}"])
            await asyncio.sleep(self._chance.uniform(0, 0.3))
            deleted = await asyncio.to_thread(deletion.carry_out, self._cluster, planned)
        except ConflictError:
            crowd.refused += 1
            return
        except ConfigurationError as error:
            if error.code not in {"delete.unknown", "delete.from_files"}:
                raise
            crowd.gone += 1  # the other one was faster, and it is gone, or a worker is just ending it
            return
        if deleted:
            crowd.made.append(Made(self._who, "delete", name, label))
        else:
            crowd.gone += 1  # the other one deleted it while this one looked

    def _label(self, name: str) -> str | None:
        found = read_applied(self._cluster.kafka, self._cluster.names).get(f"Sink/{name}")
        return _label_of(found) if found is not None else None


@row(
    30,
    "two people",
    load="{events:,} events to two sinks that stay and to {names} that come and go",
    fault="{changes} manifests applied, changed, broken and removed at random by two people at once",
    full={"events": 20_000, "names": 12, "changes": 300},
    short={"events": 200, "names": 3, "changes": 14},
    minutes=25,
)
async def two_people(run: Run) -> None:
    """Only broken ones stop; nobody's change is lost without a word; the audit trail has each change, in its place."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with bus(kafka.bootstrap, run.folder / "worker") as running:
            topic = running.name("events")
            crowd = Crowd(topic, [f"crowd-{number}" for number in range(run["names"])], asyncio.Barrier(2))
            await _begin(running, crowd, server)
            await running.until_running(*STEADY)
            since = {name: running.report(name).since for name in STEADY}
            door = Door(kafka, topic)
            people = [
                Person(who, crowd, running, random.Random(f"{run.seed}:{who}")).work(run["changes"] // 2)
                for who in ("ada", "bob")
            ]
            begun = time.monotonic()
            encoder = await event_encoder(running.registry, topic)
            await run.beside_each_other([*people, _load(run, door, encoder.encode)])
            run.note("changes/s", round(run["changes"] / (time.monotonic() - begun), 1))
            wanted = await asyncio.to_thread(_applied, running.settings, running.names, crowd)
            await running.until(
                lambda: _settled(running, crowd, wanted, run["events"]),
                "every pipeline as its manifest says",
                600 if run.full else 150,
            )
            reports = {one.pipeline: one for one in running.worker.reports} if running.worker is not None else {}
            names = running.names
            await running.stop()
            trail = await asyncio.to_thread(lambda: list(entries(running.settings, names)))
        good = [name for name, change in wanted.items() if change not in crowd.broken]
        history = await asyncio.to_thread(_history, door, server, kafka, names, [*STEADY, *good])
    run.judge(history, [Promise(name, (topic,)) for name in (*STEADY, *good)])
    for name in STEADY:
        stayed = (reports[name].since, reports[name].failures)
        run.claim(stayed == (since[name], 0), f"{name} was disturbed: {stayed}, and ran since {since[name]}")
    _judge_trail(run, crowd, trail, wanted)
    run.note("made", len(crowd.made))
    run.note("refused with the difference", crowd.refused)
    run.note("already gone", crowd.gone)
    run.fires({"refused with the difference": crowd.refused, "broken manifests": len(crowd.broken)})
    run.must_fire("refused with the difference", 1)
    run.claim(len(crowd.made) + crowd.refused + crowd.gone == 2 * (run["changes"] // 2), "a change came to nothing")


async def _begin(running: Bus, crowd: Crowd, server: HttpSinkServer) -> None:
    """Applies what stays, and starts a worker that follows what is applied."""
    ensure_topics(running.settings, internal_topics(running.names))
    nobody = http_connection("nobody", server.url).replace(
        "config: {", f'config: {{auth: {{type: bearer, token: "{MISSING}"}}, '
    )
    text = topic_manifest(crowd.topic, 4, schema=EVENT) + http_connection("peer", server.url) + nobody
    text += "".join(http_sink(name, crowd.topic, connection="peer") for name in STEADY)

    @contextmanager
    def registry() -> Iterator[RegistryClient]:
        yield running.registry

    cluster = Cluster(running.settings, running.names, "the row", registry)
    planned = await asyncio.to_thread(manifests.propose, cluster, running.registry, load_text(text), prune=False)
    await asyncio.to_thread(manifests.carry_out, cluster, running.registry, planned)
    settings = WorkerSettings(running.settings, running.names, running.home, registry_url=running.registry_url)
    running.worker = Worker(settings)
    await running.worker.start()


async def _load(run: Run, door: Door, encode: Any) -> None:
    """Writes the events in small parts, as long as the people are at work."""
    sequences = [0] * KEYS
    records = []
    for number in range(run["events"]):
        key = run.chance.randrange(KEYS)
        sequences[key] += 1
        event = {"id": f"e{number}", "key": f"k{key}", "sequence": sequences[key], "padding": ""}
        records.append(Record(f"e{number}", encode(event), f"k{key}", sequences[key], f"k{key}".encode()))
    part = max(1, len(records) // run["changes"])
    for begin in range(0, len(records), part):
        await asyncio.to_thread(door.write, records[begin : begin + part])
        await asyncio.sleep(0.1)


def _settled(running: Bus, crowd: Crowd, wanted: dict[str, str], events: int) -> bool:
    """Whether good ones run and have read everything, broken ones say so, and those that were removed are gone."""
    assert running.worker is not None
    reports = {one.pipeline: one for one in running.worker.reports}
    if reports.keys() != {*STEADY, *wanted}:
        return False
    return all(
        _stands_broken(report)
        if wanted.get(name) in crowd.broken
        else report.state is State.RUNNING
        and report.version == report.wanted
        and report.counts.get("read") == report.counts.get("delivered") == events
        for name, report in reports.items()
    )


def _stands_broken(report: Report) -> bool:
    """FAILED for the missing secret; or, where a version ran before, that one runs on and another one is wanted."""
    if report.state is State.RUNNING:
        return report.version != report.wanted
    return report.state is State.FAILED and report.code == "secret.missing"


def _applied(kafka: KafkaSettings, names: Names, crowd: Crowd) -> dict[str, str]:
    """The changes that are applied in the end, by pipeline."""
    found = read_applied(kafka, names)
    return {name: _label_of(found[f"Sink/{name}"]) for name in crowd.names if f"Sink/{name}" in found}


def _label_of(manifest: Any) -> str:
    return str(manifest["metadata"]["labels"]["change"])


def _judge_trail(run: Run, crowd: Crowd, trail: list[Entry], wanted: dict[str, str]) -> None:
    """Every change that somebody was told is made has one entry, and each entry begins where the one before it ended."""
    found = []
    stands: dict[str, str | None] = dict.fromkeys(crowd.names)
    for entry in trail:
        if entry.pipeline not in stands or not entry.action.startswith("manifest."):
            continue
        before, after = _labels(entry)
        run.claim(before == stands[entry.pipeline], f"{entry} follows {stands[entry.pipeline]}")
        stands[entry.pipeline] = after
        found.append(Made(entry.who, entry.action.partition(".")[2], entry.pipeline, str(after or before)))
    run.claim(
        sorted(found, key=str) == sorted(crowd.made, key=str),
        f"the trail and what was told differ: {set(found) ^ set(crowd.made)}",
    )
    ends = {name: change for name, change in stands.items() if change is not None}
    run.claim(ends == wanted, f"the trail ends with {ends}, and applied is {wanted}")


def _labels(entry: Entry) -> tuple[str | None, str | None]:
    """The change before and after an entry."""
    if entry.action == "manifest.change":
        (label,) = [one for one in entry.details["fields"] if one["field"] == "metadata.labels.change"]
        return label["before"], label["after"]
    before, after = entry.details["before"], entry.details["after"]
    return (_label_of(before) if before else None), (_label_of(after) if after else None)


def _history(door: Door, server: HttpSinkServer, kafka: KafkaSettings, names: Names, routes: list[str]) -> History:
    history = History(door.facts)
    history.extend(gather.commits(kafka, names, routes))
    history.extend(server.facts({f"/{name}": name for name in routes}))
    return history
