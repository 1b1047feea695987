"""Manifests: what is wrong is said with file, line, field and what was probably meant, and nothing of it runs."""

from __future__ import annotations

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests import ManifestError, Problem, load_text
from trunkline.core.manifests.check import check
from trunkline.core.manifests.models import DeliverySpec

TOPICS = """apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec:
  schema: {type: record, name: Order, fields: [{name: id, type: long}, {name: customer, type: string}]}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: bills}
---
"""
STREAM = """apiVersion: trunkline/v1
kind: Stream
metadata: {name: billing}
spec:
  from: orders
  start: earliest
  steps:
    - filter: event.id > 3
  to: bills
"""
SINK = """apiVersion: trunkline/v1
kind: Sink
metadata: {name: files}
spec:
  from: bills
  start: latest
  connector: file
  config:
    folder: out
"""


def _problems(text: str) -> list[Problem]:
    with pytest.raises(ManifestError) as raised:
        check(load_text(text, "shop.yaml"))
    return raised.value.problems


def _line(text: str, part: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if part in line)


def _only(text: str, at: str) -> Problem:
    """The only problem, which must be at the line that holds `at`."""
    (problem,) = _problems(text)
    assert (problem.file, problem.line) == ("shop.yaml", _line(text, at)), problem
    return problem


def test_a_project_without_faults_passes_and_the_schema_of_an_output_follows() -> None:
    project = load_text(TOPICS + STREAM + "---\n" + SINK)
    check(project)
    assert set(project.pipelines) == {"billing", "files"}
    assert project.schema_of("bills") == project.schema_of("orders")


@pytest.mark.parametrize(
    ("text", "wrong", "hint"),
    [
        (TOPICS + STREAM.replace("start:", "strat:"), "strat", "start"),
        (TOPICS + SINK.replace("folder:", "foldr:"), "foldr", "folder"),
        (TOPICS + SINK + "  delivery: {in_fligth: 3}\n", "in_fligth", "in_flight"),
        (TOPICS.replace("metadata: {name: bills}", "metadata: {name: bills, onwer: me}"), "onwer", "owner"),
    ],
)
def test_an_unknown_field_is_named_with_its_line_and_the_nearest_one(text: str, wrong: str, hint: str) -> None:
    problem = next(one for one in _problems(text) if one.code == "manifest.unknown_field")
    assert (problem.file, problem.line) == ("shop.yaml", _line(text, wrong))
    assert wrong in problem.message
    assert hint in (problem.hint or "")


def test_a_missing_field_is_named() -> None:
    problems = _problems(TOPICS + STREAM.replace("  start: earliest\n", ""))
    assert [(one.field, one.code) for one in problems] == [("spec.start", "manifest.missing_field")]


@pytest.mark.parametrize(
    "text",
    [
        TOPICS + STREAM.replace("earliest", "&where earliest") + "---\n" + SINK.replace("latest", "*where"),
        TOPICS + STREAM.replace("from: orders", "from: &all [orders]").replace("to: bills", "to: *all"),
    ],
)
def test_aliases_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"anchor|alias"):
        load_text(text, "shop.yaml")


def test_a_key_that_stands_twice_is_refused_with_its_line() -> None:
    text = TOPICS + STREAM.replace("  to: bills", "  to: bills\n  to: orders")
    with pytest.raises(ConfigurationError, match="twice") as raised:
        load_text(text, "shop.yaml")
    assert f"shop.yaml:{_line(text, 'to: orders')}" in str(raised.value)


def test_a_name_that_is_taken_is_refused_and_the_other_place_said() -> None:
    problems = _problems(TOPICS + STREAM + "---\n" + SINK.replace("name: files", "name: billing"))
    assert [one.code for one in problems] == ["manifest.duplicate"]
    assert f"shop.yaml:{_line(TOPICS + STREAM, 'name: billing')}" in (problems[0].hint or "")


def test_streams_that_go_round_in_a_circle_are_refused() -> None:
    back = (
        STREAM.replace("billing", "unbilling").replace("from: orders", "from: bills").replace("to: bills", "to: orders")
    )
    problems = _problems(
        TOPICS + STREAM + "---\n" + back.replace("    - filter: event.id > 3\n", "    - filter: 'true'\n")
    )
    cycle = next(one for one in problems if one.code == "manifest.cycle")
    assert "billing" in cycle.message
    assert "unbilling" in cycle.message


def test_a_topic_that_nobody_declares_is_named_with_the_nearest_one() -> None:
    text = TOPICS + SINK.replace("from: bills", "from: bilsl")
    problem = _only(text, "bilsl")
    assert "bilsl" in problem.message
    assert "bills" in (problem.hint or "")


