"""Random expressions mean the same to ours and to two independent implementations.

cel-go is the stronger oracle and needs a Go toolchain. cel-python is always there; it deviates from CEL's specification in
comparisons across types and with null (an error instead of false), in `string(bool)`, `string(double)`, `string(duration)`,
`timestamp(int)`, `bytes(null)`, `uint(negative)`, doubles divided by zero, negative list indexes and methods of a sum of strings,
and has no extensions: the expressions that it is asked leave those out.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from trunkline.core.errors import ConfigurationError
from trunkline.core.expressions import Expression, ExpressionError, compile_expression

from .generated import EVENTS, SCHEMA, core_expressions, expressions
from .oracles import ERROR, CelGo, ask_celpy, tag
from .test_cases import outcome, rows

SPECIFICATION_DECIDES = {
    # Numbers compare as on one continuous line; cel-go turns the int into a double first.
    "9007199254740993 == 9007199254740993.0",
    "9223372036854775807 < 9223372036854775808.0",
    # Keys of a map are int, uint, bool or string, and unique.
    "{'a': 1, 'a': 2}",
    "{1: 'a', 1: 'b'}",
    "{1: 'a', 1u: 'b'}",
    "{'a' + '': 1, 'a': 2}",
    "{1.5: 1}",
    "{null: 1}",
    "{[1]: 1}",
}
"""Rows of `cases.txt` to which cel-go answers otherwise."""

REFUSED_BY_TYPE = {"1 == 'a'", "true == 1", "1 in {'a': 1}", "true ? 1 : 'a'"}
"""Rows that both type checkers refuse, and that cel-go can evaluate unchecked."""

GO_QUIRKS = re.compile(r"[\w)\]]\[.*\]|!!|--|int\(.*duration")
"""What cel-go 0.33 does in its own way: it finds no overload of a function for an argument of unknown type found by index
(`string(event['i'])`), drops `!!` and `--` together with their checks of type and overflow, and knows `int(duration)`."""


STRICTER = ("compares different types", "can't be in a")
"""Comparisons that our checker refuses and cel-go's leaves open, as it forgets the types of the elements of a mixed list."""


def evaluated(expression: Expression, event: dict[str, Any]) -> list[Any]:
    try:
        return tag(expression(event))
    except ExpressionError:
        return ERROR


@pytest.fixture(scope="module")
def celgo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CelGo]:
    reason = CelGo.absent()
    if reason is not None:
        pytest.skip(reason)
    oracle = CelGo(tmp_path_factory.mktemp("celgo"))
    yield oracle
    oracle.close()


@pytest.fixture(autouse=True)
def _recursion_limit() -> Iterator[None]:
    """cel-python raises the limit while it evaluates, and leaves it so."""
    before = sys.getrecursionlimit()
    yield
    sys.setrecursionlimit(before)


@settings(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(core_expressions())
def test_cel_python_agrees_on_the_core_of_the_language(text: str) -> None:
    expression = compile_expression(text)
    typed = compile_expression(text, schema=SCHEMA)
    for event in EVENTS:
        limit = sys.getrecursionlimit()
        with warnings.catch_warnings(action="ignore"):
            wanted = ask_celpy(text, {"event": event})
        sys.setrecursionlimit(limit)
        assert evaluated(expression, event) == wanted
        assert evaluated(typed, event) == wanted


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(expressions())
def test_knowing_the_schema_changes_no_result(text: str) -> None:
    try:
        typed = compile_expression(text, schema=SCHEMA)
    except ConfigurationError:
        return
    expression = compile_expression(text)
    for event in EVENTS:
        assert evaluated(typed, event) == evaluated(expression, event)


@pytest.mark.slow
@settings(max_examples=3000, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=expressions())
def test_cel_go_agrees_on_all_of_the_language(text: str, celgo: CelGo) -> None:
    if GO_QUIRKS.search(text):
        return
    try:
        expression = compile_expression(text)
    except ConfigurationError as error:
        if not any(reason in error.message for reason in STRICTER):
            wanted, checked = celgo.ask(text, {"event": EVENTS[0]})
            assert not checked or wanted == ERROR
        return
    try:
        typed = compile_expression(text, schema=SCHEMA)
    except ConfigurationError:
        typed = expression
    for event in EVENTS:
        wanted, _ = celgo.ask(text, {"event": event})
        assert evaluated(expression, event) == wanted
        assert evaluated(typed, event) == wanted


@pytest.mark.slow
def test_cel_go_agrees_on_every_row_of_the_cases(celgo: CelGo) -> None:
    different = set()
    for text, wanted in rows():
        found, _ = celgo.ask(text, {})
        assert outcome(text) == wanted
        ours = ERROR if wanted in {"error", "rejected"} else tag(compile_expression(text)({}))
        if ours != found:
            different.add(text)
    assert different == SPECIFICATION_DECIDES | REFUSED_BY_TYPE
