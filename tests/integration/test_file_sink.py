"""The file sink on a real file system, killed at every step it takes."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sinks.file.settings import FileSinkSettings
from sinks.file.sink import FileSink
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.errors import ConfigurationError, FatalError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.verdicts import Dead, Ok, Retry


def batch_of(*carriers: Any, name: str = "out-T1-0-0-9", attempt: int = 1) -> Batch:
    values = [{"carrier": carrier, "n": index} for index, carrier in enumerate(carriers)]
    return Batch([Event(value, topic="flights", offset=index) for index, value in enumerate(values)], name, attempt)


async def opened(folder: Path, **config: Any) -> FileSink:
    sink = FileSink(FileSinkSettings.model_validate({"folder": str(folder), **config}))
    await sink.open(PluginContext("ns", "out", folder, get_logger("test")))
    return sink


async def test_a_batch_becomes_one_file_whose_rows_the_verdicts_name(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    sink = await opened(folder)
    verdicts = await sink.write(batch_of("AA", "\ud800", "DL"))
    path = folder / "out-T1-0-0-9.csv"
    assert verdicts[0] == Ok(f"{path}#1")
    assert isinstance(verdicts[1], Dead)
    assert verdicts[2] == Ok(f"{path}#2")
    with path.open(newline="") as found:
        assert list(csv.DictReader(found)) == [{"carrier": "AA", "n": "0"}, {"carrier": "DL", "n": "2"}]
    assert [entry.name for entry in folder.iterdir()] == [path.name]


async def test_a_manifest_tells_size_checksum_and_count(tmp_path: Path) -> None:
    sink = await opened(tmp_path, manifest=True, format="jsonl", name="{pipeline}-{range}.jsonl")
    await sink.write(batch_of("AA", "DL"))
    content = (tmp_path / "out-out-T1-0-0-9.jsonl").read_bytes()
    manifest = json.loads((tmp_path / "out-out-T1-0-0-9.jsonl.manifest.json").read_bytes())
    assert manifest.pop("written").endswith("Z")
    assert manifest == {
        "name": "out-out-T1-0-0-9.jsonl",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "count": 2,
    }


async def test_a_range_written_again_leaves_the_file_and_its_manifest_untouched(tmp_path: Path) -> None:
    sink = await opened(tmp_path, manifest=True)
    first = await sink.write(batch_of("AA"))
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()}
    again = await opened(tmp_path, manifest=True)
    assert await again.write(batch_of("AA")) == first
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()} == before


async def test_a_file_of_other_content_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out-T1-0-0-9.csv").write_text("carrier,n\r\nXX,0\r\n")
    sink = await opened(tmp_path)
    await sink.write(batch_of("AA"))
    assert (tmp_path / "out-T1-0-0-9.csv").read_text() == "carrier,n\nAA,0\n"


async def test_a_batch_of_bad_records_leaves_no_file(tmp_path: Path) -> None:
    sink = await opened(tmp_path, manifest=True)
    verdicts = await sink.write(batch_of("\ud800", "\udfff"))
    assert all(isinstance(verdict, Dead) for verdict in verdicts)
    assert list(tmp_path.iterdir()) == []


async def test_a_planted_link_is_replaced_and_never_written_through(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("untouched")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "out-T1-0-0-9.csv").symlink_to(secret)
    sink = await opened(folder)
    await sink.write(batch_of("AA"))
    assert secret.read_text() == "untouched"
    assert not (folder / "out-T1-0-0-9.csv").is_symlink()


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "a/b", "..", ".bashrc", "x\0"])
async def test_a_name_that_leads_elsewhere_stops_the_pipeline_and_writes_nothing(tmp_path: Path, name: str) -> None:
    sink = await opened(tmp_path / "out", name="{range}")
    with pytest.raises(FatalError, match="no file can be named so"):
        await sink.write(batch_of("AA", name=name))
    assert [path.name for path in tmp_path.rglob("*")] == ["out"]


async def test_what_died_attempts_at_this_range_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    mine, other = tmp_path / ".out-T1-0-0-9.csv.0123abcd.part", tmp_path / ".out-T1-0-10-19.csv.0123abcd.part"
    for path in (mine, other):
        path.write_text("half")
    sink = await opened(tmp_path)
    await sink.write(batch_of("AA"))
    assert not mine.exists()
    assert other.exists()


async def test_a_full_disk_is_tried_again_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = await opened(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (verdict,) = await sink.write(batch_of("AA"))
    assert isinstance(verdict, Retry)
    assert "No space left" in verdict.reason
    assert list(tmp_path.iterdir()) == []
    assert isinstance((await sink.write(batch_of("AA", attempt=2)))[0], Ok)


async def test_a_folder_that_vanished_stops_the_pipeline(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    sink = await opened(folder)
    folder.rmdir()
    with pytest.raises(FatalError, match="can't be written"):
        await sink.write(batch_of("AA"))


async def test_a_folder_that_bears_the_files_name_stops_the_pipeline(tmp_path: Path) -> None:
    (tmp_path / "out-T1-0-0-9.csv").mkdir()
    sink = await opened(tmp_path)
    with pytest.raises(FatalError, match="can't be written"):
        await sink.write(batch_of("AA"))
    assert [path.name for path in tmp_path.iterdir()] == ["out-T1-0-0-9.csv"]


async def test_a_folder_that_can_not_be_made_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="can't be made"):
        await opened(tmp_path / "file" / "out")


def test_a_template_without_the_range_is_refused() -> None:
    with pytest.raises(ValidationError, match="range"):
        FileSinkSettings.model_validate({"folder": "out", "name": "flights.csv"})


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from sinks.file.settings import FileSinkSettings
from sinks.file.sink import FileSink
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.event import Event
from trunkline.core.log import get_logger

WATCHED = {"open", "os.rename", "os.remove", "os.listdir"}
folder, real_fsync = Path(sys.argv[1]), os.fsync

def run(step, out):
    seen = 0
    def passed(what):
        nonlocal seen
        seen += 1
        if seen == step:
            os.kill(os.getpid(), signal.SIGKILL)
    def watch(event, args):
        # Within the folder names are relative to its descriptor.
        if event in WATCHED and ("R.csv" in str(args[0]) or str(out) in str(args[0]) or event == "os.listdir"):
            passed(event)
    def fsync(descriptor):
        passed("before fsync")
        real_fsync(descriptor)
        passed("after fsync")
    async def main():
        sink = FileSink(FileSinkSettings(folder=str(out), manifest=True))
        await sink.open(PluginContext("ns", "out", out, get_logger("test")))
        sys.addaudithook(watch)
        os.fsync = fsync
        events = [Event({"n": n, "text": "x" * 200}, topic="flights", offset=n) for n in range(1000)]
        await sink.write(Batch(events, "R"))
    asyncio.run(main())

step = 0
while True:
    step += 1
    pid = os.fork()
    if pid == 0:
        run(step, folder / str(step))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        continue
    print(step if status == 0 else f"step {step} ended with {status}")
    break
"""


