"""The HTTP sink: one POST an order, 64 in flight, against a server that answers at once and one that takes 20 ms."""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks import contenders, orders
from benchmarks.transform import new_topics
from trunkline.bus.embedded import EmbeddedKafka
from trunkline.registry.client import RegistryClient
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.schema import Schema
from trunkline.registry.service import serve_registry

IN_FLIGHT = 64
EVENTS = {0.0: 30_000, 0.02: 20_000}
MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {topic}}}
spec: {{partitions: 4, schema: {schema}}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: counting}}
spec: {{connector: http, config: {{base_url: "http://127.0.0.1:{port}", http: {{allow_private: ["127.0.0.1"]}}}}}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: {topic}
  start: earliest
  connector: http
  connection: counting
  config: {{method: POST, url: /}}
  delivery: {{order: none, in_flight: 64}}
"""


async def run(rounds: int) -> list[str]:
    """Measures, and returns the lines of the table."""
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder,
        EmbeddedKafka(Path(folder) / "home") as kafka,
    ):
        assert kafka.running is not None
        store = KafkaStore({"bootstrap.servers": kafka.running.bootstrap})
        await store.start()
        runner, url = await serve_registry(store)
        try:
            return await asyncio.to_thread(_measure_all, Path(folder), kafka.running.bootstrap, url, rounds)
        finally:
            await runner.cleanup()
            await store.close()


def _measure_all(folder: Path, bootstrap: str, registry: str, rounds: int) -> list[str]:
    client = RegistryClient(registry)
    lines = ["| server latency | events/s | per CPU second | peak in flight | MiB |", "| --- | --- | --- | --- | --- |"]
    for latency, count in EVENTS.items():
        topic = f"orders-{int(latency * 1000)}ms"
        client.register(f"{topic}-value", Schema(orders.SCHEMA))
        new_topics(bootstrap, [topic])
        orders.load(bootstrap, topic, count)
        found = [_measure(folder, bootstrap, registry, topic, latency, count, turn) for turn in range(rounds)]
        rate, per_cpu, peak, memory = (statistics.median(values) for values in zip(*found, strict=True))
        lines.append(f"| {latency * 1000:.0f} ms | {rate:,.0f} | {per_cpu:,.0f} | {peak:.0f} | {memory:.0f} |")
    return lines


def _measure(
    folder: Path, bootstrap: str, registry: str, topic: str, latency: float, count: int, turn: int
) -> tuple[float, float, float, float]:
    """Events a second, events per CPU second, peak in flight, MiB."""
    name = f"bench-{topic}-{turn}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    manifest = folder / f"{name}.yaml"
    manifest.write_text(
        MANIFESTS.format(topic=topic, port=port, name=name, schema=json.dumps(orders.SCHEMA)), encoding="utf-8"
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.counting_server", str(port), str(latency)], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    server.stdout.readline()
    try:
        command = [
            str(Path(sys.executable).parent / "trunkline"),
            "--home",
            str(folder / "worker"),
            "--bootstrap",
            bootstrap,
        ]
        command += ["--registry", registry, "run", "-f", str(manifest), "--log-level", "warning"]
        used = contenders.run_until_committed(
            command, {}, folder / f"{name}.log", bootstrap=bootstrap, group=name, topic=topic, count=count, timeout=300
        )
        stats: dict[str, Any] = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10).read())
    finally:
        server.terminate()
        server.wait()
    if stats["requests"] != count or stats["distinct"] != count or stats["correlated"] != count:
        raise SystemExit(f"{name}: {stats} for {count} orders")
    print(
        f"  {latency * 1000:.0f} ms, round {turn + 1}: {count / stats['seconds']:,.0f}/s, {stats['peak']} in flight",
        flush=True,
    )
    return count / stats["seconds"], count / used.cpu, stats["peak"], used.rss
