"""Every flight from a file to files and to OpenSSH's sftp-server, with the process killed in the middle.

What arrives is compared with what the csv module makes of the same file: count and checksum, computed apart from our code.
"""

from __future__ import annotations

import asyncio
import csv
import gzip
import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
from sftp_servers import Server, openssh

from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.source.positions import SplitPosition, read_positions

ROOT = Path(__file__).parents[2]
ALL_FLIGHTS = ROOT.parent / "shared" / "data" / "flights.csv.gz"
INTEGERS = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "flight",
    "air_time",
    "distance",
    "hour",
    "minute",
]
NULLABLE = {"dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay", "tailnum", "air_time"}
COLUMNS = [
    "year",
    "month",
    "day",
    "dep_time",
    "sched_dep_time",
    "dep_delay",
    "arr_time",
    "sched_arr_time",
    "arr_delay",
    "carrier",
    "flight",
    "tailnum",
    "origin",
    "dest",
    "air_time",
    "distance",
    "hour",
    "minute",
    "time_hour",
]


def manifests(source: Path, out: Path, server: Server, topics: str) -> str:
    def avro(name: str) -> str:
        kind = "int" if name in INTEGERS else "string"
        if name == "time_hour":
            kind = "{type: long, logicalType: timestamp-millis}"
        return (
            f"{{name: {name}, type: ['null', {kind}], default: null}}"
            if name in NULLABLE
            else f"{{name: {name}, type: {kind}}}"
        )

    fields = "\n".join(f"      - {avro(name)}" for name in COLUMNS)
    return f"""
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {topics}.departed}}
spec:
  partitions: 4
  schema:
    type: record
    name: Departed
    fields:
{fields}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {topics}.delayed}}
spec: {{partitions: 4}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: flights}}
spec:
  connector: file
  config: {{path: {source}, format: csv, watch: false, csv: {{null_values: [NA]}}}}
  to: {{topic: {topics}.departed, key: event.carrier}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: delayed}}
spec:
  from: {topics}.departed
  start: earliest
  steps: [{{filter: event.dep_delay != null && event.dep_delay >= 15}}]
  to: {topics}.delayed
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: to-files}}
spec:
  from: {topics}.delayed
  start: earliest
  connector: file
  config: {{folder: {out}, format: csv}}
  delivery: {{batch: {{count: 5000, age: 1s}}}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: dropbox}}
spec:
  connector: sftp
  config:
    host: 127.0.0.1
    port: {server.port}
    user: {server.user}
    private_key: ${{env:FLIGHTS_SFTP_KEY}}
    host_keys: ["{server.host_key.strip()}"]
    allow_private: ["127.0.0.1"]
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: to-sftp}}
spec:
  from: {topics}.delayed
  start: earliest
  connector: sftp
  connection: dropbox
  config: {{folder: {server.path}, format: csv}}
  delivery: {{batch: {{count: 5000, age: 1s}}}}
"""


def checksum(rows: Iterable[tuple[str, ...]]) -> tuple[int, str]:
    """How many rows, and a checksum of their multiset."""
    digests = sorted(hashlib.sha256("\x1f".join(row).encode()).digest() for row in rows)
    return len(digests), hashlib.sha256(b"".join(digests)).hexdigest()


def expected_rows(source: Path) -> Iterator[tuple[str, ...]]:
    with gzip.open(source, "rt", newline="") as file:
        for row in csv.DictReader(file):
            if row["dep_delay"] != "NA" and int(row["dep_delay"]) >= 15:
                yield tuple("" if row[name] == "NA" else row[name] for name in COLUMNS)


def delivered_rows(folder: Path) -> Iterator[tuple[str, ...]]:
    for path in folder.iterdir():
        assert path.suffix == ".csv", f"{path.name} was left behind"
        for row in csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))):
            row["time_hour"] = row["time_hour"].replace("+00:00", "Z").replace(".000", "")
            yield tuple(row[name] for name in COLUMNS)


async def until(condition: Callable[[], bool], process: asyncio.subprocess.Process, log: Path, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not await loop.run_in_executor(None, condition):
        assert process.returncode is None, f"it ended with {process.returncode}:\n{log.read_text()[-4000:]}"
        assert loop.time() < deadline, f"nothing came of it in {seconds:g} s:\n{log.read_text()[-4000:]}"


async def assert_delivered(
    kafka_bootstrap: str, namespace: str, source: Path, tmp_path: Path, *, kills: int, rows: int, seconds: float
) -> None:
    settings, names = KafkaSettings(kafka_bootstrap), Names(namespace)
    out = tmp_path / "out"
    out.mkdir()
    log = tmp_path / "log"
    async with openssh(tmp_path) as server:
        manifest = tmp_path / "flights.yaml"
        manifest.write_text(manifests(source, out, server, namespace), encoding="utf-8")
        command = [
            str(Path(sys.executable).parent / "trunkline"),
            "--home",
            str(tmp_path / "home"),
            "--bootstrap",
            kafka_bootstrap,
        ]
        command += ["--namespace", namespace, "run", "-f", str(manifest), "--until-finished", "--log-level", "info"]
        env = {**os.environ, "FLIGHTS_SFTP_KEY": server.private_key}

        def read() -> int:
            return read_positions(settings, names).get(("flights", "0"), SplitPosition()).read

        for kill in range(kills + 1):
            with log.open("ab") as output:
                process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output, env=env)
            try:
                if kill < kills:
                    at = rows * (kill + 1) // (kills + 2)
                    await until(lambda at=at: read() >= at, process, log, seconds)  # type: ignore[misc]
                    process.send_signal(signal.SIGKILL)
                    await process.wait()
                else:
                    assert await asyncio.wait_for(process.wait(), seconds) == 0, log.read_text()[-4000:]
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        right = checksum(expected_rows(source))
        assert checksum(delivered_rows(out)) == right
        assert checksum(delivered_rows(server.folder)) == right
    assert read() == rows
    for pipeline in ("delayed", "to-files", "to-sftp"):
        checks = reconcile(settings, names, pipeline)
        assert checks
        assert all(check.closes and not check.unverifiable for check in checks), (pipeline, checks)
        assert sum(check.read for check in checks) == (rows if pipeline == "delayed" else right[0])
        assert not any(check.outcomes["dead"] for check in checks)


@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.slow
async def test_a_slice_of_the_flights_arrives_whole_although_the_process_is_killed(
    kafka: object, namespace: str, tmp_path: Path
) -> None:
    source = tmp_path / "slice.csv.gz"
    if ALL_FLIGHTS.exists():
        with gzip.open(ALL_FLIGHTS, "rt") as file:
            lines = [next(file) for _ in range(30_001)]
    else:
        pytest.skip(f"{ALL_FLIGHTS.name} is not beside the project")
    with gzip.open(source, "wt") as slice_:
        slice_.writelines(lines)
    await assert_delivered(kafka.bootstrap, namespace, source, tmp_path, kills=1, rows=30_000, seconds=120)  # type: ignore[attr-defined]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_all_flights_arrive_whole_although_the_process_is_killed_three_times(
    kafka: object, namespace: str, tmp_path: Path
) -> None:
    if not ALL_FLIGHTS.exists():
        pytest.skip(f"{ALL_FLIGHTS.name} is not beside the project")
    await assert_delivered(kafka.bootstrap, namespace, ALL_FLIGHTS, tmp_path, kills=3, rows=336_776, seconds=400)  # type: ignore[attr-defined]
