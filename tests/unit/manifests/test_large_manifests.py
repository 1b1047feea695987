"""Manifests that are large in some way: each way has its bound, and a message that says which, where, and what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.steps import bounded_steps
from trunkline.control.schemas import MAX_LINE, propose_schema
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.load import gather_files, gather_text
from trunkline.core.manifests.yaml import MAX_BYTES, MAX_DOCUMENTS, MAX_KEYS, MAX_PROBLEMS, read_documents
from trunkline.registry.schema import Schema

HEAD = "apiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: a}\nspec:\n"
LONG = 3_000_000


@pytest.mark.parametrize(
    "scalar",
    [
        "9" * LONG,
        "-" + "9" * LONG,
        "0x" + "f" * LONG,
        "0b" + "1" * LONG,
        "0" + "7" * LONG,
        "1" + "_" * LONG,
        "1." + "9" * LONG,
        "." + "9" * LONG,
        "1.0e+" + "9" * LONG,
        "1" + ":59" * (LONG // 3),
        "9" * 101,
    ],
    ids=lambda text: text[:6],
)
def test_a_number_of_many_digits_is_refused_unread(scalar: str) -> None:
    with bounded_steps(20_000):
        [problem] = gather_text(f"{HEAD}  partitions: {scalar}\n").problems
    assert "has more than" in problem.message
    assert (problem.line, problem.field) == (5, "spec.partitions")
    assert "in quotes" in (problem.hint or "")
    assert len(str(problem)) < 300


@pytest.mark.parametrize("text", ["9" * 60 + "a" * 60, "12ab" * 40, "2024-01-01T" + "0" * 200, "1.2.3." * 30])
def test_a_long_text_that_only_begins_like_a_number_is_a_text(text: str) -> None:
    [problem] = gather_text(f"{HEAD}  partitions: {text}\n").problems
    assert problem.message.startswith("a whole number is expected, found '")


def test_a_file_has_a_bounded_number_of_documents_and_those_before_are_read() -> None:
    one = "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: t%d}\nspec: {schema: string}\n"
    found = gather_text("".join(one % number for number in range(MAX_DOCUMENTS + 3)))
    assert len(found.project.topics) == MAX_DOCUMENTS
    [problem] = found.problems
    assert "more than 10,000 documents" in problem.message
    assert problem.line == MAX_DOCUMENTS * 5 + 1
    assert problem.hint == "split the file"
    assert found.incomplete


def test_forty_thousand_documents_cost_no_more_than_ten_thousand() -> None:
    with bounded_steps(12_000 * 20):
        [problem] = gather_text("---\n" * 40_000).problems
    assert "more than 10,000 documents" in problem.message


def test_a_mapping_has_a_bounded_number_of_keys() -> None:
    text = HEAD + "".join(f"  key{number}: 1\n" for number in range(200_000))
    with bounded_steps(MAX_KEYS * 80):
        [problem] = gather_text(text).problems
    assert (problem.line, problem.message) == (
        MAX_KEYS + 5,
        "a mapping has more than 10,000 keys; nothing is read from here on",
    )


@pytest.mark.parametrize("key", ["k" * LONG, '"' + "é" * 1_000_000 + '"'], ids=["plain", "quoted"])
def test_a_long_key_is_refused_and_not_repeated(key: str) -> None:
    problems = gather_text(f"{HEAD}  ? {key}\n  : 1\n").problems
    assert any("has more than 1000 characters" in problem.message for problem in problems)
    assert all(len(str(problem)) < 500 for problem in problems)


@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? "])
def test_nesting_is_bounded(opened: str) -> None:
    [problem] = gather_text(f"{HEAD}  partitions:\n    {opened * 5000}").problems
    assert "nested deeper than 64 levels" in problem.message


def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as huge:
        huge.truncate(2**40)  # a file of nothing, on which reading would never end
    [problem] = gather_files([tmp_path]).problems
    assert f"larger than {MAX_BYTES // 2**20} MiB" in problem.message


@pytest.mark.parametrize("depth", [150, 260, 900, 20_000])
def test_a_schema_that_is_too_deep_is_a_problem_of_its_topic(tmp_path: Path, depth: int) -> None:
    (tmp_path / "deep.avsc").write_text('{"type":' * depth + '"string"' + "}" * depth)
    (tmp_path / "topic.yaml").write_text(HEAD + "  schema: deep.avsc\n")
    found = gather_files([tmp_path])
    assert not found.problems
    [problem] = examine(found, schema_check=Schema).problems
    assert (problem.file, problem.line) == (str(tmp_path / "topic.yaml"), 5)
    assert len(str(problem)) < 600


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_sample_is_read_line_by_line_and_no_line_is_endless(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a" * (MAX_LINE + 10))
    with pytest.raises(ConfigurationError, match="the line has more than"):
        propose_schema(tmp_path / name, None, rows=10, delimiter=",", timestamps=False)
    (tmp_path / "deep.jsonl").write_text(json.dumps({"a": 1}) + "\n" + "[" * 5000 + "]" * 5000)
    with pytest.raises(ConfigurationError, match="nested deeper than 200 levels"):
        propose_schema(tmp_path / "deep.jsonl", None, rows=10, delimiter=",", timestamps=False)


@pytest.mark.parametrize("line", ["k: 1\n", "? [a]\n: 1\n", "a: *b\n", "a: !!x y\n"])
def test_a_file_has_a_bounded_number_of_problems_and_the_first_are_told(line: str) -> None:
    found, problems = read_documents("---\n" + line * (MAX_PROBLEMS + 5000), "f.yaml")
    assert found == []
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[0].line < 5
    assert "nothing is read from here on" in problems[-1].message
