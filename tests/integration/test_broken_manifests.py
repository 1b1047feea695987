"""Broken manifests and plug-ins, applied one by one to a running bus: each stops its own pipeline, and nothing else.

The worker is a process of its own with a package of broken plug-ins beside it, since some of them end the process they run in. What
a check would refuse is written past it, as an older command line or a worker with less installed would meet it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import broken_plugins
import orjson
import pytest
from conftest import KafkaUnderTest
from typer.testing import CliRunner

from tests.chaos.faults.brokers import Broker
from trunkline.bus.kafka import KafkaSettings, produce_and_wait
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.worker.board import Board, Report
from trunkline.cli.main import app
from trunkline.core import plugins

pytestmark = pytest.mark.kafka
GOOD = 20


def sink(name: str, connector: str, config: str = "{}", more: str = "") -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec: {{from: orders, start: earliest, connector: {connector}, config: {config}{more}}}
"""


def source(name: str, connector: str, config: str = "{}") -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec: {{connector: {connector}, config: {config}, to: orders}}
"""


def stream(name: str, step: str, source: str = "orders") -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec: {{from: {source}, start: earliest, steps: [{step}], to: copies}}
"""


TOPICS = """---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: string}]}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: copies}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: string}]}}
"""
AWAY = "http://127.0.0.1:9"


@dataclass(frozen=True)
class Case:
    """A manifest, what must be said of it, and whether a command must refuse it: of the others, it may or a worker says it.

    One that would end or block the process of the command too is not `applied` here. `raw` is a record that is no manifest.
    """

    manifest: str
    says: str
    refused: bool = False
    applied: bool = True
    raw: bytes | None = None


