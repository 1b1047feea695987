"""A million rows from a file through a stream into Salesforce's bulk jobs, with the process killed on the way, in bounded memory.

What the org holds in the end is read back by simple-salesforce and compared with what the csv module makes of the same file.
"""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce

from trunkline.bus.accounting.reconcile import reconcile
from trunkline.bus.kafka import KafkaSettings, read_all
from trunkline.bus.names import Names
from trunkline.bus.source.positions import SplitPosition, read_positions

SEED = int(os.environ.get("TRUNKLINE_TEST_SEED", "20130101"))
BIN = Path(sys.executable).parent / "trunkline"
COLUMNS = ("id", "carrier", "name", "amount", "quantity", "day", "departs", "active", "note")
FIELDS = {
    "Flight_Key__c": "event.id",
    "Carrier__c": "event.carrier",
    "Name": "event.name",
    "Minutes_Late__c": "event.amount",
    "Distance__c": "event.quantity",
    "Flight_Date__c": "event.day",
    "Scheduled_Departure__c": "event.departs",
    "Cancelled__c": "event.active",
    "Severity__c": "event.severity",
    "Tail_Number__c": "event.note",
}
WORDS = (
    "plain",
    "with, comma",
    'with "quotes"',
    "two\nlines",
    "carriage\r\nreturn",
    "日本語",
    "žluťoučký 🛩",
    "semi;colon",
    "tab\there",
    "''",
    "#N/A",
    "-",
)
WORKER_MEGABYTES = 900
"""What the worker may need, for any number of rows. It holds two ranges of each partition of the sink (here 2 x 2 x 10,000 records
of about 4 KB each, decoded, with headers and message), a job's table and results, librdkafka's queues (3 consumers of at most
32 MB), and 120 MB of program."""


@dataclass(slots=True)
class Watched:
    """A process, and the most memory it had (VmHWM, in KiB)."""

    process: asyncio.subprocess.Process
    peak: int = 0

    def look(self) -> None:
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        except OSError:
            return
        found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
        self.peak = max(self.peak, int(found.group(1)) if found else 0)


@dataclass(slots=True)
class Plan:
    """How many rows, when the process is killed (the seeded share of rows that are read, or delivered), and how long it may take."""

    rows: int
    kills: list[tuple[str, float]]
    seconds: float
    job_records: int = 10_000


def rows(count: int) -> Iterator[tuple[str, ...]]:
    """Rows of all sorts. Some come again with other values under the same id, and some have a carrier that the org refuses."""
    chance = random.Random(SEED)
    first = datetime(2013, 1, 1, tzinfo=UTC)
    for number in range(count):
        again = chance.random() < 0.002 and number > 50
        name = f"{chance.choice(WORDS)} {number % 9973} {chance.choice(WORDS)}"
        departs = first + timedelta(milliseconds=chance.randrange(10**11))
        yield (
            f"R{number - chance.randrange(1, 50) if again else number}",
            "refused carrier" if chance.random() < 0.001 else chance.choice(("UA", "DL", "B6", "ab")),
            name,
            f"{chance.randrange(-(10**9), 10**9) / 100:.2f}",
            "" if chance.random() < 0.1 else str(chance.randrange(10**6)),
            (date(2000, 1, 1) + timedelta(days=chance.randrange(9000))).isoformat(),
            departs.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            chance.choice(("true", "false")),
            "" if chance.random() < 0.3 else f"N{chance.randrange(10**5)}",
        )


def write(path: Path, count: int) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(rows(count))


def digest(record: dict[str, Any]) -> bytes:
    text = json.dumps([record[name] for name in FIELDS], ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=12).digest()


