"""Streams against the plain confluent-kafka loop: the same broker, data and work, one after the other, several rounds.

The raw loops are those of the peers' folder where it is there (`BENCH_PEERS`, or `../shared/peers/peers`), else those in
`raw_loops`, which do the same: decode, drop a third, change two fields, encode, headers kept; offsets each second, or a
transaction each 200 ms.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks import contenders, orders
from trunkline.bus.embedded import EmbeddedKafka
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
MASK = "mask: {fields: {customer: hash}, key: '${env:BENCH_MASK_KEY}'}"
ROUTE = "[{{topic: {target}-big, when: event.amount >= 100000.0}}, {{topic: {target}, otherwise: true}}]"


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table: a stream with `steps` and `to`, or the raw loop in `script`."""

    name: str
    processing: str
    script: str | None = None
    steps: tuple[str, ...] = ()
    to: str = ""


CONTENDERS = (
    Contender("raw loop, at-least-once", "at-least-once", script="raw.py"),
    Contender("raw loop, transactions", "exactly-once", script="raw_eos.py"),
    Contender("transform, at-least-once", "at-least-once", steps=(FILTER, CHANGE), to="{target}"),
    Contender("transform, exactly-once", "exactly-once", steps=(FILTER, CHANGE), to="{target}"),
    Contender("filter+map+mask+route, at-least-once", "at-least-once", steps=(FILTER, CHANGE, MASK), to=ROUTE),
    Contender("filter+map+mask+route, exactly-once", "exactly-once", steps=(FILTER, CHANGE, MASK), to=ROUTE),
)


def _manifests(contender: Contender, source: str, target: str, name: str) -> str:
    listed = "[" + ", ".join("{" + step + "}" for step in contender.steps) + "]"
    to = contender.to.format(target=target)
    return MANIFESTS.format(
        source=source,
        target=target,
        name=name,
        processing=contender.processing,
        steps=listed,
        to=to,
        schema=json.dumps(orders.SCHEMA),
    )


def _raw_folder() -> Path:
    given = os.environ.get("BENCH_PEERS")
    beside = Path(__file__).resolve().parents[2] / "shared" / "peers" / "peers"
    return Path(given) if given else (beside if beside.is_dir() else Path(__file__).parent / "raw_loops")


def new_topics(bootstrap: str, names: list[str]) -> None:
    """Creates topics for a measurement."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    # LogAppendTime: the broker stamps every batch, so timing the outputs costs the contenders nothing.
    new = [NewTopic(name, orders.PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"}) for name in names]
    for future in admin.create_topics(new).values():
        future.result(20)


async def run(count: int, rounds: int) -> list[str]:
    """Measures, and returns the lines of the table."""
    os.environ.setdefault("BENCH_MASK_KEY", "0123456789abcdef0123456789abcdef")
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder,
        EmbeddedKafka(Path(folder) / "home") as kafka,
    ):
        assert kafka.running is not None
        bootstrap = kafka.running.bootstrap
        store = KafkaStore({"bootstrap.servers": bootstrap})
        await store.start()
        runner, url = await serve_registry(store)
        try:
            return await asyncio.to_thread(_measure_all, Path(folder), bootstrap, url, count, rounds)
        finally:
            await runner.cleanup()
            await store.close()


def _measure_all(folder: Path, bootstrap: str, registry: str, count: int, rounds: int) -> list[str]:
    registered = RegistryClient(registry).register("orders-value", Schema(orders.SCHEMA))
    assert registered.id == 1
    new_topics(bootstrap, ["orders"])
    orders.load(bootstrap, "orders", count)
    rates: dict[str, list[tuple[float, float, float]]] = {contender.name: [] for contender in CONTENDERS}
    for turn in range(rounds):
        for contender in CONTENDERS:
            rates[contender.name].append(_measure(contender, folder, bootstrap, registry, count, turn))
            rate, per_cpu, memory = rates[contender.name][-1]
            print(
                f"  round {turn + 1}: {contender.name}: {rate:,.0f}/s, {per_cpu:,.0f} per CPU second, {memory:.0f} MiB",
                flush=True,
            )
    return _table(rates)


def _measure(
    contender: Contender, folder: Path, bootstrap: str, registry: str, count: int, turn: int
) -> tuple[float, float, float]:
    """Events a second, events per CPU second, and MiB."""
    index = CONTENDERS.index(contender)
    name, target = f"bench-{index}-{turn}", f"out-{index}-{turn}"
    targets = [target, f"{target}-big"]
    new_topics(bootstrap, targets)
    env: dict[str, str] = {}
    if contender.script is not None:
        command = [sys.executable, str(_raw_folder() / contender.script)]
        env = {"PEER_BOOTSTRAP": bootstrap, "PEER_SRC": "orders", "PEER_DST": target, "PEER_GROUP": name}
    else:
        manifest = folder / f"{name}.yaml"
        manifest.write_text(_manifests(contender, "orders", target, name), encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "trunkline"),
            "--home",
            str(folder / "worker"),
            "--bootstrap",
            bootstrap,
        ]
        command += ["--registry", registry, "run", "-f", str(manifest), "--log-level", "warning"]
    used = contenders.run_until_committed(
        command, env, folder / f"{name}.log", bootstrap=bootstrap, group=name, topic="orders", count=count, timeout=300
    )
    written, seconds = orders.span_of(bootstrap, targets)
    expected = count - count // 3
    if written != expected:
        raise SystemExit(f"{contender.name} wrote {written} records, {expected} are right")
    return count / max(seconds, 0.001), count / used.cpu, used.rss


def _table(rates: dict[str, list[tuple[float, float, float]]]) -> list[str]:
    medians = {
        name: tuple(statistics.median(values) for values in zip(*rows, strict=True)) for name, rows in rates.items()
    }
    lines = [
        "| contender | events/s | per CPU second | MiB | ratio to its raw loop (events/s, per CPU second) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for contender in CONTENDERS:
        rate, per_cpu, memory = medians[contender.name]
        raw = "raw loop, at-least-once" if contender.processing == "at-least-once" else "raw loop, transactions"
        ratios = f"{rate / medians[raw][0]:.2f}, {per_cpu / medians[raw][1]:.2f}"
        lines.append(f"| {contender.name} | {rate:,.0f} | {per_cpu:,.0f} | {memory:.0f} | {ratios} |")
    return lines
