"""The demo as a newcomer runs it, and its checks, which must see what is wrong."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trunkline.bus.embedded.processes import find_brokers
from trunkline.cli.demo.checks import run_checks
from trunkline.cli.demo.flights import read_flights
from trunkline.cli.demo.play import play
from trunkline.cli.demo.scene import LOOK_AROUND
from trunkline.cli.demo.stage import set_stage
from trunkline.cli.demo.view import View
from trunkline.core.errors import ConfigurationError, UnavailableError

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "trunkline.cli.main"]
PATIENCE = 300.0

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(700)]


class Running:
    """A command whose output is read as it comes."""

    def __init__(self, *arguments: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def text(self) -> str:
        return "".join(self.lines)

    def wait_for(self, seen: Callable[[str], bool]) -> None:
        with self._news:
            arrived = self._news.wait_for(lambda: seen(self.text) or not self._reading.is_alive(), PATIENCE)
        assert arrived, self.text
        assert seen(self.text), self.text

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reading.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture
def demo_with_stay(tmp_path: Path) -> Iterator[Running]:
    running = Running("demo", "--stay", folder=tmp_path)
    yield running
    if running.process.poll() is None:
        running.end(signal.SIGTERM)


def answered(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Types a command until it succeeds: on a busy machine worker and broker may be silent for some seconds, and `status` says so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = subprocess.run(
            ["/bin/sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode not in {1, 3} or time.monotonic() > deadline:
            return done


@pytest.mark.slow
def test_the_demo_delivers_everything_shows_it_stays_and_ends_without_a_trace(
    demo_with_stay: Running, tmp_path: Path
) -> None:
    running = demo_with_stay
    running.wait_for(lambda text: "Ask it, in another terminal" in text and LOOK_AROUND[-1] in text)
    home = tmp_path / ".trunkline" / "demo"

    text = running.text
    assert re.search(r"All \d+ checks hold", text), text
    assert "FAIL" not in text
    assert "Traceback" not in text
    for part in (
        "duplicate True",
        "departures.csv:402",
        "Foreign key external ID: HA not found",
        "One event's way: airline-",
    ):
        assert part in text
    for sink in (
        "delayed-to-salesforce",
        "delayed-to-sftp",
        "delayed-to-sheets",
        "delayed-to-partner",
        "critical-to-slack",
    ):
        assert re.search(rf"sink +{sink} +flights\.\w+\[\d+\]@\d+ +delivered +\S+", text), f"no hop of {sink}"

    # Another demo in the same folder is told so, and the first one is not disturbed.
    second = subprocess.run(
        [*COMMAND, "demo"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert second.returncode == 3
    assert "error[demo.in_use]" in second.stderr
    assert "Traceback" not in second.stderr

    # Other commands find what stays up.
    asked = answered(shlex.join([*COMMAND, "status", "-o", "json", "--home", str(home)]), tmp_path)
    assert asked.returncode == 0, asked.stderr
    assert "delayed-to-partner" in asked.stdout

    # What it printed to be typed can be typed.
    printed = running.text.split("Ask it, in another terminal", 1)[1].splitlines()[1:]
    assert len(printed) == len(LOOK_AROUND)
    for command in printed:
        typed = answered(command.strip(), tmp_path)
        assert typed.returncode == 0, f"{command}: {typed.stderr}"
        assert typed.stdout.strip(), command

    assert running.end(signal.SIGINT) == 0, running.text
    assert "Traceback" not in running.text
    assert find_brokers(home) == []


def test_the_demo_does_not_empty_a_folder_that_no_demo_made(tmp_path: Path) -> None:
    home = tmp_path / "mine" / "demo"
    home.mkdir(parents=True)
    (home / "thesis.txt").write_text("ten years of work", encoding="utf-8")

    done = subprocess.run(
        [*COMMAND, "demo", "--home", str(home.parent)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 2
    assert "error[demo.folder]" in done.stderr
    assert (home / "thesis.txt").exists()


@pytest.mark.slow
async def test_the_checks_of_the_demo_name_what_was_lost_doubled_or_invented(tmp_path: Path) -> None:
    flights, view = read_flights(), View(time.monotonic())
    async with set_stage(flights, view, home=tmp_path / "demo") as stage:
        view.watch(stage.worker)
        played = await play(stage, flights, view)
        assert [check for check in run_checks(stage, flights, played) if not check.holds] == []

        doubled = next(iter(stage.partner.effects))
        stage.partner.effects[doubled] += 1
        lost = next(stage.sftp_root.rglob("*.csv"))
        lost.unlink()

        broken = {check.promise: check.found for check in run_checks(stage, flights, played) if not check.holds}
        assert set(broken) == {
            "every delayed flight reached the partner's API once",
            "every delayed flight is one row of the SFTP files",
        }
        assert "1 more than once" in broken["every delayed flight reached the partner's API once"]
        assert "missing" in broken["every delayed flight is one row of the SFTP files"]


def test_missing_examples_are_an_error_that_says_where_they_should_be(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="clone") as caught:
        read_flights(tmp_path)
    assert not isinstance(caught.value, ConfigurationError)
    assert caught.value.where == str(tmp_path)


@pytest.mark.slow
def test_a_demo_ends_what_a_killed_one_left_and_is_stopped_early_without_a_trace(tmp_path: Path) -> None:
    killed = Running("demo", folder=tmp_path)
    killed.wait_for(lambda text: "Apache Kafka runs at" in text)
    assert killed.end(signal.SIGKILL) == -signal.SIGKILL
    home = tmp_path / ".trunkline" / "demo"
    left = find_brokers(home)
    assert len(left) == 1

    again = Running("demo", folder=tmp_path)
    again.wait_for(lambda text: "Apache Kafka runs at" in text)
    assert not set(left) & set(find_brokers(home))

    assert again.end(signal.SIGINT) == 130, again.text
    assert "stopped before the end" in again.text
    assert "Traceback" not in again.text
    assert find_brokers(home) == []
