"""`trunkline run` and `up` as processes: until the work is done, until SIGTERM, with workers that crash, and looked at meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from bus_harness import http_connection
from conftest import KafkaUnderTest
from typer.testing import CliRunner

from trunkline.cli.main import app

pytestmark = pytest.mark.kafka
ROWS = 300
BAD_LINE = "seven,bad\n"


class Run:
    """One project on the test's broker, and commands that look at it."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.folder, self.namespace = folder, namespace
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")},
            "TRUNKLINE_BOOTSTRAP_SERVERS": bootstrap,
            "TRUNKLINE_NAMESPACE": namespace,
            "TRUNKLINE_HOME": str(folder / "home"),
        }

    def manifests(self, *, watch: bool = False) -> str:
        rows = [f"{number},customer{number % 7}\n" for number in range(ROWS)]
        (self.folder / "orders.csv").write_text("id,customer\n" + "".join(rows) + BAD_LINE, encoding="utf-8")
        (self.folder / "flow.yaml").write_text(
            f"""\
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {self.namespace}.orders}}
spec:
  partitions: 2
  schema: {{type: record, name: Order, fields: [{{name: id, type: long}}, {{name: customer, type: string}}]}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: orders-in}}
spec:
  connector: file
  config: {{path: {self.folder / "orders.csv"}, format: csv, watch: {str(watch).lower()}}}
  to: [{{topic: {self.namespace}.orders, key: event.customer}}]
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: orders-out}}
spec:
  from: [{self.namespace}.orders]
  start: earliest
  when: event.id % 2 == 0
  connector: file
  config: {{folder: {self.folder / "out"}, format: {{type: jsonl}}}}
  delivery: {{batch: {{age: 200ms}}}}
""",
            encoding="utf-8",
        )
        return str(self.folder / "flow.yaml")

    async def call(self, *arguments: str) -> tuple[int, str, str]:
        """A short command, in this process."""
        result = await asyncio.to_thread(CliRunner(env=self.environment).invoke, app, list(arguments))
        return result.exit_code, result.stdout, result.stderr

    async def finished(self, *arguments: str) -> tuple[int, str, str]:
        """A command in a process of its own, ended by itself."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "trunkline.cli.main",
            *arguments,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, error = await asyncio.wait_for(process.communicate(), 180)
        return process.returncode or 0, out.decode(), error.decode()

    async def data(self, *arguments: str) -> Any:
        code, out, error = await self.call("-o", "json", *arguments)
        assert code == 0, error
        return json.loads(out)

    @asynccontextmanager
    async def started(self, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A command in the background; it must have ended when the block ends, and is killed where it did not."""
        with (self.folder / "log.txt").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "trunkline.cli.main", *arguments, env=self.environment, stdout=log, stderr=log
            )
            try:
                yield process
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()

    def delivered(self) -> list[int]:
        lines = [line for file in (self.folder / "out").glob("*.jsonl") for line in file.read_text().splitlines()]
        return sorted(json.loads(line)["id"] for line in lines)

    async def until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        async with asyncio.timeout(180):
            while not await holds():
                await asyncio.sleep(0.1)  # the condition is another process's

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8")


@pytest.fixture
def run(kafka: KafkaUnderTest, namespace: str, tmp_path: Path) -> Run:
    return Run(kafka.bootstrap, namespace, tmp_path)


EXPECTED = list(range(0, ROWS, 2))


async def test_until_finished_ends_with_everything_delivered_and_the_ledger_closed(run: Run) -> None:
    code, out, error = await run.finished("run", "-f", run.manifests(), "--until-finished", "--log-level", "warning")
    assert code == 0, error
    assert "Kafka     " in out
    assert run.delivered() == EXPECTED
    found = {one["pipeline"]: one for one in await run.data("status")}
    assert found["orders-in"]["counts"]["read"] == ROWS + 1
    assert found["orders-in"]["counts"]["dead"] == 1
    assert (
        found["orders-out"]["counts"] | {"read": ROWS, "delivered": len(EXPECTED), "dead": 0}
        == found["orders-out"]["counts"]
    )
    assert all(one["ledger_closes"] for one in found.values())
    [group] = await run.data("dlq", "ls")
    assert (group["pipeline"], group["count"], group["code"]) == ("orders-in", 1, "record.cast")
    tail = await run.call("topic", "tail", f"{run.namespace}.orders", "--filter", "event.id == 7", "--format", "%k %s")
    assert tail[1] == 'customer0 {"id":7,"customer":"customer0"}\n'
    checks = await run.data("reconcile", "orders-out")
    assert all(one["closes"] for one in checks)


