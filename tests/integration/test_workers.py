"""Several workers of one machine: what a crash of one moves, what it leaves alone, and who ends with whom."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bus_harness import topic_manifest, unframed
from conftest import KafkaUnderTest

from trunkline.bus.kafka import KafkaSettings, produce, read_all
from trunkline.bus.names import Names
from trunkline.bus.worker.board import Board
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = pytest.mark.kafka
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [{"name": "id", "type": "long"}, {"name": "customer", "type": "string"}],
}


class Supervised:
    """`trunkline run --workers 2` on the test's broker: a stream over four partitions, and one over a single partition."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.settings, self.names, self.folder = KafkaSettings(bootstrap), Names(namespace), folder
        self.home = folder / "home"
        self._producer = self.settings.producer()
        # The registry of these workers gives its first schema the id 1, because the namespace is new.
        self._encoder = Encoder(Schema(ORDER, id=1))

    def topic(self, name: str) -> str:
        return f"{self.names.namespace}.{name}"

    @asynccontextmanager
    async def started(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The supervisor; whoever is left of it and its workers at the end is killed."""
        manifests = self.folder / "flow.yaml"
        texts = [topic_manifest(self.topic(name), 4, schema=ORDER) for name in ("wide-in", "wide-out")]
        texts += [topic_manifest(self.topic(name), 1, schema=ORDER) for name in ("narrow-in", "narrow-out")]
        texts += [
            f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec: {{from: {self.topic(f"{name}-in")}, start: earliest, steps: [{{filter: event.id >= 0}}], to: {self.topic(f"{name}-out")}}}
"""
            for name in ("wide", "narrow")
        ]
        manifests.write_text("\n".join(texts), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        command = [
            "--home",
            str(self.home),
            "--bootstrap",
            self.settings.bootstrap,
            "--namespace",
            self.names.namespace,
        ]
        children: set[int] = set()
        with (self.folder / "log.txt").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "trunkline.cli.main", *command, "run", "-f", str(manifests), "--workers", "2"),
                env=environment,
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                children |= set(workers_of(process.pid)) if process.returncode is None else set()
                for pid in [*children, process.pid]:
                    if process.returncode is None or pid != process.pid:
                        os.kill(pid, signal.SIGKILL)
                await process.wait()

    def send(self, name: str, numbers: Iterable[int], partition: int = -1) -> None:
        for number in numbers:
            value = self._encoder.encode({"id": number, "customer": f"c{number % 50}"})
            produce(
                self._producer, self.topic(f"{name}-in"), value, f"c{number % 50}".encode(), [], partition=partition
            )
        assert self._producer.flush(30) == 0

    def out(self, name: str) -> list[int]:
        found = [
            unframed(message.value() or b"", ORDER)["id"]
            for message in read_all(self.settings, self.topic(f"{name}-out"))
        ]
        return sorted(found)

    def holder(self, pipeline: str) -> str | None:
        """The worker that has the only partition of a pipeline, as it reports itself."""
        reports = Board(self.settings, self.names).reports()
        holders = [one for one in reports if one.pipeline == pipeline and one.positions and not one.stale]
        return max(holders, key=lambda one: one.at).worker if holders else None

    def pid_of(self, worker: str, processes: list[int]) -> int:
        """The process that holds the lock on the file with a worker's id."""
        for pid in processes:
            for link in Path(f"/proc/{pid}/fd").iterdir():
                path = link.readlink()
                if path.parent == self.home / "workers" and path.read_text() == worker:
                    return pid
        raise AssertionError(f"no process is the worker {worker}")

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8")

    def assignments(self, pipeline: str) -> list[str]:
        """The workers that were given partitions of a pipeline, in order, from the log."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [
            line["slot"]
            for line in lines
            if line.get("event") == "assigned"
            and line.get("pipeline") == pipeline
            and any(f"{pipeline}-in" in one for one in line["partitions"])
        ]

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(180):
                asked = time.monotonic()
                while not await asyncio.to_thread(holds):
                    # What is waited for happens in other processes; what takes long is asked less often.
                    await asyncio.sleep(max(0.1, 2 * (time.monotonic() - asked)))
                    asked = time.monotonic()
        except TimeoutError:
            raise AssertionError(f"{what} did not come to be:\n{self.log()[-6000:]}") from None


def workers_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def supervised(kafka: KafkaUnderTest, namespace: str, tmp_path: Path) -> Supervised:
    return Supervised(kafka.bootstrap, namespace, tmp_path)


@pytest.mark.slow
async def test_a_killed_workers_partitions_move_and_a_pipeline_of_the_other_worker_is_not_disturbed(
    supervised: Supervised,
) -> None:
    async with supervised.started() as process:
        await supervised.until(lambda: supervised.holder("narrow") is not None, "narrow running")
        # Until both workers share the wide pipeline, a kill would move nothing.
        await supervised.until(lambda: len(set(supervised.assignments("wide"))) == 2, "wide shared by two workers")
        supervised.send("wide", range(400))
        supervised.send("narrow", range(100), partition=0)
        await supervised.until(lambda: supervised.out("narrow") == list(range(100)), "narrow delivered")
        holder = supervised.holder("narrow")
        assert holder is not None
        before = supervised.assignments("narrow")
        workers = workers_of(process.pid)
        survivor = supervised.pid_of(holder, workers)
        [other] = [pid for pid in workers if pid != survivor]
        os.kill(other, signal.SIGKILL)
        supervised.send("wide", range(400, 800))
        supervised.send("narrow", range(100, 200), partition=0)
        await supervised.until(lambda: supervised.out("narrow") == list(range(200)), "narrow goes on")
        await supervised.until(lambda: supervised.out("wide") == list(range(800)), "wide moved and complete")
        assert survivor in workers_of(process.pid)
        # Its partition stayed where it was; the killed worker's successor may get it when it joins, as any new member may.
        assert supervised.assignments("narrow") in (before, [*before, "0" if before[-1] == "1" else "1"])
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 180) == 0, supervised.log()


async def test_workers_end_when_their_supervisor_was_killed(supervised: Supervised) -> None:
    async with supervised.started() as process:
        await supervised.until(lambda: supervised.holder("narrow") is not None, "narrow running")
        workers = workers_of(process.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        # Its successor is an interpreter of its own, the other one a fork: both are tied to their supervisor.
        await supervised.until(
            lambda: workers[0] not in (now := workers_of(process.pid)) and len(now) == 2, "two again"
        )
        workers = workers_of(process.pid)
        process.kill()
        await process.wait()
        await supervised.until(lambda: not any(alive(pid) for pid in workers), "the workers' end")


@pytest.mark.slow
async def test_workers_whose_broker_is_away_end_with_their_supervisor(supervised: Supervised) -> None:
    supervised.settings = KafkaSettings("127.0.0.1:1")
    async with supervised.started() as process:
        await supervised.until(lambda: len(workers_of(process.pid)) == 2 or process.returncode is not None, "workers")
        workers = workers_of(process.pid) if process.returncode is None else []
        assert await asyncio.wait_for(process.wait(), 180) == 3
        assert "error[kafka." in supervised.log()
        await supervised.until(lambda: not any(alive(pid) for pid in workers), "the workers' end")
