"""Commands on a real cluster without any worker: plan, apply, status, topics, schemas. A registry is served while they run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import KafkaUnderTest
from typer.testing import CliRunner, Result

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.topics import TopicState, remove_topic, topic_states
from trunkline.bus.worker.applied import VERSION, read_applied
from trunkline.bus.worker.board import Board, Heartbeat, Report
from trunkline.cli.main import app

pytestmark = pytest.mark.kafka
HANGS = 120.0
"""Seconds after which a process that should have ended long ago is killed."""


class Shell:
    """Calls commands on the test's broker in one namespace, with manifests in one folder."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.kafka = KafkaSettings(bootstrap)
        self.names = Names(namespace)
        self.folder = folder

    def __call__(self, *arguments: str) -> Result:
        shared = ["--bootstrap", self.kafka.bootstrap, "--namespace", self.names.namespace]
        return CliRunner().invoke(app, [*shared, "--home", str(self.folder / "home"), *arguments])

    def data(self, *arguments: str) -> Any:
        result = self("-o", "json", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def write(self, text: str, file: str = "flow.yaml") -> str:
        manifests = self.folder / "manifests"
        manifests.mkdir(exist_ok=True)
        (manifests / file).write_text(text, encoding="utf-8")
        return str(manifests)

    def flow(self, fields: str = "", when: str = "event.id > 5", more: str = "") -> str:
        prefix = self.names.namespace
        return f"""\
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {prefix}.orders}}
spec:
  partitions: 2
  schema: {{type: record, name: Order, fields: [{{name: id, type: long}}{fields}]}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {prefix}.big}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: big-orders}}
spec:
  from: [{prefix}.orders]
  start: earliest
  steps: [{{filter: {when}}}]
  to: [{prefix}.big]
{more}"""


@pytest.fixture
def shell(kafka: KafkaUnderTest, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.delenv("TRUNKLINE_REGISTRY_URL", raising=False)
    return Shell(kafka.bootstrap, namespace, tmp_path)


def test_plan_shows_what_apply_would_do_and_changes_nothing(shell: Shell) -> None:
    folder = shell.write(shell.flow())
    found = shell.data("plan", "-f", folder)
    orders, big = f"{shell.names.namespace}.orders", f"{shell.names.namespace}.big"
    assert {(one["action"], one["kind"], one["name"]) for one in found["changes"]} == {
        ("create", "Topic", orders),
        ("create", "Topic", big),
        ("create", "Stream", "big-orders"),
    }
    assert sorted(found["topics"]) == [big, orders]
    assert sorted(found["schemas"]) == [f"{big}-value", f"{orders}-value"]
    assert topic_states(shell.kafka, [orders, big]) == {}
    assert read_applied(shell.kafka, shell.names) == {}


def test_apply_creates_topics_and_schemas_and_a_second_one_has_nothing_to_do(shell: Shell) -> None:
    folder = shell.write(shell.flow())
    first = shell("apply", "-f", folder, "--yes")
    assert first.exit_code == 0, first.stderr
    assert "+ Stream big-orders" in first.stdout
    orders = f"{shell.names.namespace}.orders"
    assert topic_states(shell.kafka, [orders])[orders].partitions == 2
    assert set(read_applied(shell.kafka, shell.names)) == {
        f"Topic/{orders}",
        f"Topic/{shell.names.namespace}.big",
        "Stream/big-orders",
    }
    assert {one["subject"] for one in shell.data("schema", "ls")} == {
        f"{orders}-value",
        f"{shell.names.namespace}.big-value",
    }
    assert shell("apply", "-f", folder, "--yes").stdout == "nothing to change\n"


def test_a_change_is_shown_field_by_field_and_files_leave_other_applied_manifests_alone(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    folder = shell.write(shell.flow(when="event.id > 7"))
    result = shell("apply", "-f", folder, "--yes")
    assert "~ Stream big-orders" in result.stdout
    assert "event.id > 5" in result.stdout
    assert "event.id > 7" in result.stdout
    only = shell.write("", "flow.yaml")
    sink = f"""\
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: out}}
spec:
  from: [{shell.names.namespace}.big]
  start: latest
  connector: file
  config: {{folder: {shell.folder / "out"}, format: {{type: jsonl}}}}
"""
    shell.write(sink, "sink.yaml")
    result = shell("apply", "-f", only, "--yes")
    assert result.exit_code == 0, result.stderr
    assert "Stream/big-orders" in read_applied(shell.kafka, shell.names)
    pruned = shell.data("plan", "-f", shell.write(shell.flow(), "sink.yaml"), "--prune")
    assert [(one["action"], one["name"]) for one in pruned["changes"] if one["action"] == "delete"] == [
        ("delete", "out")
    ]


def test_a_schema_that_breaks_its_readers_is_refused_with_the_pipelines_and_nothing_is_applied(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    before = read_applied(shell.kafka, shell.names)
    folder = shell.write(shell.flow(fields=", {name: customer, type: string}", when="event.id > 100"))
    result = shell("apply", "-f", folder, "--yes")
    assert result.exit_code == 2
    assert "error[schema.incompatible]" in result.stderr
    assert "READER_FIELD_MISSING_DEFAULT_VALUE at /fields/1" in result.stderr
    assert "it would break big-orders" in result.stderr
    assert read_applied(shell.kafka, shell.names) == before
    allowed = shell.write(shell.flow(fields=', {name: customer, type: string, default: ""}'))
    assert shell("apply", "-f", allowed, "--yes").exit_code == 0


def test_one_wrong_manifest_keeps_all_from_being_applied(shell: Shell) -> None:
    folder = shell.write(shell.flow(when="event.idd > 5"))
    result = shell("apply", "-f", folder, "--yes")
    assert result.exit_code == 2
    assert "error[expression.unknown_field]" in result.stderr
    assert read_applied(shell.kafka, shell.names) == {}


def test_nobody_to_ask_means_nothing_is_applied(shell: Shell) -> None:
    result = shell("apply", "-f", shell.write(shell.flow()))
    assert result.exit_code == 2
    assert "error[apply.unconfirmed]" in result.stderr
    assert read_applied(shell.kafka, shell.names) == {}


def test_a_topic_that_differs_is_reported_and_not_changed(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    folder = shell.write(shell.flow().replace("partitions: 2", "partitions: 3"))
    result = shell("apply", "-f", folder, "--yes")
    orders = f"{shell.names.namespace}.orders"
    assert f"warning: topic {orders}: partitions is 2, the manifest says 3; it is not changed" in result.stderr
    assert topic_states(shell.kafka, [orders])[orders].partitions == 2


def test_applied_pipelines_without_a_worker_are_unassigned(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    [found] = shell.data("status")
    assert (found["pipeline"], found["kind"], found["state"]) == ("big-orders", "Stream", "UNASSIGNED")
    assert found["reason"] == "no worker has run it yet"
    unknown = shell("status", "big-order")
    assert unknown.exit_code == 2
    assert "did you mean 'big-orders'?" in unknown.stderr


def test_a_wish_without_a_worker_is_kept_for_the_next_one(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    result = shell("pause", "big-orders")
    assert result.exit_code == 0
    assert "no worker runs it now" in result.stdout


def test_the_last_words_of_a_killed_worker_are_not_taken_for_a_worker(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    board = Board(shell.kafka, shell.names)
    board.report(Report("big-orders", "Stream", "killed", State.RUNNING, since=time.time() - 60, at=time.time()))
    board.flush()
    for verb in ("pause", "restart"):
        result = shell(verb, "big-orders", "--timeout", "0.2")
        assert result.exit_code == 0, result.stderr
        assert "no worker runs it now, so it is kept for when one comes" in result.stdout


def test_while_it_is_not_known_whether_a_silent_worker_is_gone_that_is_said(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.worker.board.STALE_SECONDS", 300.0)  # a slow machine takes its time from here on
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    member = shell.kafka.consumer(shell.names.jobs)
    try:
        member.subscribe([shell.names.jobs])
        while not member.assignment():
            member.poll(0.1)
        board = Board(shell.kafka, shell.names)
        board.report(Report("big-orders", "Stream", "silent", State.RUNNING, since=time.time() - 60, at=time.time()))
        board.flush()
        result = shell("pause", "big-orders", "--timeout", "0.2")
    finally:
        member.close()
    assert result.exit_code == 3
    assert "error[pipeline.slow]: no worker has said anything of big-orders since it was asked for" in result.stderr
    assert "kept for when one comes" in result.stderr


def test_topics_and_schemas_can_be_looked_at(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    orders = f"{shell.names.namespace}.orders"
    listed = {one["name"]: one for one in shell.data("topic", "ls")}
    assert listed[orders]["partitions"] == 2
    assert shell.names.manifests not in listed
    assert shell.names.manifests in {one["name"] for one in shell.data("topic", "ls", "--all")}
    described = shell.data("topic", "describe", orders)
    assert described["read_by"] == ["big-orders"]
    assert len(described["partitions"]) == 2
    assert described["schema"].startswith("Order, version 1")
    assert shell.data("schema", "show", orders)["schema"]["name"] == "Order"
    missing = shell("topic", "describe", orders + "s")
    assert missing.exit_code == 2
    assert f"did you mean '{orders}'?" in missing.stderr


def test_a_topic_that_is_deleted_while_topics_are_listed_is_not_among_them(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    kept, gone = f"{shell.names.namespace}.orders", f"{shell.names.namespace}.big"

    def deleted_since(settings: KafkaSettings, wanted: list[str]) -> dict[str, TopicState]:
        found = topic_states(settings, wanted)
        remove_topic(settings, gone)
        return found

    monkeypatch.setattr("trunkline.control.topics.topic_states", deleted_since)
    listed = {one["name"]: one["offsets"] for one in shell.data("topic", "ls")}
    assert listed[kept] == 0
    assert gone not in listed


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Processes that are started meanwhile end with SIGINT, even where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.slow
def test_a_status_that_is_watched_is_printed_again_and_again(shell: Shell) -> None:
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    command = [sys.executable, "-m", "trunkline.cli.main", "--bootstrap", shell.kafka.bootstrap]
    command += ["--namespace", shell.names.namespace, "--home", str(shell.folder / "home")]
    command += ["-o", "json", "status", "--watch", "--every", "100ms"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watching:
        hung = threading.Timer(HANGS, watching.kill)
        hung.start()
        try:
            assert watching.stdout is not None
            for _ in range(2):
                (one,) = json.loads(watching.stdout.readline())
                assert one["pipeline"] == "big-orders"
            watching.send_signal(signal.SIGINT)
            watching.stdout.read()
            assert watching.wait() == 130
        finally:
            watching.kill()
            hung.cancel()
    refused = shell("status", "no-such-pipeline", "--watch")
    assert (refused.exit_code, "error[pipeline.unknown]" in refused.stderr) == (2, True)


def test_applied_manifests_are_listed_and_shown_as_they_could_be_applied_again(shell: Shell, tmp_path: Path) -> None:
    assert shell("manifest", "ls").exit_code == 0
    shell("apply", "-f", shell.write(shell.flow()), "--yes")
    listed = {(one["kind"], one["name"]): one for one in shell.data("manifest", "ls")}
    orders = f"{shell.names.namespace}.orders"
    assert set(listed) == {("Topic", orders), ("Topic", f"{shell.names.namespace}.big"), ("Stream", "big-orders")}
    assert listed["Stream", "big-orders"]["by"]
    assert {one["name"] for one in shell.data("manifest", "ls", "--kind", "stream")} == {"big-orders"}
    shown = shell("manifest", "get", "big-orders")
    again = tmp_path / "again.yaml"
    again.write_text(shown.stdout, encoding="utf-8")
    assert shell("apply", "-f", str(again), "--yes").stdout == "nothing to change\n"
    assert shell.data("manifest", "get", f"Topic/{orders}")["metadata"]["name"] == orders
    missing = shell("manifest", "get", "big-order")
    assert (missing.exit_code, "did you mean 'big-orders'?" in missing.stderr) == (2, True)
    assert shell("manifest", "ls", "--kind", "Sinc").exit_code == 2


def test_where_no_worker_runs_lists_and_levels_say_so(shell: Shell) -> None:
    for asked in (["worker", "ls"], ["loglevel"], ["loglevel", "debug"]):
        result = shell(*asked)
        assert (result.exit_code, "no worker runs" in result.stderr) == (0, True), result.stderr
    board = Board(shell.kafka, shell.names)
    board.beat(Heartbeat("w-killed", time.time() - 3600, time.time() - 7200, "host-1", 17))
    board.flush()
    (found,) = shell.data("worker", "ls")
    assert (found["worker"], found["state"], found["host"]) == ("w-killed", "SILENT", "host-1")
    shown = shell("worker", "get", "w-killed")
    assert shown.exit_code == 0
    assert "it has not said yet what it has" in shown.stderr


def test_a_trace_that_is_not_there_is_a_failed_check(shell: Shell) -> None:
    result = shell("trace", "no-such-id")
    assert result.exit_code == 1
    assert "error[trace.unknown]" in result.stderr


# --- judged beside what is applied ---


def sink(topic: str, name: str = "out", extra: str = "") -> str:
    return f"""\
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: [{topic}]
  start: latest
  connector: http
  connection: partner
  config: {{url: "https://example.com/{{{{ event.id }}}}"}}{extra}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: partner}}
spec: {{connector: http}}
"""


def test_a_team_checks_and_applies_its_own_file_beside_what_is_applied(shell: Shell) -> None:
    big = f"{shell.names.namespace}.big"
    assert shell("apply", "-f", shell.write(shell.flow()), "--yes").exit_code == 0
    own = shell.folder / "own.yaml"
    own.write_text(sink(big))
    alone = shell("validate", "-f", str(own), "--against", "none")
    assert alone.exit_code == 2
    assert f"no Topic manifest declares '{big}'" in alone.stderr
    # The cluster is named, so it is what the file is judged against.
    assert shell("validate", "-f", str(own)).exit_code == 0
    assert shell.data("validate", "-f", str(own), "--against", "cluster")["against"] == "cluster"
    strict = shell("apply", "-f", str(own), "--yes", "--against", "none")
    assert (strict.exit_code, "manifest.missing_topic" in strict.stderr) == (2, True)
    assert shell("apply", "-f", str(own), "--yes").exit_code == 0
    assert "Sink/out" in read_applied(shell.kafka, shell.names)

    own.write_text(sink(big).replace("event.id", "event.idd"))
    misspelt = shell("validate", "-f", str(own))
    assert (misspelt.exit_code, "did you mean 'id'?" in misspelt.stderr) == (2, True)


def test_a_change_that_would_break_an_applied_pipeline_is_refused_with_its_name(shell: Shell) -> None:
    assert shell("apply", "-f", shell.write(shell.flow()), "--yes").exit_code == 0
    own = shell.folder / "own.yaml"
    own.write_text(shell.flow().split("---")[0].replace("name: id", "name: number"))
    for command in ("validate", "plan"):
        result = shell(command, "-f", str(own))
        assert result.exit_code == 2
        assert "applied:Stream/big-orders" in result.stderr
        assert "this change would break it" in result.stderr


def test_an_applied_manifest_that_nothing_can_run_keeps_nobody_else_from_applying(shell: Shell) -> None:
    assert shell("apply", "-f", shell.write(shell.flow()), "--yes").exit_code == 0
    prefix = shell.names.namespace
    lost = {
        "apiVersion": "trunkline/v1",
        "kind": "Sink",
        "metadata": {"name": "lost"},
        "spec": {"from": [f"{prefix}.big"], "start": "latest", "connector": "no_such_plugin"},
    }
    strange = {**lost, "metadata": {"name": "strange"}, "spec": {"words": "of a newer version"}}
    producer = shell.kafka.producer()
    for manifest in (lost, strange):
        value = json.dumps({"v": VERSION, "by": "test", "manifest": manifest}).encode()
        producer.produce(shell.names.manifests, value, f"Sink/{manifest['metadata']['name']}".encode())  # type: ignore[index]
    assert producer.flush(30) == 0
    own = shell.folder / "own.yaml"
    own.write_text(sink(f"{prefix}.big"))
    result = shell("apply", "-f", str(own), "--yes")
    assert result.exit_code == 0, result.stderr
    assert "Sink/out" in read_applied(shell.kafka, shell.names)


def test_the_code_of_a_step_is_run_by_no_command_that_is_not_told_to_trust_it(shell: Shell) -> None:
    folder = shell.write(shell.flow().replace("filter: event.id > 5", 'python: "price:up"'))
    code = shell.folder / "manifests" / "price.py"
    code.write_text("open(__file__ + '.was-run', 'w').close()\n\ndef up(value):\n    return value\n")
    was_run = code.with_name("price.py.was-run")
    declared = "spec: {schema: {type: record, name: Big, fields: [{name: id, type: long}]}}"
    text = shell.flow().replace("filter: event.id > 5", 'python: "price:up"')
    shell.write(
        text.replace(f"name: {shell.names.namespace}.big}}", f"name: {shell.names.namespace}.big}}\n{declared}")
    )
    for command in (["validate"], ["plan"], ["apply", "--yes"]):
        result = shell(*command, "-f", folder)
        assert result.exit_code == 0, result.stderr
        assert "price:up was read and not run; --trust-code runs it" in result.stderr
        assert not was_run.exists()
    assert shell("validate", "-f", folder, "--trust-code").exit_code == 0
    assert was_run.exists()
