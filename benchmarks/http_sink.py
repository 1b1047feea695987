"""The HTTP sink: one POST an order, 64 in flight, against a server that answers at once and one that takes 20 ms.

Beside what one would use instead, where the folder of the peers is there (`BENCH_PEERS`, or `../shared/peers`): their own
harness measures everyone, ours as one of them, on the same broker, the same data and the same server. Else ours alone.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from benchmarks import contenders, orders, report
from benchmarks.peers import folder as peers_folder
from benchmarks.peers import make_environment
from benchmarks.transform import new_topics
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema
from trunkline.registry.service import serve_registry
from trunkline.registry.store import MemoryStore

IN_FLIGHT = 64
CUSTOMERS = 1000
EVENTS = {0: 8_000, 20: 4_000}
"""Orders by the server's latency in milliseconds: as many as the slowest delivers in half a minute."""
PEERS = ("httpx", "httpx-8x8", "aiohttp", "faststream-httpx", "connect-camel")
OURS = "trunkline"
MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {topic}}}
spec: {{partitions: 4, schema: {schema}}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: counting}}
spec: {{connector: http, config: {{base_url: "{url}", http: {{allow_private: ["127.0.0.1"]}}}}}}
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
  delivery: {{in_flight: 64}}
"""
NOTES = (
    "One POST an order as JSON, 64 in flight allowed, nine headers a record; ours at-least-once, in order by key.",
    "Events/s on the server's clock, from its first request to its last; CPU seconds of the whole process, its start included.",
    "Kafka Connect's sink has one request a task under way, four in all. httpx: one client of 64 connections, and eight of eight.",
)


def run(rounds: int, latencies: Sequence[int]) -> list[str]:
    """Measures, keeps the results for the page, and returns the lines of the tables."""
    lines = []
    for latency in latencies:
        runs = _runs(latency, rounds)
        rows = _rows(runs)
        report.add(f"HTTP sink, server latency {latency} ms", rows, NOTES, data=runs)
        lines += ["", f"Server latency {latency} ms, {EVENTS[latency]:,} orders, median of {rounds}", ""]
        lines += report.table(rows)
    return lines


def _rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = []
    for name in dict.fromkeys(run["peer"] for run in runs):
        mine = [run for run in runs if run["peer"] == name and run.get("events_s")]
        failed = [run for run in runs if run["peer"] == name and not run.get("exact")]
        row: dict[str, Any] = {"contender": f"**{name}**" if name == OURS else name}
        for title, key in (
            ("events/s", "events_s"),
            ("CPU s", "cpu_s"),
            ("peak MiB", "rss_mib"),
            ("peak in flight", "peak_in_flight"),
        ):
            row[title] = statistics.median([run[key] for run in mine]) if mine else None
        row["each exactly once"] = "yes" if mine and not failed else "no"
        rows.append(row)
    return rows


def _runs(latency: int, rounds: int) -> list[dict[str, Any]]:
    peers = _peers()
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder, _registry() as registry:
        RegistryClient(registry).register("orders-value", Schema(orders.SCHEMA))
        if peers is None:
            with _kafka(Path(folder)) as bootstrap:
                new_topics(bootstrap, ["orders"])
                orders.load(bootstrap, "orders", EVENTS[latency])
                return [_alone(Path(folder), bootstrap, registry, latency, turn) for turn in range(rounds)]
        return _beside(peers, Path(folder), registry, latency, rounds)


# --- beside the peers ---


def _peers() -> ModuleType | None:
    """The peers' harness. It runs the Python ones in their own environment."""
    there = peers_folder()
    if there is None:
        return None
    os.environ.setdefault("PEERS_PY", make_environment(there))
    spec = importlib.util.spec_from_file_location("peers_run", there / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _beside(peers: Any, folder: Path, registry: str, latency: int, rounds: int) -> list[dict[str, Any]]:
    """Everyone in turn, round by round, so that a noisy spell hits all of them."""
    subprocess.run([sys.executable, str(Path(peers.HERE) / "build.py")], check=True)

    def ours(context: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
        return _command(folder, context["group"], context["src"], context["url"], peers.BOOT, registry), {}

    peers.HTTP[OURS] = ours
    broker = peers.Broker()
    arguments = SimpleNamespace(latency=latency, inflight=IN_FLIGHT, timeout=180)
    runs: list[dict[str, Any]] = []
    try:
        broker.topic("orders")
        peers.load("orders", EVENTS[latency], "http-sink", CUSTOMERS)
        broker.warm()
        for turn in range(1, rounds + 1):
            for name in (OURS, *PEERS):
                found = peers.measure("http-sink", name, broker, "orders", EVENTS[latency], turn, arguments)
                print(f"  {latency} ms, round {turn}, {name}: {found.get('events_s')}/s", flush=True)
                runs.append(found)
    finally:
        peers.stop(broker.proc)
    return runs


def _command(folder: Path, name: str, topic: str, url: str, bootstrap: str, registry: str) -> list[str]:
    """A worker with one sink, which reads as the group `name`."""
    manifest = folder / f"{name}.yaml"
    text = MANIFESTS.format(name=name, topic=topic, url=url.rstrip("/"), schema=json.dumps(orders.SCHEMA))
    manifest.write_text(text, encoding="utf-8")
    worker = [
        str(Path(sys.executable).parent / "trunkline"),
        "--home",
        str(folder / "worker"),
        "--bootstrap",
        bootstrap,
    ]
    return [*worker, "--registry", registry, "run", "-f", str(manifest), "--log-level", "warning"]


# --- alone ---


def _alone(folder: Path, bootstrap: str, registry: str, latency: int, turn: int) -> dict[str, Any]:
    name, count = f"{OURS}-{turn}", EVENTS[latency]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.counting_server", str(port), str(latency / 1000)], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    server.stdout.readline()
    try:
        used = contenders.run_until_committed(
            _command(folder, name, "orders", url, bootstrap, registry),
            {},
            folder / f"{name}.log",
            bootstrap=bootstrap,
            group=name,
            topic="orders",
            count=count,
            timeout=300,
        )
        stats: dict[str, Any] = json.loads(urllib.request.urlopen(url, timeout=10).read())
    finally:
        server.terminate()
        server.wait()
    return {
        "peer": OURS,
        "run": turn,
        "n": count,
        "events_s": round(count / stats["seconds"]),
        "cpu_s": round(used.cpu, 2),
        "rss_mib": round(used.rss),
        "peak_in_flight": stats["peak"],
        "exact": stats["requests"] == stats["distinct"] == stats["correlated"] == count,
    }


@contextmanager
def _kafka(folder: Path) -> Iterator[str]:
    with EmbeddedKafka(folder / "home", EmbeddedOptions(open=True)) as kafka:
        assert kafka.running is not None
        yield kafka.running.bootstrap


@contextmanager
def _registry() -> Iterator[str]:
    """A registry on a loop of its own, beside measurements that block."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        listener = runner.run(serve_registry(MemoryStore()))
        serving = threading.Thread(target=loop.run_forever, name="registry", daemon=True)
        serving.start()
        try:
            yield listener.url
        finally:
            loop.call_soon_threadsafe(loop.stop)
            serving.join()
            runner.run(listener.stop())
