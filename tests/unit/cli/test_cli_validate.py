"""`trunkline validate`: every problem of every file, each with file, line, field and what to do. Exit code 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trunkline.cli.main import app

TOPIC = """\
apiVersion: trunkline/v1
kind: Topic
metadata: {name: flights.departed}
spec:
  schema:
    type: record
    name: Flight
    fields: [{name: carrier, type: string}, {name: dep_delay, type: [\"null\", int], default: null}]
---
"""
STREAM = """\
apiVersion: trunkline/v1
kind: Stream
metadata: {name: delayed}
spec:
  from: [flights.departed]
  start: earliest
  steps:
    - filter: event.dep_delay != null && event.dep_delay >= 15
  to: [flights.delayed]
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: flights.delayed}
---
"""


def validate(folder: Path, text: str, *more: str) -> Result:
    (folder / "flow.yaml").write_text(text, encoding="utf-8")
    return CliRunner().invoke(app, ["validate", "-f", str(folder), *more])


def test_good_manifests_are_counted(tmp_path: Path) -> None:
    result = validate(tmp_path, TOPIC + STREAM)
    assert (result.exit_code, result.stdout) == (0, "valid  2 topics, 0 connections, 0 sources, 1 streams, 0 sinks\n")


def line_of(text: str, needle: str) -> int:
    return text[: text.index(needle)].count("\n") + 1


@pytest.mark.parametrize(
    ("good", "bad", "code", "field", "says"),
    [
        (
            "  start: earliest\n",
            "  start: earliest\n  strat: latest\n",
            "manifest.unknown_field",
            "spec.strat",
            "did you mean 'start'?",
        ),
        ("  start: earliest\n", "", "manifest.missing_field", "spec.start", "the field 'start' is missing"),
        (
            "start: earliest",
            "start: yesterday",
            "manifest.invalid",
            "spec.start",
            "earliest, latest or an RFC 3339 time",
        ),
        ("kind: Stream", "kind: Strem", "manifest.unknown_kind", "kind", "did you mean 'Stream'?"),
        (
            "trunkline/v1\nkind: Stream",
            "trunkline/v2\nkind: Stream",
            "manifest.invalid",
            "apiVersion",
            "write trunkline/v1",
        ),
        (
            "from: [flights.departed]",
            "from: [flights.departd]",
            "manifest.missing_topic",
            "spec.from[0]",
            "did you mean 'flights.departed'?",
        ),
        (
            "to: [flights.delayed]",
            "to: [flights.delay]",
            "manifest.missing_topic",
            "spec.to[0].topic",
            "did you mean 'flights.delayed'?",
        ),
        ("- filter: event", "- filtr: event", "plugin.unknown", "spec.steps[0].filtr", "did you mean 'filter'?"),
        ("event.dep_delay >= 15", "event.dep_dely >= 15", "expression.unknown_field", "spec.steps[0]", "dep_delay"),
        ("event.dep_delay >= 15", "event.dep_delay >=", "expression.syntax", "spec.steps[0]", "column"),
        ("event.dep_delay >= 15", "event.carrier", "expression", "spec.steps[0]", "bool"),
        ("name: delayed}", "name: Delayed Flights}", "manifest.invalid", "metadata.name", "write delayed-flights"),
    ],
)
def test_each_problem_names_file_line_field_and_what_to_do(
    tmp_path: Path, good: str, bad: str, code: str, field: str, says: str
) -> None:
    text = TOPIC + STREAM
    assert good in text
    broken = text.replace(good, bad, 1)
    result = validate(tmp_path, broken)
    assert result.exit_code == 2
    assert f"error[{code}" in result.stderr
    assert f"{tmp_path / 'flow.yaml'}:" in result.stderr
    assert field in result.stderr
    assert says in result.stderr
    assert "nothing was applied" in result.stderr


def test_the_line_is_that_of_the_wrong_value(tmp_path: Path) -> None:
    text = (TOPIC + STREAM).replace("flights.departed]", "flights.departd]")
    result = validate(tmp_path, text)
    assert f"flow.yaml:{line_of(text, 'from: [')}: spec.from[0]" in result.stderr


def test_problems_of_several_kinds_are_listed_together_and_as_data(tmp_path: Path) -> None:
    text = (TOPIC + STREAM).replace("flights.delayed]", "flights.delay]").replace(">= 15", ">= 'x'")
    result = validate(tmp_path, text, "-o", "json")
    problems = json.loads(result.stderr)["error"]["problems"]
    assert result.exit_code == 2
    assert len(problems) == 2
    assert {"file", "line", "field", "message", "hint", "code"} == set(problems[0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &anchor {b: 1}\nc: *anchor\n", "anchors are refused"),
        ("a: 1\na: 2\n", "the key 'a' occurs twice"),
        ("a: [1\n", "flow.yaml:2"),
    ],
)
def test_yaml_that_surprises_is_refused_with_its_line(tmp_path: Path, text: str, says: str) -> None:
    result = validate(tmp_path, text)
    assert result.exit_code == 2
    assert "error[manifest.yaml]" in result.stderr
    assert says in result.stderr


def test_a_circle_of_streams_is_named(tmp_path: Path) -> None:
    back = STREAM.replace("name: delayed}", "name: back}").replace("[flights.departed]", "[flights.delayed]")
    back = back.partition("---")[0].replace("to: [flights.delayed]", "to: [flights.departed]")
    result = validate(tmp_path, TOPIC + STREAM + back)
    assert result.exit_code == 2
    assert "error[manifest.cycle]" in result.stderr
    assert "delayed → back" in result.stderr or "back → delayed" in result.stderr


def test_a_name_that_is_taken_points_at_its_owner(tmp_path: Path) -> None:
    result = validate(tmp_path, TOPIC + TOPIC)
    assert "error[manifest.duplicate]" in result.stderr
    assert f"see {tmp_path / 'flow.yaml'}:3" in result.stderr


def test_settings_of_a_plug_in_are_checked_with_their_line(tmp_path: Path) -> None:
    sink = """\
apiVersion: trunkline/v1
kind: Sink
metadata: {name: out}
spec:
  from: [flights.departed]
  start: latest
  connector: file
  config:
    foldr: /tmp/out
    format: {type: jsonl}
"""
    result = validate(tmp_path, TOPIC + sink)
    assert f"flow.yaml:{line_of(TOPIC + sink, 'foldr')}: spec.config.foldr: unknown field 'foldr'" in result.stderr
    assert "did you mean 'folder'?" in result.stderr


def test_a_secret_in_plain_text_is_refused_and_not_repeated(tmp_path: Path) -> None:
    connection = """\
apiVersion: trunkline/v1
kind: Connection
metadata: {name: ops}
spec: {connector: slack, config: {token: xoxb-very-secret-value}}
"""
    result = validate(tmp_path, connection)
    assert result.exit_code == 2
    assert "spec.config.token" in result.stderr
    assert "xoxb-very-secret-value" not in result.output


def test_a_folder_that_is_not_there_is_wrong_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["validate", "-f", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "error[manifest.file]" in result.stderr