CASES = {
    "raises-when-made": Case(sink("bad", "raises_when_made"), "made in a bad way"),
    "raises-in-open": Case(sink("bad", "raises_in_open"), "account"),
    "raises-in-close": Case(sink("bad", "raises_in_close"), "account"),
    "fatal-in-open": Case(sink("bad", "fatal_in_open"), "the account is closed"),
    "away-in-open": Case(sink("bad", "away_in_open"), "nobody answers"),
    "exits-in-open": Case(sink("bad", "exits_in_open"), "wrong password"),
    "dies-in-open": Case(sink("bad", "dies_in_open"), "SIGABRT"),
    "waits-in-open": Case(sink("bad", "waits_in_open"), "did not come to an end"),
    "blocks-in-open": Case(sink("bad", "blocks_in_open"), "did not come to an end"),
    "no-plugin": Case(sink("bad", "no_plugin"), "does not derive", refused=True),
    "no-attribute": Case(sink("bad", "no_attribute"), "Missing", refused=True),
    "no-module": Case(sink("bad", "no_module"), "acme_nowhere", refused=True),
    "missing-library": Case(sink("bad", "no_library"), "a_library_that_is_not_installed", refused=True),
    "bad-syntax": Case(sink("bad", "bad_syntax"), "SyntaxError", refused=True),
    "raises-on-import": Case(sink("bad", "raises_on_import"), "not on this machine", refused=True),
    "exits-on-import": Case(sink("bad", "exits_on_import"), "SystemExit", refused=True),
    "unknown-connector": Case(sink("bad", "slak"), "slak", refused=True),
    "dies-on-import": Case(sink("bad", "dies_on_import"), "SIGABRT", applied=False),
    "dies-when-made": Case(sink("bad", "dies_when_made"), "SIGABRT", applied=False),
    "blocks-on-import": Case(sink("bad", "blocks_on_import"), "did not come to an end", applied=False),
    "blocks-when-made": Case(sink("bad", "blocks_when_made"), "did not come to an end", applied=False),
    "lacks-write": Case(sink("bad", "lacks_write"), "write", refused=True),
    "wrong-signature": Case(sink("bad", "wrong_signature"), "TypeError", refused=True),
    "async-splits": Case(source("bad", "async_splits"), "can't be listed"),
    "wrong-splits": Case(source("bad", "wrong_splits"), "must be texts"),
    "blocks-in-splits": Case(source("bad", "blocks_in_splits"), "did not come to an end"),
    "raises-in-splits": Case(source("bad", "raises_in_splits"), "no splits today"),
    "raises-in-poll": Case(source("bad", "raises_in_poll"), "polled by zero"),
    "module-nowhere": Case(stream("bad", '{python: "nowhere_at_all:up"}'), "nowhere_at_all", refused=True),
    "module-raises": Case(stream("bad", '{python: "acme_raises:up"}'), "not on this machine"),
    "module-exits": Case(stream("bad", '{python: "acme_exits:up"}'), "SystemExit"),
    "function-missing": Case(stream("bad", '{python: "acme_plugins:up"}'), "up"),
    "secret-of-file": Case(
        sink("bad", "http", "{url: /}", ", connection: away")
        + "---\napiVersion: trunkline/v1\nkind: Connection\nmetadata: {name: away}\n"
        f'spec: {{connector: http, config: {{base_url: "{AWAY}", auth: {{type: bearer, token: "${{file:/run/secrets/no-such}}"}}}}}}\n',
        "no-such",
    ),
    "wrong-schema": Case(
        "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: odd}\nspec: {schema: {type: rekord, name: Odd}}\n"
        + stream("bad", "{filter: 'true'}", "odd"),
        "rekord",
        refused=True,
    ),
    "unknown-field": Case(stream("bad", "{filter: event.totl > 1}"), "totl", refused=True),
    "huge-expression": Case(
        stream("bad", "{filter: '" + " || ".join(f'event.id == "{n}"' for n in range(5_000)) + "'}"), "", refused=True
    ),
    "schema-file-missing": Case(
        "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: odd}\nspec: {schema: nowhere.avsc}\n"
        + stream("bad", "{filter: 'true'}", "odd"),
        "nowhere.avsc",
        refused=True,
    ),
    "circle": Case(stream("bad", "{filter: 'true'}", "copies"), "circle", refused=True),
    "wrong-type": Case(source("bad", "schedule", "{every: [1]}"), "every", refused=True),
    "no-record": Case("", "a record that is no manifest", raw=b"\xff\x00{"),
    "unknown-setting": Case(sink("bad", "works", "{colour: blue}"), "colour", refused=True),
    "missing-topic": Case(stream("bad", "{filter: 'true'}", "nowhere"), "nowhere", refused=True),
    "missing-connection": Case(sink("bad", "http", "{url: /}", ", connection: nobody"), "nobody", refused=True),
    "no-manifest": Case(
        "---\napiVersion: trunkline/v1\nkind: Sink\nmetadata: {name: bad}\nspec: 5\n", "spec", refused=True
    ),
    "name-clash": Case(source("good0", "schedule", "{every: 1h}"), "good0", refused=True),
}
CASES["secret-of-environment"] = Case(
    CASES["secret-of-file"].manifest.replace("${file:/run/secrets/no-such}", "${env:NOT_SET}"), "NOT_SET"
)
CASES["secret-of-folder"] = Case(
    CASES["secret-of-file"].manifest.replace("/run/secrets/no-such", tempfile.gettempdir()), "directory"
)
CASES["secret-of-the-system"] = Case(
    CASES["secret-of-file"].manifest.replace("/run/secrets/no-such", "/proc/self/environ"), "environ", refused=True
)
CASES["secret-of-the-worker"] = Case(
    CASES["secret-of-environment"].manifest.replace("NOT_SET", "TRUNKLINE_KAFKA_SASL_PASSWORD"),
    "PASSWORD",
    refused=True,
)
SHORT = ("dies-on-import", "dies-in-open", "module-raises", "secret-of-file", "unknown-connector", "name-clash")


