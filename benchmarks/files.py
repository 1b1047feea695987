"""The file source: CSV rows cast to a schema, encoded, and written with position and trace in one transaction a batch."""

from __future__ import annotations

import csv
import json
import os
import statistics
import subprocess
from pathlib import Path
from typing import Any

from benchmarks import orders, report
from benchmarks.cluster import Cluster, on_a_cluster
from benchmarks.transform import new_topics
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema

ROWS = 300_000
NOTES = {"plain rows": "n" * 60, "rows with quoted fields": 'said "yes", and went on ' * 2}
NOTE = (
    "Rows a second are from the broker's stamp on the first record to that on the last; CPU seconds are those of the whole process, its "
    "start and end included."
)
MANIFEST = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {name}}}
spec: {{partitions: {partitions}, schema: {schema}}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: bench-{name}}}
spec:
  connector: file
  config: {{path: {path}, format: csv, watch: false}}
  to: {{topic: {name}, key: event.customer}}
"""


async def run(rounds: int) -> list[str]:
    """Measures, keeps the results, and returns the lines of the table."""
    return await on_a_cluster(lambda cluster: _measured(cluster, rounds))


def _measured(cluster: Cluster, rounds: int) -> list[str]:
    rows: list[dict[str, Any]] = []
    for number, (label, note) in enumerate(NOTES.items()):
        path = cluster.folder / f"{number}.csv"
        _write(path, note)
        found = [_once(cluster, f"rows-{number}-{turn}", path) for turn in range(rounds)]
        rate, per_cpu, memory = (statistics.median(values) for values in zip(*found, strict=True))
        rows.append({"file": label, "rows/s": rate, "rows per CPU second": per_cpu, "MiB": memory})
        print(f"  {label}: {rate:,.0f} rows/s", flush=True)
    report.add(
        "File source",
        rows,
        [f"{ROWS:,} rows of six columns. {NOTE}"],
    )
    return report.table(rows)


def _write(path: Path, note: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field["name"] for field in orders.SCHEMA["fields"])
        for number in range(ROWS):
            writer.writerow((f"o{number}", f"c{number % 1000}", number * 1.5, "EUR", "emea", note))


def _once(cluster: Cluster, name: str, path: Path) -> tuple[float, float, float]:
    """Rows a second, rows a CPU second, MiB."""
    RegistryClient(cluster.registry).register(f"{name}-value", Schema(orders.SCHEMA))
    new_topics(cluster.bootstrap, [name])
    manifest = cluster.folder / f"{name}.yaml"
    schema = json.dumps(orders.SCHEMA)
    manifest.write_text(
        MANIFEST.format(name=name, path=path, partitions=orders.PARTITIONS, schema=schema), encoding="utf-8"
    )
    log = cluster.folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            cluster.command("run", "-f", str(manifest), "--until-finished", "--log-level", "warning"),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    count, seconds = orders.span_of(cluster.bootstrap, [name])
    if process.returncode != 0 or count != ROWS:
        raise SystemExit(f"{name}: {count} of {ROWS} rows, status {process.returncode}:\n{log.read_text()[-2000:]}")
    return count / seconds, count / (used.ru_utime + used.ru_stime), used.ru_maxrss / 1024