@pytest.mark.parametrize(
    ("replaced", "by", "hint"),
    [("connector: file", "connector: flie", "file"), ("connector: file", "connector: file\n  connection: nowhere", "")],
)
def test_an_unknown_connector_or_connection_is_named(replaced: str, by: str, hint: str) -> None:
    text = TOPICS + SINK.replace(replaced, by)
    problem = _only(text, by.rsplit("\n", maxsplit=1)[-1].strip())
    assert hint in (problem.hint or "")


def test_an_unknown_connection_of_a_sink_that_needs_one_is_named() -> None:
    sink = SINK.replace("connector: file", "connector: http\n  connection: peeer").replace("folder: out", "url: /x")
    peer = "---\napiVersion: trunkline/v1\nkind: Connection\nmetadata: {name: peer}\nspec: {connector: http}\n"
    problem = _only(TOPICS + sink + peer, "peeer")
    assert "peer" in (problem.hint or "")


@pytest.mark.parametrize(
    ("expression", "column"),
    [("event.idd > 3", "7"), ("event.id > 'three'", ""), ("event.id >", ""), ("event.id + 1", "")],
)
def test_a_bad_expression_is_refused_with_its_column_before_anything_runs(expression: str, column: str) -> None:
    text = TOPICS + STREAM.replace("event.id > 3", expression)
    problem = _only(text, "- filter:")
    assert problem.field.startswith("spec.steps[0]")
    assert column in problem.message


def test_every_problem_is_said_at_once() -> None:
    text = TOPICS + STREAM.replace("event.id > 3", "event.idd > 3") + "---\n" + SINK.replace("folder", "foldr")
    assert len(_problems(text)) >= 2


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("apiVersion: trunkline/v1\nkind: Strem\nmetadata: {name: x}\n", "manifest.unknown_kind"),
        ("apiVersion: v2\nkind: Topic\nmetadata: {name: x}\n", "manifest.invalid"),
        ("just text\n", "manifest.invalid"),
        ("apiVersion: trunkline/v1\nkind: Sink\nmetadata: {name: Not_A_Name}\nspec: {}\n", "manifest.invalid"),
    ],
)
def test_what_is_no_manifest_is_said(text: str, code: str) -> None:
    with pytest.raises(ManifestError) as raised:
        load_text(text, "shop.yaml")
    assert code in {problem.code for problem in raised.value.problems}


@pytest.mark.parametrize("start", ["2026-01-31T00:00:00Z", "'2026-01-31T00:00:00+01:00'", "earliest", "latest"])
def test_a_start_is_a_word_or_a_time_with_zone(start: str) -> None:
    (sink,) = load_text(TOPICS + SINK.replace("latest", start)).sinks.values()
    found = sink.spec.start
    assert found == start if isinstance(found, str) else found.isoformat().startswith("2026-01-31T00:00:00+0")


@pytest.mark.parametrize("start", ["yesterday", "2026-01-31T00:00:00", "7", "[1]"])
def test_another_start_is_refused(start: str) -> None:
    problem = _only(TOPICS + SINK.replace("latest", start), f"start: {start}")
    assert problem.field == "spec.start"


def test_a_pipeline_whose_dead_letters_would_be_read_as_a_familys_member_is_refused() -> None:
    family = TOPICS.replace("name: bills", 'name: "billing.*"')
    text = family + STREAM.replace("to: bills", 'to: {topic: "billing.*", name: event.customer}')
    problems = _problems(text)
    assert {(one.field, one.code) for one in problems} == {("metadata.name", "manifest.family")}
    assert "billing.dlq" in problems[0].message


@pytest.mark.parametrize(
    ("delivery", "problem"),
    [
        ("{order: none, exhausted: park}", "only a key can be parked, and the order is none"),
        ("{order: partition, exhausted: park}", "only a key can be parked, and the order is partition"),
        ("{exhausted: park}", "'file' writes ranges of a partition, and no key can be held back from one"),
    ],
)
def test_what_can_not_be_parked_is_refused(delivery: str, problem: str) -> None:
    with pytest.raises((ManifestError, ConfigurationError), match=problem):
        check(load_text(TOPICS + SINK + f"  delivery: {delivery}\n"))


@pytest.mark.parametrize(
    ("delivery", "parks"),
    [({}, True), ({"order": "none"}, False), ({"order": "partition"}, False), ({"exhausted": "dead-letter"}, False)],
)
def test_a_sink_parks_where_its_order_is_that_of_keys_unless_it_says_otherwise(
    delivery: dict[str, str], parks: bool
) -> None:
    assert DeliverySpec.model_validate(delivery).parks is parks