@dataclass
class RunningBus:
    """A worker process that follows what is applied, and the commands of somebody who applies."""

    kafka: KafkaSettings
    names: Names
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        command = [sys.executable, "-m", "trunkline.cli.main", "--bootstrap", self.kafka.bootstrap]
        command += ["--namespace", self.names.namespace, "--home", str(self.folder / "home"), "up"]
        with (self.folder / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **self.env})

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(60) == 0
            self.process = None

    def run(self, *arguments: str) -> Any:
        shared = ["--bootstrap", self.kafka.bootstrap, "--namespace", self.names.namespace]
        return CliRunner().invoke(app, [*shared, "--home", str(self.folder / "home"), *arguments])

    def apply(self, text: str) -> Any:
        file = self.folder / "one.yaml"
        file.write_text(text, encoding="utf-8")
        return self.run("-o", "json", "apply", "-f", str(file), "--yes", "--wait", "--timeout", "90")

    def write(self, text: str, *, delete: bool = False) -> None:
        """Writes manifests into the topic of what is applied, past every check."""
        import yaml

        producer = self.kafka.producer()
        for data in filter(None, yaml.safe_load_all(text)):
            key = f"{data['kind']}/{data['metadata']['name']}".encode()
            value = None if delete else orjson.dumps({"v": 1, "by": "a test", "at": time.time(), "manifest": data})
            produce_and_wait(producer, self.names.manifests, value, key)

    def write_case(self, case: Case, *, delete: bool = False) -> None:
        """Writes what a case applies, past every check; or deletes it."""
        if case.raw is not None:
            value = None if delete else case.raw
            produce_and_wait(self.kafka.producer(), self.names.manifests, value, b"Sink/bad")
        self.write(case.manifest, delete=delete)

    def reports(self) -> dict[str, Report]:
        found = [one for one in Board(self.kafka, self.names).reports() if not one.stale]
        return {one.pipeline: one for one in found if one.state is not State.UNASSIGNED}

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            if time.monotonic() > deadline:
                log = (self.folder / "worker.log").read_text(errors="replace")[-3000:]
                raise AssertionError(f"{what}; {self.reports()}\n{log}")
            time.sleep(0.2)
        return found

    def metrics(self) -> str:
        endpoint = json.loads((self.folder / "home" / "endpoint.json").read_text())
        with urllib.request.urlopen(f"{endpoint['api']}/metrics", timeout=20) as answer:
            text: str = answer.read().decode()
            return text

    def failed_alone(self, says: str) -> bool:
        """Whether `bad` is failed or tried again with these words, and everything else runs."""
        found = self.reports()
        bad = found.pop("bad", None)
        if bad is None or bad.state not in {State.FAILED, State.RESTARTING} or says not in (bad.reason or ""):
            return False
        return set(found) == set(self.since()) and all(one.state is State.RUNNING for one in found.values())

    def since(self) -> dict[str, float]:
        return {name: one.since for name, one in self.reports().items() if name.startswith("good")}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = broken_plugins.install(tmp_path_factory.mktemp("site"))
    sys.path.insert(0, str(folder))
    plugins._found.cache_clear()
    yield folder
    sys.path.remove(str(folder))
    plugins._found.cache_clear()
    for name in [one for one in sys.modules if one.startswith("acme_")]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def running(kafka: KafkaUnderTest, installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningBus]:
    folder = tmp_path_factory.mktemp("running")
    made = RunningBus(
        KafkaSettings(kafka.bootstrap), Names(f"b{os.getpid()}"), folder, env={"PYTHONPATH": str(installed)}
    )
    made.start()
    made.until((folder / "home" / "endpoint.json").exists, "started")
    result = made.apply(TOPICS + "".join(sink(f"good{n}", "works") for n in range(GOOD)))
    assert result.exit_code == 0, result.output
    yield made
    if made.process is not None:
        made.process.kill()
        made.process.wait()


def _broken_alone(running: RunningBus, case: Case) -> None:
    since = running.since()
    assert len(since) == GOOD
    answer = running.apply(case.manifest) if case.applied and case.raw is None else None
    if answer is None:
        pass
    elif answer.exit_code == 2:
        assert case.says in answer.stderr
    else:
        assert not case.refused, answer.output
        assert answer.exit_code == 1, answer.output
        outcomes = {one["pipeline"]: one for one in json.loads(answer.stdout)["pipelines"]}
        assert outcomes["bad"]["result"] in {"failed", "late"}
        assert case.says in outcomes["bad"]["cause"]["reason"]
    running.write_case(case)
    if "good0" in case.manifest:
        running.until(lambda: "good0" in running.since(), "the one that had the name keeps it")
    else:
        running.until(lambda: running.failed_alone(case.says), "failed alone")
        assert 'trunkline_pipeline_state{pipeline="bad",state="RUNNING"} 1' not in running.metrics()
        assert 'pipeline="bad"' in running.metrics()
    assert running.since() == since, "the others were not disturbed"
    running.write_case(case, delete=True)
    running.until(lambda: "bad" not in running.reports(), "gone")


@pytest.mark.parametrize("name", SHORT)
def test_what_is_broken_stops_its_own_pipeline_only(running: RunningBus, name: str) -> None:
    _broken_alone(running, CASES[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in SHORT])
def test_each_kind_of_fault_stops_its_own_pipeline_only(running: RunningBus, name: str) -> None:
    _broken_alone(running, CASES[name])


