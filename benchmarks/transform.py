"""Streams against what one would use instead: the same broker, data and work, one after the other, several rounds.

The work: decode an order, drop a third, change two fields, encode, with the key and nine headers kept. `route` changes nothing:
it drops the same third and sends what is left to one of two topics by the amount.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka.cimpl import NewTopic

from benchmarks import contenders, orders, report
from benchmarks.peers import Peer, peers
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.kafkaclient import AdminClient
from trunkline.registry.client import RegistryClient
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.schema import Schema
from trunkline.registry.service import serve_registry

MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {source}}}
spec: {{partitions: 4, schema: {schema}}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {target}}}
spec: {{partitions: 4, schema: {schema}}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {target}-big}}
spec: {{partitions: 4, schema: {schema}}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec:
  from: {source}
  start: earliest
  processing: {processing}
  steps: {steps}
  to: {to}
"""
FILTER = "filter: event.region != 'apac'"
CHANGE = "map: {set: {amount: event.amount * 1.1, note: 'event.note.substring(0, 60)'}}"
ROUTE = "[{{topic: {target}-big, when: event.amount >= 100000.0}}, {{topic: {target}, otherwise: true}}]"
FEW = 200_000
"""How many events the peers get that take ten times as long."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table. Of ours `steps` and `to` say what the stream does; a peer is known by its name."""

    name: str
    processing: str
    steps: tuple[str, ...] = ()
    to: str = "{target}"
    workers: int = 1
    few: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is a stream of the bus."""
        return bool(self.steps)


ALO, EOS = "at-least-once", "exactly-once"
CONTENDERS = (
    Contender("raw", ALO),
    Contender("trunkline", ALO, (FILTER, CHANGE)),
    Contender("raw-eos", EOS),
    Contender("trunkline-eos", EOS, (FILTER, CHANGE)),
    Contender("trunkline, 2 workers", ALO, (FILTER, CHANGE), workers=2),
    Contender("trunkline-eos, 2 workers", EOS, (FILTER, CHANGE), workers=2),
    Contender("trunkline route", ALO, (FILTER,), ROUTE),
    Contender("trunkline-eos route", EOS, (FILTER,), ROUTE),
    Contender("kstreams", ALO),
    Contender("kstreams-eos", EOS),
    Contender("quix", ALO, few=True),
    Contender("quix-eos", EOS, few=True),
    Contender("faststream", ALO, few=True),
    Contender("faust", ALO, few=True),
)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: events a second by the broker's stamps, events per CPU second, and MiB at the peak."""

    events: int
    rate: float
    per_cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where a measurement happens."""

    folder: Path
    bootstrap: str
    registry: str
    count: int
    peers: Mapping[str, Peer]


def new_topics(bootstrap: str, names: Sequence[str]) -> None:
    """Creates topics for a measurement."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    # LogAppendTime: the broker stamps every batch, so timing the outputs costs the contenders nothing.
    new = [NewTopic(name, orders.PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"}) for name in names]
    for future in admin.create_topics(new).values():
        future.result(20)


async def run(count: int, rounds: int, only: Collection[str] = ()) -> list[str]:
    """Measures the contenders (those in `only`, where it names some), and returns the lines of the table, which the report keeps."""
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder,
        # Open: the others' programs sign in nowhere.
        EmbeddedKafka(Path(folder) / "home", EmbeddedOptions(open=True)) as kafka,
    ):
        assert kafka.running is not None
        bootstrap = kafka.running.bootstrap
        store = KafkaStore({"bootstrap.servers": bootstrap})
        await store.start()
        listener = await serve_registry(store)
        try:
            return await asyncio.to_thread(_measure_all, Path(folder), bootstrap, listener.url, count, rounds, only)
        finally:
            await listener.stop()
            await store.close()


def _measure_all(
    folder: Path, bootstrap: str, registry: str, count: int, rounds: int, only: Collection[str]
) -> list[str]:
    there, missing = peers()
    place = Place(folder, bootstrap, registry, count, there)
    taking_part = [one for one in CONTENDERS if (one.ours or one.name in there) and (not only or one.name in only)]
    registered = RegistryClient(registry).register("orders-value", Schema(orders.SCHEMA))
    assert registered.id == 1
    sizes = {"orders": count} | ({"orders-few": min(FEW, count)} if any(one.few for one in taking_part) else {})
    for topic, size in sizes.items():
        new_topics(bootstrap, [topic])
        orders.load(bootstrap, topic, size)
    runs: dict[str, list[Measured]] = {one.name: [] for one in taking_part}
    for turn in range(rounds):
        for one in taking_part:
            found = _measure(one, place, turn)
            runs[one.name].append(found)
            print(
                f"  round {turn + 1}: {one.name}: {found.rate:,.0f}/s, {found.per_cpu:,.0f} per CPU second, "
                f"{found.memory:.0f} MiB",
                flush=True,
            )
    rows = _rows(taking_part, runs)
    few = f" ({min(FEW, count):,} where the column says so)" if len(sizes) > 1 else ""
    notes = [
        f"Medians of {rounds} rounds, {count:,} events{few}, 4 partitions, lz4, nine headers.",
        "The ratio is of events per CPU second to the raw loop with the same guarantee; start-up is in the CPU seconds.",
        "Faust does not wait for acknowledgements.",
        *missing,
    ]
    report.add("Streams", rows, notes, data={name: [repr(each) for each in found] for name, found in runs.items()})
    return [*report.table(rows), "", *notes]


def _measure(contender: Contender, place: Place, turn: int) -> Measured:
    index = CONTENDERS.index(contender)
    name, target = f"bench-{index}-{turn}", f"out-{index}-{turn}"
    source, count = ("orders-few", min(FEW, place.count)) if contender.few else ("orders", place.count)
    targets = [target, f"{target}-big"]
    new_topics(place.bootstrap, targets)
    # Compiled bytecode is kept for every Python contender, as it is where software is installed.
    env = {
        "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "trunkline-bench-pyc"),
        "PYTHONDONTWRITEBYTECODE": "",
    }
    if contender.ours:
        command = _ours(contender, place, source, target, name)
    else:
        state = place.folder / f"{name}-state"
        state.mkdir()
        peer = place.peers[contender.name]
        command = list(peer.command)
        env |= {"PEER_BOOTSTRAP": place.bootstrap, "PEER_SRC": source, "PEER_DST": target, "PEER_GROUP": name}
        env |= {"PEER_STATE": str(state), **peer.env}
    used = contenders.run_until_committed(
        command,
        env,
        place.folder / f"{name}.log",
        bootstrap=place.bootstrap,
        group=name,
        topic=source,
        count=count,
        timeout=600,
    )
    written, seconds = orders.span_of(place.bootstrap, targets)
    expected = count - count // 3
    if written != expected:
        raise SystemExit(f"{contender.name} wrote {written} records, {expected} are right")
    return Measured(count, count / max(seconds, 0.001), count / used.cpu, used.rss)


def _ours(contender: Contender, place: Place, source: str, target: str, name: str) -> list[str]:
    manifest = place.folder / f"{name}.yaml"
    text = MANIFESTS.format(
        source=source,
        target=target,
        name=name,
        processing=contender.processing,
        steps="[" + ", ".join("{" + step + "}" for step in contender.steps) + "]",
        to=contender.to.format(target=target),
        schema=json.dumps(orders.SCHEMA),
    )
    manifest.write_text(text, encoding="utf-8")
    command = [
        str(Path(sys.executable).parent / "trunkline"),
        "--home",
        str(place.folder / f"worker-{contender.workers}"),
    ]
    command += ["--bootstrap", place.bootstrap, "--registry", place.registry, "run", "-f", str(manifest)]
    return [*command, "--workers", str(contender.workers), "--log-level", "warning"]


def _rows(taking_part: Sequence[Contender], runs: Mapping[str, Sequence[Measured]]) -> list[dict[str, Any]]:
    def median(name: str, what: str) -> float:
        return float(statistics.median(getattr(each, what) for each in runs[name]))

    rows = []
    for one in taking_part:
        raw = "raw" if one.processing == ALO else "raw-eos"
        per_cpu = median(one.name, "per_cpu")
        alone = one.name.partition(",")[0]
        rows.append(
            {
                "contender": one.name,
                "guarantee": one.processing,
                "events": runs[one.name][0].events,
                "events/s": median(one.name, "rate"),
                "per CPU second": per_cpu,
                "ratio to raw": per_cpu / median(raw, "per_cpu") if raw in runs else None,
                "ratio to one worker": per_cpu / median(alone, "per_cpu")
                if one.workers > 1 and alone in runs
                else None,
                "peak MiB": median(one.name, "memory"),
            }
        )
    return rows