async def test_sigterm_ends_gracefully_with_offsets_committed_and_a_second_run_repeats_nothing(run: Run) -> None:
    manifests = run.manifests(watch=True)

    async def all_there() -> bool:
        return run.delivered() == EXPECTED

    async with run.started("run", "-f", manifests) as process:
        await run.until(all_there)
        [out, _] = sorted(await run.data("status"), key=lambda one: one["kind"])
        assert out["state"] == "RUNNING"
        # What the source has in quarantine goes through the source again, which is known from the files that are run.
        (run.folder / "mended.json").write_text('{"id": 501, "customer": "bad"}', encoding="utf-8")
        mended = str(run.folder / "mended.json")
        code, _, error = await run.call("dlq", "redrive", "orders-in", "0@0", "--edit", mended)
        assert code == 0, error
        assert await run.data("dlq", "ls") == []
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 180) == 0, run.log()
    lag = await run.data("lag", "orders-out")
    assert {one["topic"] for one in lag} >= {f"{run.namespace}.orders"}
    assert all(one["records"] == 0 for one in lag)
    assert not (run.folder / "home" / "endpoint.json").exists()
    with (run.folder / "orders.csv").open("a", encoding="utf-8") as file:
        file.write("1000,late\n")

    async def late_one_there() -> bool:
        return 1000 in run.delivered()

    async with run.started("run", "-f", manifests) as process:
        await run.until(late_one_there)
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 180) == 130, run.log()
    assert run.delivered() == [*EXPECTED, 1000]


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)], ids=["one", "two"])
async def test_a_second_signal_ends_at_once_what_a_system_that_never_answers_would_hold_up(
    run: Run, workers: int, number: signal.Signals
) -> None:
    called, free = asyncio.Event(), asyncio.Event()

    async def never(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await free.wait()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.1", 0)
    manifest = Path(run.manifests())
    text, _, _ = manifest.read_text(encoding="utf-8").rpartition("  connector: file")
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    manifest.write_text(
        f"{text}  connector: http\n  connection: peer\n  config: {{url: /}}\n" + http_connection("peer", url),
        encoding="utf-8",
    )

    async def ending() -> bool:
        return "ending gracefully" in run.log()

    try:
        async with run.started("run", "-f", str(manifest), "--workers", str(workers)) as process:
            await asyncio.wait_for(called.wait(), 180)
            started = _children(process.pid) if workers > 1 else []
            assert len(started) == (workers if workers > 1 else 0)
            process.send_signal(number)
            await run.until(ending)
            process.send_signal(number)
            assert await asyncio.wait_for(process.wait(), 60) == 128 + number, run.log()
            assert "ended at once by a second signal" in run.log()

            async def gone() -> bool:
                return not any(Path(f"/proc/{pid}/cmdline").exists() for pid in started)

            await run.until(gone)
    finally:
        free.set()
        server.close()
        await server.wait_closed()


async def test_up_follows_what_is_applied_and_does_what_is_wished(run: Run) -> None:
    manifests = run.manifests()

    async def announced() -> bool:
        return (run.folder / "home" / "endpoint.json").exists()

    async with run.started("up") as process:
        await run.until(announced)
        code, out, error = await run.call("apply", "-f", manifests, "--yes")
        assert code == 0, error
        assert "applied" in out

        async def all_there() -> bool:
            return run.delivered() == EXPECTED

        await run.until(all_there)
        for verb, state in (("pause", "PAUSED"), ("resume", "RUNNING"), ("stop", "STOPPED"), ("start", "RUNNING")):
            code, out, error = await run.call(verb, "orders-out", "--timeout", "60")
            assert (code, out) == (0, f"orders-out: {state}\n"), error
        assert await run.call("restart", "orders-out") == (0, "orders-out: restarted\n", "")
        endpoint = json.loads((run.folder / "home" / "endpoint.json").read_text(encoding="utf-8"))
        metrics, status = (
            await asyncio.to_thread(_get, endpoint["api"] + "/metrics"),
            await asyncio.to_thread(_get, endpoint["api"] + "/status"),
        )
        assert 'trunkline_pipeline_state{pipeline="orders-out",state="RUNNING"} 1.0' in metrics
        assert {one["pipeline"] for one in json.loads(status)["pipelines"]} == {"orders-in", "orders-out"}
        assert await asyncio.to_thread(_put_level, endpoint["api"], "debug") == {"level": "debug", "audited": True}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 180) == 0, run.log()


async def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(run: Run) -> None:
    manifests = run.manifests(watch=True)

    async def all_there() -> bool:
        return run.delivered() == EXPECTED

    async with run.started("run", "-f", manifests, "--workers", "2") as process:
        await run.until(all_there)
        first = _children(process.pid)
        assert len(first) == 2
        os.kill(first[0], signal.SIGKILL)

        async def two_again() -> bool:
            now = _children(process.pid)
            return len(now) == 2 and first[0] not in now

        await run.until(two_again)
        with (run.folder / "orders.csv").open("a", encoding="utf-8") as file:
            file.write("1000,late\n")

        async def late_one_there() -> bool:
            return 1000 in run.delivered()

        await run.until(late_one_there)
        assert "a worker ended and is started again" in run.log()
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 180) == 0, run.log()
    assert run.delivered() == [*EXPECTED, 1000]


async def test_manifests_with_problems_end_with_2_before_anything_starts(run: Run) -> None:
    path = Path(run.manifests())
    path.write_text(path.read_text().replace("event.id % 2", "event.idd % 2"), encoding="utf-8")
    code, out, error = await run.call("run", "-f", str(path))
    assert (code, out) == (2, "")
    assert "error[expression.unknown_field]" in error
    assert not (run.folder / "home").exists()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return str(answer.read().decode())


def _put_level(api: str, level: str) -> Any:
    request = urllib.request.Request(f"{api}/logging", json.dumps({"level": level}).encode(), method="PUT")
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