@pytest.mark.slow
def test_what_is_applied_takes_effect_while_another_plug_in_is_tried_out(running: RunningBus) -> None:
    running.write_case(CASES["blocks-on-import"])
    running.write(sink("other", "file", f"{{folder: {running.folder / 'out'}, format: jsonl}}"))
    running.until(lambda: _runs(running, "other"), "running")
    assert "bad" not in running.reports(), "it is not decided yet"
    running.write_case(CASES["blocks-on-import"], delete=True)
    running.write(sink("other", "file"), delete=True)
    running.until(lambda: "other" not in running.reports(), "gone")


@pytest.mark.slow
def test_a_plug_in_that_prints_forks_and_leaves_threads_runs_and_keeps_no_worker_from_ending(
    running: RunningBus,
) -> None:
    since = running.since()
    running.write(sink("noisy", "noisy"))
    running.until(lambda: _runs(running, "noisy"), "running")
    assert running.since() == since, "the others were not disturbed"
    running.stop()
    running.start()
    running.until(lambda: _runs(running, "noisy") and len(running.since()) == GOOD, "running again")
    running.write(sink("noisy", "noisy"), delete=True)
    running.until(lambda: "noisy" not in running.reports(), "gone")


def test_a_topic_with_fewer_partitions_than_it_has_is_told_and_disturbs_nothing(running: RunningBus) -> None:
    topic = "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: wide}\nspec: {partitions: %d}\n"
    assert running.apply(topic % 3).exit_code == 0
    since = running.since()
    answer = running.apply(topic % 2)
    assert answer.exit_code == 0
    differs = json.loads(answer.stdout)["differences"]
    assert [(one["topic"], one["setting"], one["wanted"], one["found"]) for one in differs] == [
        ("wide", "partitions", "2", "3")
    ]
    assert running.since() == since


RESTARTED = [
    name
    for name, case in CASES.items()
    # What waits for time-outs is asked one by one above; once is enough for what a restart does to them.
    if "good0" not in case.manifest and ("did not come to an end" not in case.says or name == "blocks-on-import")
]


@pytest.mark.slow
def test_after_restarts_of_worker_and_broker_only_what_is_broken_does_not_run(installed: Path, tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    broker.start()
    bus = RunningBus(KafkaSettings(broker.bootstrap), Names("restarts"), tmp_path, env={"PYTHONPATH": str(installed)})
    try:
        bus.start()
        bus.until((tmp_path / "home" / "endpoint.json").exists, "started")
        bus.write(TOPICS + "".join(sink(f"good{n}", "works") for n in range(GOOD)))
        for name in RESTARTED:
            bus.write_case(_called(CASES[name], name))
        bus.until(lambda: not _wrong(bus), "only what is broken is", 240.0)
        bus.stop()
        bus.start()
        bus.until(lambda: not _wrong(bus), "after a restart of the worker", 240.0)
        broker.kill()
        broker.start()
        bus.until(lambda: not _wrong(bus), "after a restart of the broker", 240.0)
    finally:
        if bus.process is not None:
            bus.process.kill()
            bus.process.wait()
        broker.close()


def _called(case: Case, name: str) -> Case:
    """The case under a name of its own, so that all can be applied at once."""
    manifest = case.manifest
    for word in ("bad", "away", "odd"):
        manifest = manifest.replace(f"name: {word}}}", f"name: {word}-{name}}}")
        manifest = manifest.replace(f"from: {word},", f"from: {word}-{name},")
        manifest = manifest.replace(f"connection: {word}}}", f"connection: {word}-{name}}}")
    return replace(case, manifest=manifest)


def _wrong(bus: RunningBus) -> list[str]:
    """Pipelines that do not stand as they should."""
    found = bus.reports()
    wrong = [
        name
        for name in (f"good{n}" for n in range(GOOD))
        if name not in found or found[name].state is not State.RUNNING
    ]
    for name in RESTARTED:
        report = found.get(f"bad-{name}" if CASES[name].raw is None else "bad")
        if (
            report is None
            or report.state not in {State.FAILED, State.RESTARTING}
            or CASES[name].says not in (report.reason or "")
        ):
            wrong.append(name)
    return wrong


def _runs(running: RunningBus, name: str) -> bool:
    found = running.reports().get(name)
    return found is not None and found.state is State.RUNNING