def expected(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """What the org must hold, by external id, and the ids of the refused rows, by the csv module alone."""
    found: dict[str, bytes] = {}
    refused = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if len(row["carrier"]) > 10:
                refused.append(row["id"])
                continue
            amount = float(row["amount"])
            found[row["id"]] = digest(
                {
                    "Flight_Key__c": row["id"],
                    "Carrier__c": row["carrier"],
                    "Name": row["name"],
                    "Minutes_Late__c": int(amount) if amount == int(amount) else amount,
                    "Distance__c": int(row["quantity"]) if row["quantity"] else None,
                    "Flight_Date__c": row["day"],
                    "Scheduled_Departure__c": row["departs"].replace("Z", "+0000"),
                    "Cancelled__c": row["active"] == "true",
                    "Severity__c": "high" if amount > 1_000_000 else "low",
                    "Tail_Number__c": row["note"] or None,
                }
            )
    return found, refused


class _ToLoopback(HTTPAdapter):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = self._url + request.path_url
        return super().send(request, *args, **kwargs)


@contextmanager
def signed_in(env: dict[str, str]) -> Iterator[Salesforce]:
    """simple-salesforce, led to the stand-in."""
    with requests.Session() as session:
        session.trust_env = False
        session.mount("https://", _ToLoopback(env["SF_URL"]))
        yield Salesforce(
            session=session,
            version="62.0",
            consumer_key=env["SF_CLIENT_ID"],
            consumer_secret=env["SF_CLIENT_SECRET"],
            domain="example.my",
        )


def stored(client: Salesforce) -> dict[str, bytes]:
    """What the org holds."""
    found = client.query_all_iter(f"SELECT {', '.join(FIELDS)} FROM Flight__c")
    return {record["Flight_Key__c"]: digest(record) for record in found}


def manifests(source: Path, topics: str, job_records: int) -> str:
    fields = "\n".join(f'      {name}: "{text}"' for name, text in FIELDS.items())
    return f"""
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {topics}.rows}}
spec:
  partitions: 2
  schema:
    type: record
    name: Row
    fields:
      - {{name: id, type: string}}
      - {{name: carrier, type: string}}
      - {{name: name, type: string}}
      - {{name: amount, type: {{type: bytes, logicalType: decimal, precision: 12, scale: 2}}}}
      - {{name: quantity, type: ["null", int]}}
      - {{name: day, type: {{type: int, logicalType: date}}}}
      - {{name: departs, type: {{type: long, logicalType: timestamp-millis}}}}
      - {{name: active, type: boolean}}
      - {{name: note, type: ["null", string]}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {topics}.rated}}
spec: {{partitions: 2}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: rows}}
spec:
  connector: file
  config: {{path: {source}, format: csv, watch: false}}
  to: {{topic: {topics}.rows, key: event.id}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: rated}}
spec:
  from: {topics}.rows
  start: earliest
  steps:
    - map: {{set: {{severity: 'double(event.amount) > 1000000.0 ? "high" : "low"'}}}}
  to: {{topic: {topics}.rated, key: event.id}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: crm}}
spec:
  connector: salesforce
  config:
    url: ${{env:SF_URL}}
    auth: {{type: client_credentials, client_id: "${{env:SF_CLIENT_ID}}", client_secret: "${{env:SF_CLIENT_SECRET}}"}}
    http: {{allow_private: ["127.0.0.1"]}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: to-crm}}
spec:
  from: {topics}.rated
  start: earliest
  connector: salesforce
  connection: crm
  config:
    object: Flight__c
    external_id: Flight_Key__c
    api: auto
    bulk_above: 200
    job_records: {job_records}
    job_poll: 500ms
    fields:
{fields}
"""


@asynccontextmanager
async def org(folder: Path) -> AsyncIterator[tuple[Watched, dict[str, str]]]:
    """The stand-in org in a process of its own, and the variables that lead to it."""
    variables = folder / "org.env"
    process = await asyncio.create_subprocess_exec(
        str(BIN),
        "mock",
        "salesforce",
        "--env-file",
        str(variables),
        "--set",
        "salesforce.api_limit=1000000",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    watched = Watched(process)
    try:
        async with asyncio.timeout(120):
            while not variables.exists() or "SF_USERNAME" not in variables.read_text(encoding="utf-8"):
                assert process.returncode is None
                await asyncio.sleep(0.05)
        lines = variables.read_text(encoding="utf-8").splitlines()
        yield watched, {name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)}
    finally:
        watched.look()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(condition: Callable[[], bool], watched: Watched, log: Path, deadline: float) -> None:
    loop = asyncio.get_running_loop()
    while not await loop.run_in_executor(None, condition):
        watched.look()
        assert watched.process.returncode is None, f"it ended:\n{log.read_text()[-4000:]}"
        assert loop.time() < deadline, f"nothing came of it in time:\n{log.read_text()[-4000:]}"
        await asyncio.sleep(0.2)


async def ended(watched: Watched, log: Path, deadline: float) -> None:
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(watched.process.wait())
    while not waiting.done():
        watched.look()
        assert loop.time() < deadline, f"it does not end:\n{log.read_text()[-4000:]}"
        await asyncio.wait({waiting}, timeout=0.2)
    assert waiting.result() == 0, log.read_text()[-4000:]


async def run(
    command: list[str], env: dict[str, str], plan: Plan, log: Path, progress: dict[str, Callable[[], int]]
) -> int:
    """Runs the pipelines to their end, killed as planned. Returns the most memory that a run had, in KiB."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    deadline, peak = began + plan.seconds, 0
    for kill in [*plan.kills, None]:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command, stdout=output, stderr=output, env={**os.environ, **env}
            )
        worker = Watched(process)
        try:
            if kill is None:
                await ended(worker, log, deadline)
                continue
            what, share = kill
            at = int(share * plan.rows)
            await until(lambda what=what, at=at: progress[what]() >= at, worker, log, deadline)  # type: ignore[misc]
            worker.look()
            process.send_signal(signal.SIGKILL)
            await process.wait()
            print(f"killed at {share:.0%} {what}, after {loop.time() - began:.0f} s")
        finally:
            peak = max(peak, worker.peak)
            if process.returncode is None:
                process.kill()
                await process.wait()
    print(f"{plan.rows} rows in {loop.time() - began:.0f} s ({plan.rows / (loop.time() - began):.0f}/s), seed {SEED}")
    return peak


async def assert_delivered(bootstrap: str, namespace: str, folder: Path, plan: Plan) -> None:
    settings, names = KafkaSettings(bootstrap), Names(namespace)
    source, log, manifest = folder / "rows.csv", folder / "log", folder / "pipeline.yaml"
    write(source, plan.rows)
    manifest.write_text(manifests(source, namespace, plan.job_records), encoding="utf-8")
    command = [str(BIN), "--home", str(folder / "home"), "--bootstrap", bootstrap, "--namespace", namespace]
    command += ["run", "-f", str(manifest), "--until-finished", "--log-level", "info"]

    def read() -> int:
        return read_positions(settings, names).get(("rows", "0"), SplitPosition()).read

    async with org(folder) as (crm, env):
        with await asyncio.to_thread(signed_in, env) as client:
            progress = {"read": read, "delivered": lambda: client.query("SELECT COUNT() FROM Flight__c")["totalSize"]}
            peak = await run(command, env, plan, log, progress)
            crm.look()
            right, refused = await asyncio.to_thread(expected, source)
            found = await asyncio.to_thread(stored, client)
        jobs = log.read_text(encoding="utf-8").count("salesforce job")
    print(f"peak memory: worker {peak // 1024} MB, org {crm.peak // 1024} MB; {jobs} jobs; {len(refused)} rows refused")
    assert len(found) == len(right)
    assert found == right
    letters = [message.key() for message in read_all(settings, names.dead_letters("to-crm"))]
    # A dead letter is saved before its offset is committed: a crash in between saves it again.
    assert {key.decode() for key in letters if key is not None} == set(refused)
    assert read() == plan.rows
    for pipeline, dead in (("rated", 0), ("to-crm", len(refused))):
        checks = reconcile(settings, names, pipeline)
        assert all(check.closes and not check.unverifiable for check in checks), (pipeline, checks)
        assert sum(check.read for check in checks) == plan.rows
        assert sum(check.outcomes["dead"] for check in checks) == dead
    assert jobs >= plan.rows // (2 * plan.job_records)
    assert peak < WORKER_MEGABYTES * 1024


def moments(kinds: list[str], *, low: float, high: float) -> list[tuple[str, float]]:
    """When the process is killed: a seeded moment in each of equal parts of the way."""
    chance = random.Random(SEED + 1)
    width = (high - low) / len(kinds)
    return [(kind, chance.uniform(low + at * width, low + (at + 1) * width)) for at, kind in enumerate(kinds)]


@pytest.mark.kafka
@pytest.mark.timeout(700)
@pytest.mark.slow
async def test_some_thousand_rows_reach_the_org_by_jobs_although_the_process_is_killed(
    kafka: object, namespace: str, tmp_path: Path
) -> None:
    plan = Plan(4_000, moments(["delivered"], low=0.2, high=0.7), seconds=600, job_records=400)
    await assert_delivered(kafka.bootstrap, namespace, tmp_path, plan)  # type: ignore[attr-defined]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_a_million_rows_reach_the_org_in_bounded_memory_although_the_process_is_killed_three_times(
    kafka: object, namespace: str, tmp_path: Path
) -> None:
    plan = Plan(1_000_000, moments(["read", "delivered", "delivered"], low=0.1, high=0.9), seconds=1200)
    await assert_delivered(kafka.bootstrap, namespace, tmp_path, plan)  # type: ignore[attr-defined]
