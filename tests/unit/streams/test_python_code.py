"""The code of a `python` step is read where it is checked, and run only where that is asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from streams.python import PythonStep
from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.data import manifest_data
from trunkline.core.manifests.load import gather_files

TRAP = """
from pathlib import Path

Path(__file__).with_name("was-run").write_text("yes")

def up(value):
    return value
"""
MANIFESTS = """\
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: long}]}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {name: pricing}
spec: {from: orders, start: earliest, steps: [{python: "price:up"}], to: priced}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: priced}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: long}]}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(MANIFESTS)
    (tmp_path / "price.py").write_text(TRAP)
    return tmp_path


def test_an_examination_reads_the_code_says_so_and_runs_none_of_it(folder: Path) -> None:
    found = examine(gather_files([folder]))
    assert found.problems == []
    assert not (folder / "was-run").exists()
    (note,) = found.not_run
    assert (note.file, note.line, note.field) == (str(folder / "shop.yaml"), 9, "spec.steps[0].python")
    assert "price:up" in note.message


def test_with_trust_the_code_is_run_and_what_it_raises_is_a_problem(folder: Path) -> None:
    found = examine(gather_files([folder]), run_code=True)
    assert (found.problems, found.not_run) == ([], [])
    assert (folder / "was-run").exists()
    (folder / "price.py").write_text("raise RuntimeError('no licence')\n\ndef up(value): ...\n")
    assert examine(gather_files([folder])).problems == []
    (problem,) = examine(gather_files([folder]), run_code=True).problems
    assert "RuntimeError: no licence" in problem.message


def prepared(folder: Path, call: str, *, run_code: bool) -> str:
    """What is said of a call; empty where it is good."""
    step = PythonStep(PythonStep.parse(call))
    try:
        step.prepare(StepContext("flow", None, "shop.yaml:3: spec.steps[0].python", None, folder, run_code))
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("code", "call", "says"),
    [
        ("def up(value): ...", "price:up", ""),
        ("def up(value, event): ...", "price:up", ""),
        ("def up(value, event=None, *, extra=1): ...", "price:up", ""),
        ("def up(*values): ...", "price:up", ""),
        ("up = lambda value: value", "price:up", ""),
        ("import json\nup = json.loads", "price:up", ""),
        ("from json import loads as up", "price:up", ""),
        ("from json import *", "price:loads", ""),
        ("def __getattr__(name):\n    return len", "price:up", ""),
        ("if True:\n    def up(value): ...\nelse:\n    up = None", "price:up", ""),
        ("try:\n    import orjson as up\nexcept ImportError:\n    up = None\ndef up(value): ...", "price:up", ""),
        ("class Up:\n    def __init__(self, value): ...", "price:Up", ""),
        ("", "json:loads", ""),
        ("", "urllib.parse:unquote", ""),
        ("", "math:floor", ""),
        ("def upp(value): ...", "price:up", "price has no function 'up' (did you mean 'upp'?)"),
        ("async def up(value): ...", "price:up", "price:up is a coroutine or a generator"),
        ("def up(value):\n    yield value", "price:up", "price:up is a coroutine or a generator"),
        ("def up(value):\n    def inner():\n        yield 1\n    return value", "price:up", ""),
        ("def up(): ...", "price:up", "can't be called with a value"),
        ("def up(a, b, c): ...", "price:up", "can't be called with a value"),
        ("def up(a, *, b): ...", "price:up", "can't be called with a value"),
        ("def up(value:", "price:up", "price"),
        ("", "nowhere:up", "there is no module 'nowhere', neither installed nor a file beside the manifest in"),
        ("", "json.nowhere:up", "json.nowhere"),
    ],
)
def test_reading_finds_what_importing_would_find(code: str, call: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "price.py").write_text(code)
    for run_code in (False, True):
        said = prepared(tmp_path, call, run_code=run_code)
        assert (says in said) if says else not said, f"run_code={run_code}: {said}"


def test_a_module_that_does_not_parse_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "price.py").write_text("x = 1\ndef up(value:\n    return value\n")
    assert f"{tmp_path / 'price.py'}:2" in prepared(tmp_path, "price:up", run_code=False)


def test_no_package_on_the_way_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "pricing_for_this_test"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (package / "rules.py").write_text("def up(value): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert prepared(tmp_path, "pricing_for_this_test.rules:up", run_code=False) == ""
    assert "has no function" in prepared(tmp_path, "pricing_for_this_test.rules:upp", run_code=False)
    assert "pricing_for_this_test" not in sys.modules


@pytest.mark.parametrize("step", ["python: {call: 'price:up', schema: out.avsc}", "validate: {schema: out.avsc}"])
def test_what_is_applied_has_the_schema_of_a_file_in_its_place(folder: Path, step: str) -> None:
    schema = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    (folder / "out.avsc").write_text(json.dumps(schema))
    (folder / "shop.yaml").write_text(MANIFESTS.replace('python: "price:up"', step))
    found = examine(gather_files([folder]))
    assert found.problems == []
    (data,) = manifest_data(found.project, found.project.streams["pricing"])["spec"]["steps"]
    assert next(value for name, value in data.items() if name != "on_error")["schema"] == schema


def test_a_schema_of_a_step_that_is_none_is_said_with_the_place_in_it(folder: Path) -> None:
    (folder / "out.avsc").write_text(
        '{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "decimal"}]}'
    )
    (folder / "shop.yaml").write_text(MANIFESTS.replace('python: "price:up"', "validate: {schema: out.avsc}"))
    (problem,) = examine(gather_files([folder])).problems
    assert "there is no type 'decimal' at /fields/0/type" in problem.message
    assert "logicalType: decimal" in (problem.hint or "")
