"""CEL's semantics, row by row: `cases.txt` has the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.core.expressions import ExpressionError, compile_expression

from .oracles import tag

CASES = Path(__file__).with_name("cases.txt")


def rows() -> Iterator[tuple[str, str]]:
    for line in CASES.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((";", "# ")):
            text, arrow, wanted = line.rpartition(" ==> ")
            assert arrow, line
            yield text.replace("⏎", "\n").replace("⇥", "\t"), wanted


def outcome(text: str) -> str:
    try:
        expression = compile_expression(text)
    except ConfigurationError:
        return "rejected"
    try:
        kind, value = tag(expression({}))
    except ExpressionError:
        return "error"
    return f"{kind} {json.dumps(value, ensure_ascii=False) if kind in {'string', 'bool'} else value}"


@pytest.mark.parametrize(("text", "wanted"), list(rows()))
def test_an_expression_means_what_cel_says(text: str, wanted: str) -> None:
    assert outcome(text) == wanted


def test_there_are_several_hundred_rows() -> None:
    assert len(list(rows())) > 500
