"""Every code that a FAILED pipeline can show has a row in a runbook, and no runbook has a code that nothing gives."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from trunkline.bus import commitfaults
from trunkline.bus.kafka import errors as kafka_errors

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs" / "runbooks"
CODE = re.compile(r"[a-z][a-z_]*\.[a-z0-9_]+")
FAILING = {"ConfigurationError", "FatalError", "HaltError", "DefectError"}
"""What stops a pipeline until something is mended (`state_after`)."""
FOLDERS = ("trunkline/core", "trunkline/registry", "trunkline/bus", "connectors", "sinks", "streams")
NO_PIPELINE = (
    "trunkline/bus/accounting/audit.py",
    "trunkline/bus/embedded/",
    "trunkline/bus/kafka/rights.py",
    "trunkline/bus/names.py",
    "trunkline/bus/parking/decisions.py",
    "trunkline/bus/redrive/",
    "trunkline/bus/worker/remains.py",
    "trunkline/bus/worker/unattended.py",
    "trunkline/core/access/",
    "trunkline/core/docs.py",
    "trunkline/core/serving/",
    "trunkline/core/testing/",
    "trunkline/registry/infer.py",
    "sinks/google_sheets/mock",
    "sinks/salesforce/mock",
    "sinks/sftp/mock",
    "sinks/slack/mock",
)
"""Modules that commands, the embedded broker, the doors of a worker and stand-ins use, and no pipeline."""
OF_OTHERS = ("http.<status>", "salesforce.<code>", "slack.<error>")
"""Codes that end with what the other system calls it."""


@cache
def _modules() -> dict[str, ast.Module]:
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = str(path.relative_to(ROOT))
            if not name.startswith(NO_PIPELINE):
                found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def _failing_classes() -> frozenset[str]:
    """The error classes that stop a pipeline, with those that derive from them."""
    found = set(FAILING)
    classes = [one for module in _modules().values() for one in ast.walk(module) if isinstance(one, ast.ClassDef)]
    before = 0
    while len(found) > before:
        before = len(found)
        found |= {one.name for one in classes if any(_name(base) in found for base in one.bases)}
    return frozenset(found)


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _texts(node: ast.AST) -> Iterator[str]:
    return (one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str))


def _given(module: ast.Module) -> Iterator[str]:
    """The codes that a module gives to errors that stop a pipeline, and to problems of manifests and expressions."""
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef) and node.name in _failing_classes():
            for one in node.body:
                if isinstance(one, ast.Assign) and any(_name(target) == "code" for target in one.targets):
                    yield from _texts(one.value)
        if isinstance(node, ast.Call) and _name(node.func) in {
            *_failing_classes(),
            "SyntaxProblem",
            "Problem",
            "problem",
        }:
            for keyword in node.keywords:
                if keyword.arg == "code":
                    yield from _texts(keyword.value)


@cache
def shown_by_failed() -> dict[str, str]:
    """Every code that FAILED can show, with a module that gives it."""
    found = {code: name for name, module in _modules().items() for code in _given(module) if CODE.fullmatch(code)}
    for name, module in _modules().items():
        if name.startswith("trunkline/core/manifests/"):
            found |= {text: name for text in _texts(module) if re.fullmatch(r"manifest\.[a-z_]+", text)}
    found |= {code: "trunkline/bus/kafka/errors.py" for code, _ in kafka_errors._DENIED.values()}
    found |= dict.fromkeys(commitfaults._CODES.values(), "trunkline/bus/commitfaults.py")
    return found


@cache
def _in_rows() -> dict[str, str]:
    """The codes in the first cell of tables of the runbooks, with the page."""
    found = {}
    for page in sorted(RUNBOOKS.glob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            cells = re.split(r"(?<!\\)\|", line.strip())
            if len(cells) > 3:
                codes = re.findall(r"`([^`]+)`", cells[1])
                found |= {code: page.name for code in codes if CODE.fullmatch(code) or code in OF_OTHERS}
    return found


def _of_others(code: str) -> bool:
    return re.fullmatch(r"http\.\d{3}", code) is not None


def test_the_codes_are_found() -> None:
    found = shown_by_failed()
    assert len(found) > 100
    for code in ("secret.missing", "kafka.denied_topic", "offsets.missing", "salesforce.sign_in", "pipeline.broken"):
        assert code in found


def test_every_code_that_failed_can_show_has_a_row_in_a_runbook() -> None:
    missing = {code: module for code, module in shown_by_failed().items() if code not in _in_rows()}
    assert missing == {}
    assert set(OF_OTHERS) <= set(_in_rows())


def test_no_runbook_has_a_code_that_nothing_gives() -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("trunkline", "connectors", "sinks", "streams")
        for path in (ROOT / folder).rglob("*.py")
    )
    given = set(re.findall(r"\"([a-z][a-z_]*\.[a-z0-9_]+)\"", source))
    assert {
        code: page for code, page in _in_rows().items() if not (code in given or code in OF_OTHERS or _of_others(code))
    } == {}


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.name)
def test_no_code_has_two_rows_in_one_page(page: Path) -> None:
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.strip().startswith("|")]
    codes = [
        code
        for line in rows
        for code in re.findall(r"`([^`]+)`", re.split(r"(?<!\\)\|", line.strip())[1])
        if CODE.fullmatch(code)
    ]
    assert sorted(codes) == sorted(set(codes))
