"""`trunkline up` with its embedded broker on a disk that fills up: said everywhere, mended by room alone, nothing lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from test_embedded_keeper import fill, small_disk

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders}}
spec: {{schema: {{type: record, name: Order, fields: [{{name: id, type: long}}, {{name: note, type: string}}]}}}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: orders-in}}
spec: {{connector: file, config: {{path: {inbox}, pattern: "*.csv", format: csv}}, to: {{topic: orders}}}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: orders-out}}
spec: {{from: orders, start: earliest, connector: file, config: {{folder: {outbox}, format: jsonl}}}}
"""


class Up:
    """The command, its folder on a small disk, and inbox and outbox on another."""

    def __init__(self, folder: Path, disk: Path) -> None:
        self.folder, self.disk, self.home = folder, disk, disk / "home"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
        self.environment["TRUNKLINE_HOME"] = str(self.home)
        for name in ("inbox", "outbox"):
            (folder / name).mkdir()
        (folder / "flow.yaml").write_text(MANIFESTS.format(inbox=folder / "inbox", outbox=folder / "outbox"))

    async def call(self, *arguments: str) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trunkline.cli.main", *arguments),
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode or 0, said.decode()

    def put(self, name: str, ids: range) -> None:
        """A file of orders, moved into the inbox whole."""
        rows = "".join(f"{number},{os.urandom(1000).hex()}\n" for number in ids)
        (self.folder / name).write_text("id,note\n" + rows)
        (self.folder / name).rename(self.folder / "inbox" / name)

    def delivered(self) -> list[int]:
        files = (self.folder / "outbox").glob("*.jsonl")
        return sorted(json.loads(line)["id"] for file in files for line in file.read_text().splitlines())

    def metrics(self) -> str:
        return self._asked("metrics")

    def causes(self) -> set[str | None]:
        """The causes that a worker gives for what its pipelines wait for."""
        pipelines = json.loads(self._asked("status"))["pipelines"]
        return {(one.get("cause") or {}).get("code") for one in pipelines}

    def _asked(self, path: str) -> str:
        api = json.loads((self.home / "endpoint.json").read_text())["api"]
        with urllib.request.urlopen(f"{api}/{path}", timeout=10) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(180):
                while not await asyncio.to_thread(holds):
                    await asyncio.sleep(0.2)  # another process does it
        except TimeoutError:
            raise AssertionError(f"{what} did not come to be:\n{self.log()[-5000:]}") from None


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if (why := small_disk(disk)) is not None:
        pytest.skip(why)
    try:
        yield Up(tmp_path, disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_disk_that_fills_up_is_said_everywhere_and_room_alone_mends_it(up: Up, workers: str) -> None:
    with (up.folder / "log.txt").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trunkline.cli.main", "up", "--workers", workers),
            env=up.environment,
            stdout=log,
            stderr=log,
        )
    try:
        await up.until((up.home / "endpoint.json").exists, "up")
        code, said = await up.call("apply", "-f", str(up.folder / "flow.yaml"), "--yes")
        assert code == 0, said
        up.put("first.csv", range(100))
        await up.until(lambda: up.delivered() == list(range(100)), "the first orders delivered")

        ballast = fill(up.disk, leave=1_500_000)
        up.put("second.csv", range(100, 3_000))
        await up.until(lambda: "embedded.disk_full" in up.log(), "a full disk in the log")
        for command in (["topic", "ls"], ["status"]):  # of the second the worker tells what it knows
            code, said = await up.call(*command)
            assert f"free on the file system at {up.disk}" in said, said
            assert "needs 100 MB" in said
            assert command == ["status"] or (code, "error[embedded.disk_full]" in said) == (3, True)
        await up.until(lambda: up.causes() == {"embedded.disk_full"}, "the cause at each pipeline")
        metrics = await asyncio.to_thread(up.metrics)
        assert "trunkline_embedded_broker_up 0.0" in metrics
        assert 'trunkline_embedded_broker_fault{code="embedded.disk_full"} 1.0' in metrics

        ballast.unlink()
        await up.until(lambda: up.delivered() == list(range(3_000)), "every order delivered, none twice")
        assert "trunkline_embedded_broker_up 1.0" in await asyncio.to_thread(up.metrics)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 90) == 0, up.log()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
