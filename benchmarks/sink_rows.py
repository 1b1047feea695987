"""Rows a second of a sink: orders that wait in a topic are delivered to a stand-in in a process of its own."""

from __future__ import annotations

import json
import statistics
from typing import Any

from benchmarks import contenders, orders
from benchmarks.cluster import Cluster, timed
from benchmarks.transform import new_topics
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema

TOPIC = "orders"
MANIFEST = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders}}
spec: {{partitions: {partitions}, schema: {schema}}}
"""


def load(cluster: Cluster, count: int) -> None:
    """Makes the topic and writes the orders."""
    RegistryClient(cluster.registry).register(f"{TOPIC}-value", Schema(orders.SCHEMA))
    new_topics(cluster.bootstrap, [TOPIC])
    orders.load(cluster.bootstrap, TOPIC, count)


def measure(
    cluster: Cluster, label: str, manifest: str, env: dict[str, str], *, count: int, rounds: int
) -> dict[str, Any]:
    """One row of a table: medians of the rounds. `manifest` holds `{name}`, the sink's name in each round."""
    found = []
    for turn in range(rounds):
        name = f"bench-{label.lower().replace(' ', '-')}-{turn}"
        file = cluster.folder / f"{name}.yaml"
        topic = MANIFEST.format(partitions=orders.PARTITIONS, schema=json.dumps(orders.SCHEMA))
        file.write_text(topic + manifest.replace("{name}", name), encoding="utf-8")
        command = cluster.command("run", "-f", str(file), "--log-level", "warning")
        used, seconds = timed(
            lambda command=command, name=name: contenders.run_until_committed(  # type: ignore[misc]
                command,
                env,
                cluster.folder / f"{name}.log",
                bootstrap=cluster.bootstrap,
                group=name,
                topic=TOPIC,
                count=count,
                timeout=600,
            )
        )
        found.append((count / seconds, count / used.cpu, used.rss))
        print(f"  {label}, round {turn + 1}: {count / seconds:,.0f} rows/s", flush=True)
    rate, per_cpu, memory = (statistics.median(values) for values in zip(*found, strict=True))
    return {"sink": label, "rows/s": rate, "rows per CPU second": per_cpu, "MiB": memory}


NOTE = "Rows a second are from the start of the process to its last commit; the stand-in is a process of its own on the same machine."