async def test_a_kill_at_any_step_leaves_no_partial_file_and_the_next_attempt_builds_the_same_one(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, timeout=180, check=True
    )
    steps = int(done.stdout)
    assert steps > 10, "the faults did not fire"
    whole = (tmp_path / str(steps) / "R.csv").read_bytes()
    assert whole.count(b"\r\n") == 1001
    half_done = 0
    for step in range(1, steps):
        folder = tmp_path / str(step)
        if (folder / "R.csv").exists():
            assert (folder / "R.csv").read_bytes() == whole
        if (folder / "R.csv.manifest.json").exists():
            assert json.loads((folder / "R.csv.manifest.json").read_bytes())["size"] == len(whole)
            assert (folder / "R.csv").exists()
        half_done += any(path.name.endswith(".part") for path in folder.iterdir())
        sink = await opened(folder, manifest=True)
        events = [Event({"n": n, "text": "x" * 200}, topic="flights", offset=n) for n in range(1000)]
        verdicts = await sink.write(Batch(events, "R"))
        assert verdicts[-1] == Ok(f"{folder / 'R.csv'}#1000")
        assert (folder / "R.csv").read_bytes() == whole
        assert sorted(path.name for path in folder.iterdir()) == ["R.csv", "R.csv.manifest.json"]
    assert half_done > 0, "no kill hit the writing itself"


@pytest.mark.parametrize("name", ["out-T1-0-0-9.csv", "out-T1-0-0-9.csv.manifest.json"])
async def test_a_planted_pipe_is_replaced_and_not_waited_on(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    sink = await opened(tmp_path, manifest=True)
    (verdict,) = await sink.write(batch_of("AA"))
    assert isinstance(verdict, Ok)
    assert (tmp_path / name).is_file()


async def test_a_folder_that_the_worker_does_not_allow_is_refused_and_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed" / "door").symlink_to(tmp_path)
    monkeypatch.setenv("TRUNKLINE_FILE_ROOTS", str(tmp_path / "allowed"))
    for folder in (tmp_path / "other" / "out", tmp_path / "allowed" / "door" / "out"):
        with pytest.raises(ConfigurationError) as refused:
            await opened(folder)
        assert refused.value.code == "file.not_allowed"
    sink = await opened(tmp_path / "allowed" / "out")
    (tmp_path / "allowed" / "out").rmdir()
    (tmp_path / "allowed" / "out").symlink_to(tmp_path)
    with pytest.raises(ConfigurationError):
        await sink.write(batch_of("AA"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allowed"]
