"""What hostile texts get: a refusal, an error of the evaluation, or a harmless value. Never Python."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.core.event import Event
from trunkline.core.expressions import ExpressionError, compile_expression
from trunkline.core.expressions.compile import _verify

from .escapes import BUSY, EVENT, LARGE, NESTED, attempts, harmless


def test_no_escape_gives_anything_but_a_plain_value() -> None:
    texts = list(attempts())
    assert len(texts) > 500
    context = Event(EVENT, raw_key=b"k", headers=[("a", b"b")], topic="t")
    results: dict[str, Any] = {}
    for text in texts:
        for schema in (None, {"type": "record", "name": "E", "fields": [{"name": "s", "type": "string"}]}):
            try:
                results[text] = compile_expression(text, schema=schema)(EVENT, context)
            except (ConfigurationError, ExpressionError):
                continue
    assert {text for text, value in results.items() if not harmless(value)} == set()
    assert EVENT == {"s": "text", "n": 1, "l": [1, 2], "m": {"a": "b"}, "null": None}


def constants(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from constants(constant)


def test_compiled_code_reads_no_attribute_but_the_contexts_and_has_no_builtins() -> None:
    text = "event.a.b.__c__ == meta.id && event.l.exists(x, x.__class__ == headers['y']) && key == topic && -1 + size(event.l) > 0"
    expression = compile_expression(text)
    assert expression.fn.__globals__["__builtins__"] == {}
    for code in constants(expression.fn.__code__):
        assert set(code.co_names) & {"__c__", "__class__", "a", "b", "l"} == set()
        assert {name for name in code.co_names if not name.startswith("k")} <= {
            "meta", "key", "topic", "headers_map", "ERRORS", "recover", "spend",
        }  # fmt: skip


@pytest.mark.parametrize(
    "source", ["import os", "x.y", "ctx.__class__", "[a for a in b]", "open('x')", "ctx.key.real", "f'{1}'", "a ** b"]
)
def test_the_last_fence_refuses_python_that_the_generator_never_makes(source: str) -> None:
    with pytest.raises(AssertionError, match="allow-list"):
        _verify(ast.parse(source), {})


@pytest.mark.parametrize("text", NESTED)
def test_a_bomb_of_nesting_or_length_is_refused(text: str) -> None:
    before = sys.getrecursionlimit()
    with pytest.raises(ConfigurationError) as caught:
        compile_expression(text)
    assert caught.value.code == "expression.too_large"
    assert len(str(caught.value)) < 1000
    assert sys.getrecursionlimit() == before


def test_long_flat_expressions_are_fine() -> None:
    assert (
        compile_expression(" || ".join(f"event.n == {n}" for n in range(2, 400)) + " || event.n == 1")({"n": 1}) is True
    )
    assert compile_expression(f"event.n in [{','.join(map(str, range(1000)))}]")({"n": 999}) is True
    assert compile_expression("(" * 70 + "1" + ")" * 70)({}) == 1


@pytest.mark.parametrize("text", BUSY)
def test_a_bomb_of_work_or_size_is_stopped(text: str) -> None:
    with pytest.raises((ExpressionError, ConfigurationError)):
        compile_expression(text)(LARGE)


def test_a_spent_budget_is_no_error_that_logic_absorbs() -> None:
    expression = compile_expression("event.big.all(a, event.big.all(b, true)) || true")
    with pytest.raises(ExpressionError, match="more than 100000 iterations"):
        expression({"big": list(range(1000))})


def test_a_value_nested_too_deep_to_compare_is_an_error() -> None:
    deep: list[Any] = []
    other: list[Any] = []
    for _ in range(5000):
        deep, other = [deep], [other]
    with pytest.raises(ExpressionError, match="nested too deep"):
        compile_expression("event.a == event.b")({"a": deep, "b": other})


def test_a_long_expression_is_cut_in_messages() -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(f"'{'a' * 5000}' == event.missing")({})
    assert len(str(caught.value)) < 400
