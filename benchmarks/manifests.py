"""What a thousand manifests cost beside a running bus: checked, planned, committed; and what one changed of them restarts."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import report, stand
from benchmarks.growth import idle_manifests

RUNNING = 200
COUNT = 1000
NAMESPACE = "manifests"
PROBE_SECONDS = 0.01
SINK = """---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: "many-{number}"}}
spec: {{schema: {{type: record, name: Order{number}, fields: [{{name: id, type: string}}, {{name: amount, type: double}}]}}}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: many-out-{number}, owner: {owner}}}
spec:
  from: many-{number}
  start: earliest
  when: event.amount > {limit}
  connector: file
  config: {{folder: "{folder}", format: {{type: jsonl}}}}
"""


def many(count: int, folder: Path, *, changed: int | None = None, owner: str = "a@example.com") -> str:
    """`count` manifests, each second one a sink of its own topic; the sink of the number `changed` filters more."""
    return "".join(
        SINK.format(number=number, folder=folder, owner=owner, limit=5.0 if number == changed else 1.0)
        for number in range(count // 2)
    )


@dataclass
class Bus:
    """A worker that follows what is applied, and the command line of somebody who applies."""

    place: stand.Stand
    api: str = ""
    process: subprocess.Popen[bytes] | None = None

    @property
    def home(self) -> Path:
        """Its folder."""
        return self.place.folder / "bus"

    def command(self, *arguments: str) -> list[str]:
        """A command of the command line on this bus."""
        shared = ["--bootstrap", self.place.bootstrap, "--namespace", NAMESPACE, "--home", str(self.home)]
        return [str(Path(sys.executable).parent / "trunkline"), *shared, *arguments]

    def run(self, *arguments: str) -> float:
        """Runs a command. How long it took, in seconds."""
        begun = time.monotonic()
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(
                f"{arguments[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        return time.monotonic() - begun

    def pipelines(self) -> dict[str, dict[str, Any]]:
        """What the worker reports, by pipeline."""
        with urllib.request.urlopen(f"{self.api}/status", timeout=60) as answer:
            return {one["pipeline"]: one for one in json.loads(answer.read())["pipelines"]}

    def until(self, holds: Any, what: str, seconds: float = 300.0) -> float:
        """Waits until what the worker reports holds. How long it took, in seconds."""
        begun = time.monotonic()
        while not holds(self.pipelines()):
            if time.monotonic() - begun > seconds:
                raise SystemExit(f"{what} did not come to be in {seconds:g} s")
            time.sleep(0.1)
        return time.monotonic() - begun


@contextlib.contextmanager
def bus(place: stand.Stand) -> Iterator[Bus]:
    """`trunkline up`, until it answers; ended by SIGTERM."""
    made = Bus(place)
    log = place.folder / "bus.log"
    with log.open("wb") as output:
        made.process = subprocess.Popen(
            made.command("up", "--log-level", "warning"), stdout=output, stderr=output, env=os.environ
        )
    try:
        deadline = time.monotonic() + 60
        while not made.api and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError):
                made.api = json.loads((made.home / "endpoint.json").read_text())["api"]
            time.sleep(0.05)
        yield made
    finally:
        made.process.send_signal(signal.SIGTERM)
        try:
            made.process.wait(120)
        except subprocess.TimeoutExpired:
            made.process.kill()
            made.process.wait()


@dataclass
class Probe:
    """Asks a worker's event loop every few milliseconds whether it is there."""

    api: str
    longest: float = 0.0
    machine: float = 0.0
    """How long this process, which does nothing else, was kept waiting at most after it wanted to go on."""
    answers: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Probe:
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _ask_on(self) -> None:
        address = urlsplit(self.api)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        rested = time.monotonic()
        while not self._stop.wait(PROBE_SECONDS):
            begun = time.monotonic()
            self.machine = max(self.machine, begun - rested - PROBE_SECONDS)
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            rested = time.monotonic()
            self.longest = max(self.longest, rested - begun)
            self.answers += 1
        connection.close()


def measure(place: stand.Stand, running: int = RUNNING, count: int = COUNT) -> dict[str, float]:
    """Seconds of each step, and how long the event loop was away at most."""
    folder = place.folder / "out"
    folder.mkdir()
    first, more = place.folder / "first.yaml", place.folder / "more.yaml"
    first.write_text(idle_manifests(running, place.folder))
    more.write_text(many(count, folder))
    with bus(place) as made:
        made.run("apply", "-f", str(first), "--yes", "--no-wait")
        made.until(lambda found: _at_work(found, running), "the first pipelines running")
        began = {name: one["since"] for name, one in made.pipelines().items()}
        with Probe(made.api) as probe:
            validated = made.run("validate", "-f", str(more))
            planned = made.run("plan", "-f", str(more))
            committed = made.run("apply", "-f", str(more), "--yes", "--no-wait")
        with Probe(made.api) as starting:
            started = made.until(lambda found: _at_work(found, running + count // 2), "all running", 600.0)
        everything = made.pipelines()
        more.write_text(many(count, folder, changed=7))
        with Probe(made.api) as changing:
            made.run("apply", "-f", str(more), "--yes", "--no-wait")
            before = everything["many-out-7"]["version"]
            effect = made.until(lambda found: _renewed(found["many-out-7"], before), "the changed one running")
        after = made.pipelines()
        restarted = [name for name, one in after.items() if one["since"] != everything[name]["since"]]
        disturbed = [name for name, since in began.items() if after[name]["since"] != since]
    return {
        "running": running,
        "manifests": count,
        "validate": validated,
        "plan": planned,
        "commit": committed,
        "away": 1000 * probe.longest,
        "start": started,
        "away starting": 1000 * starting.longest,
        "effect": effect,
        "away changing": 1000 * changing.longest,
        "machine": 1000 * max(probe.machine, starting.machine, changing.machine),
        "restarted": len([name for name in restarted if name != "many-out-7"]),
        "disturbed": len(disturbed),
    }


def _at_work(found: dict[str, dict[str, Any]], count: int) -> bool:
    return len([one for one in found.values() if one["state"] == "RUNNING"]) >= count


def _renewed(one: dict[str, Any], before: str) -> bool:
    return one["state"] == "RUNNING" and one["version"] == one["wanted"] != before


def run(running: int = RUNNING, count: int = COUNT) -> list[str]:
    """Measures, keeps the section, and returns its lines."""
    with stand.stand() as place:
        found = measure(place, running, count)
    rows: Sequence[report.Row] = [
        {
            "running pipelines": found["running"],
            "manifests": found["manifests"],
            "validate, s": round(found["validate"], 1),
            "plan, s": round(found["plan"], 1),
            "commit, s": round(found["commit"], 1),
            "loop away meanwhile, ms": round(found["away"]),
            "all started after, s": round(found["start"], 1),
            "loop away starting, ms": round(found["away starting"]),
            "one changed runs after, s": round(found["effect"], 2),
            "loop away changing, ms": round(found["away changing"]),
            "an idle process away, ms": round(found["machine"]),
            "others restarted": found["restarted"] + found["disturbed"],
        }
    ]
    notes = [
        (
            "Each command is a process of its own. Half of the manifests are topics with a schema each, half are sinks. The event "
            "loop is asked every 10 ms from outside; the longest answer counts. Everything shares two cores with the broker: how long that "
            "keeps a process waiting which does nothing but ask is said beside it."
        )
    ]
    report.add("A thousand manifests beside a running bus", rows, notes, data=found)
    return report.table(rows)
