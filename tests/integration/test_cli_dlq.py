"""`trunkline dlq` on a real dead-letter topic: grouped, shown, filtered, counted, and sent again once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import KafkaUnderTest
from typer.testing import CliRunner, Result

from trunkline.bus.deadletters import DeadLetter, Failure, dead_letter_headers
from trunkline.bus.kafka import KafkaSettings, produce, read_all
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, pipeline_topics
from trunkline.bus.worker.applied import gather_applied, read_applied
from trunkline.cli.main import app
from trunkline.control import redrives
from trunkline.control.cluster import Cluster
from trunkline.control.redrives import create, order_of

pytestmark = pytest.mark.kafka
FAILURES = [
    (0, "SINK", "sink.rejected", "the address 'a' is unknown"),
    (1, "SINK", "sink.rejected", "the address 'b' is unknown"),
    (2, "DECODE", "record.undecodable", "the value begins with byte 0x78"),
]


class Letters:
    """A sink that was applied, and three dead letters of it: two of one cause."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.kafka, self.names, self.folder = KafkaSettings(bootstrap), Names(namespace), folder
        manifest = folder / "flow.yaml"
        manifest.write_text(
            f"""\
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {namespace}.orders}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: out}}
spec:
  from: [{namespace}.orders]
  start: latest
  connector: file
  config: {{folder: {folder}, format: {{type: jsonl}}}}
""",
            encoding="utf-8",
        )
        assert self("apply", "-f", str(manifest), "--yes").exit_code == 0
        ensure_topics(
            self.kafka, pipeline_topics(gather_applied(read_applied(self.kafka, self.names)).project, self.names, {})
        )
        producer = self.kafka.producer()
        for offset, stage, code, reason in FAILURES:
            headers = dead_letter_headers(
                [("ce_id", f"event-{offset}".encode()), ("ce_source", b"/test")],
                pipeline="out",
                task="worker",
                topic=f"{namespace}.orders",
                partition=0,
                offset=offset,
                failure=Failure(stage, code, reason, attempts=3),
            )
            produce(producer, self.names.dead_letters("out"), f"value-{offset}".encode(), b"key", headers, partition=0)
        assert producer.flush(20) == 0

    def __call__(self, *arguments: str) -> Result:
        shared = ["--bootstrap", self.kafka.bootstrap, "--namespace", self.names.namespace]
        return CliRunner().invoke(app, [*shared, "--home", str(self.folder / "home"), *arguments])

    def data(self, *arguments: str) -> Any:
        result = self("-o", "json", "dlq", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    def cluster(self) -> Cluster:
        def registry() -> Any:
            raise AssertionError("a job that is only asked for needs no registry")

        return Cluster(self.kafka, self.names, "a test", registry)

    def retried(self) -> list[DeadLetter]:
        return [DeadLetter.from_message(message) for message in read_all(self.kafka, self.names.retry("out"))]


@pytest.fixture
def letters(kafka: KafkaUnderTest, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Letters:
    monkeypatch.delenv("TRUNKLINE_REGISTRY_URL", raising=False)
    return Letters(kafka.bootstrap, namespace, tmp_path)


def test_letters_of_one_cause_are_one_line(letters: Letters) -> None:
    found = letters.data("ls")
    assert [(one["pipeline"], one["count"], one["code"]) for one in found] == [
        ("out", 2, "sink.rejected"),
        ("out", 1, "record.undecodable"),
    ]


def test_one_letter_is_shown_with_its_headers_and_value(letters: Letters) -> None:
    shown = letters.data("show", "out", "0@1")
    assert shown["origin"] == f"{letters.names.namespace}.orders[0]@1"
    assert (shown["id"], shown["value"], shown["attempts"]) == ("event-1", "value-1", 3)
    assert shown["headers"] == {"ce_id": "event-1", "ce_source": "/test"}
    assert len(letters.data("show", "out", "--limit", "2")) == 2
    nowhere = letters("dlq", "show", "out", "0@77")
    assert nowhere.exit_code == 2
    assert "error[dlq.unknown]" in nowhere.stderr
    assert letters("dlq", "show", "out", "first").exit_code == 2


def test_a_redrive_is_counted_first_filtered_and_sends_nothing_twice(letters: Letters) -> None:
    only = ["--filter", "meta.id == 'event-1'"]
    assert letters.data("redrive", "out", *only, "--dry-run") == {
        "pipeline": "out",
        "waiting": 1,
        "capped": 0,
        "refused": 0,
        "unjudged": 0,
        "settled_before": [],
        "sent": 0,
        "dry_run": True,
        "job": None,
        "state": None,
    }
    assert letters.retried() == []
    assert letters.data("redrive", "out", *only)["sent"] == 1
    assert [(one.value, one.header("ce_id")) for one in letters.retried()] == [(b"value-1", "event-1")]
    assert letters.data("redrive", "out", *only)["waiting"] == 0
    assert letters.data("redrive", "out", "--rate", "1000")["sent"] == 2
    assert len(letters.retried()) == 3
    assert letters.data("ls") == []


def test_the_failure_can_be_filtered_by_its_headers(letters: Letters) -> None:
    where = "headers['__connect.errors.stage'] == 'DECODE'"
    assert [one["id"] for one in letters.data("show", "out", "--filter", where)] == ["event-2"]


def test_letters_that_were_named_and_are_not_sent_are_accounted_for(letters: Letters) -> None:
    assert letters.data("redrive", "out", "0@0")["sent"] == 1
    again = letters("dlq", "redrive", "out", "0@0", "0@1", "--dry-run")
    assert again.exit_code == 0
    assert "sent again or dropped already: 0@0" in again.stderr
    assert "0@1" not in again.stderr
    assert letters.data("redrive", "out", "0@0", "0@1", "--dry-run")["settled_before"] == ["0@0"]
    nowhere = letters("dlq", "redrive", "out", "0@1", "0@77")
    assert nowhere.exit_code == 2
    assert "error[dlq.unknown]" in nowhere.stderr
    assert len(letters.retried()) == 1


def test_where_a_filter_can_not_be_evaluated_it_is_said_on_how_many_letters_and_why(letters: Letters) -> None:
    where = "headers['ce_id'] == 'event-1' || letter.code == 'sink.rejected' && event.idd == 7"
    tried = letters("dlq", "redrive", "out", "--filter", where, "--dry-run")
    assert tried.exit_code == 0
    assert "could not be evaluated on 1 letter, not chosen therefore: 0@0: " in tried.stderr
    shown = letters("dlq", "show", "out", "--filter", where)
    assert "could not be evaluated on 1 letter, not chosen therefore: 0@0: " in shown.stderr
    assert letters.data("redrive", "out", "--filter", where, "--dry-run")["unjudged"] == 1


def test_a_wrong_filter_or_pipeline_is_wrong_input(letters: Letters) -> None:
    wrong = letters("dlq", "redrive", "out", "--filter", "event.id ==")
    assert wrong.exit_code == 2
    assert "error[expression.syntax] --filter" in wrong.stderr
    unknown = letters("dlq", "redrive", "outt")
    assert unknown.exit_code == 2
    assert "did you mean 'out'?" in unknown.stderr


def test_a_job_outlives_its_command_and_is_executed_by_whoever_resumes_it(letters: Letters) -> None:
    asked = letters.data("redrive", "out", "--detach")
    assert (asked["waiting"], asked["sent"], asked["state"]) == (3, 0, "WAITING")
    assert letters.retried() == []

    def job(*arguments: str) -> Any:
        result = letters("-o", "json", "job", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    assert job("pause", asked["job"])["progress"]["state"] == "PAUSED"
    [listed] = job("list", "out")
    assert listed["id"] == asked["job"]
    assert listed["left"] in {None, 3}  # counted or not: nobody has begun
    done = job("resume", asked["job"])
    assert (done["progress"]["state"], done["progress"]["sent"], done["left"]) == ("DONE", 3, 0)
    assert len(letters.retried()) == 3
    assert job("show", asked["job"])["ended"]
    (standing,) = json.loads(letters("-o", "json", "status").stdout)
    assert (standing["pipeline"], standing["redriven"], standing["counts"]["dead"]) == ("out", 3, 0)
    unknown = letters("job", "show", "nobody")
    assert unknown.exit_code == 2
    assert "error[job.unknown]" in unknown.stderr


@pytest.mark.parametrize(("verb", "state"), [("pause", "PAUSED"), ("cancel", "CANCELLED")])
def test_who_sees_late_what_he_asked_for_does_not_begin_the_job(
    letters: Letters, monkeypatch: pytest.MonkeyPatch, verb: str, state: str
) -> None:
    look, looks = redrives._Follower.look, iter(range(3))

    def late(follower: Any) -> Any:
        return follower._job if next(looks, None) is not None else look(follower)

    asked = letters.data("redrive", "out", "--detach")
    monkeypatch.setattr(redrives._Follower, "look", late)
    shown = letters("-o", "json", "job", verb, asked["job"])
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout)["progress"]["state"] == state
    assert letters.retried() == []


def test_a_job_that_is_cancelled_leaves_its_letters_waiting(letters: Letters) -> None:
    asked = letters.data("redrive", "out", "--detach")
    cancelled = letters("job", "cancel", asked["job"])
    assert "CANCELLED" in cancelled.stdout, cancelled.stderr
    assert letters("job", "cancel", asked["job"]).exit_code == 0, "that is what was wanted"
    for verb in ("resume", "pause"):
        refused = letters("job", verb, asked["job"])
        assert refused.exit_code == 2
        assert (
            f"error[job.ended] job {asked['job']}: the job has ended (CANCELLED) and can't be {verb}d" in refused.stderr
        )
    assert letters.retried() == []
    assert sum(one["count"] for one in letters.data("ls")) == 3


def test_an_edit_that_can_not_be_is_wrong_input_and_makes_no_job(letters: Letters, tmp_path: Path) -> None:
    value = tmp_path / "value.json"
    value.write_text('{"id": 1}')
    refused = letters("dlq", "redrive", "out", "0@1", "--edit", str(value))
    assert refused.exit_code == 2
    assert "error[edit.refused]" in refused.stderr
    assert "0@1" in refused.stderr
    assert letters("dlq", "redrive", "out", "--edit", str(value)).exit_code == 2
    assert letters("dlq", "redrive", "out", "--set", "id").exit_code == 2
    assert "error[expression.syntax] --set id" in letters("dlq", "redrive", "out", "--set", "id=1 +").stderr
    assert json.loads(letters("-o", "json", "job", "list").stdout) == []


def test_letters_are_dropped_with_a_reason_counted_first_and_audited(letters: Letters) -> None:
    only = ["--filter", "letter.code == 'sink.rejected'", "--reason", "addresses of a test"]
    assert letters.data("drop", "out", *only, "--dry-run") == {
        "pipeline": "out",
        "letters": 2,
        "unjudged": 0,
        "settled_before": [],
        "reason": "addresses of a test",
        "dropped": 0,
        "dry_run": True,
    }
    assert len(letters.data("ls")) == 2
    asked = letters("dlq", "drop", "out", *only)
    assert (asked.exit_code, len(letters.data("ls"))) == (2, 2), "nobody was there to confirm it"
    assert letters.data("drop", "out", *only, "--yes")["dropped"] == 2
    assert [one["code"] for one in letters.data("ls")] == ["record.undecodable"]
    assert letters.data("redrive", "out")["sent"] == 1, "what was dropped is not sent again"
    assert [one.header("ce_id") for one in letters.retried()] == ["event-2"]
    result = letters("-o", "json", "audit", "ls", "--pipeline", "out")
    (entry,) = [one for one in json.loads(result.stdout) if one["action"] == "dlq.drop"]
    assert (entry["details"]["letters"], entry["details"]["reason"]) == (2, "addresses of a test")


def test_a_dropped_letter_stays_and_says_what_became_of_it(letters: Letters) -> None:
    assert letters.data("show", "out", "0@0")["settled"] is None
    assert letters.data("drop", "out", "0@0", "--reason", "a test order", "--yes")["dropped"] == 1
    shown = letters.data("show", "out", "0@0")
    assert shown["value"] == "value-0"
    assert (shown["settled"]["became"], shown["settled"]["reason"]) == ("dropped", "a test order")
    again = letters("dlq", "drop", "out", "0@0", "--reason", "once more", "--yes")
    assert "sent again or dropped already: 0@0" in again.stderr
    assert letters.data("redrive", "out", "0@1")["sent"] == 1
    assert letters.data("show", "out", "0@1")["settled"]["became"] == "sent again"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--reason", " "], "option.reason"),
        (["--reason", "r", "0@77"], "dlq.unknown"),
        (["--reason", "r", "--filter", "letter.cod == 'x'"], "expression"),
    ],
)
def test_a_drop_that_is_asked_wrongly_drops_nothing(letters: Letters, arguments: list[str], code: str) -> None:
    refused = letters("dlq", "drop", "out", *arguments, "--yes")
    assert refused.exit_code == 2
    assert f"error[{code}" in refused.stderr
    assert sum(one["count"] for one in letters.data("ls")) == 3


def test_while_a_job_sends_letters_none_is_dropped(letters: Letters) -> None:
    cluster = letters.cluster()
    order = order_of(cluster, "out", where=None, limit=None, rate=None, cap=10, edit=None)
    job = create(cluster, "out", order, 3)
    refused = letters("dlq", "drop", "out", "--reason", "r", "--yes")
    assert (refused.exit_code, job.id in refused.stderr) == (2, True)
    assert "error[dlq.redriving]" in refused.stderr
