"""What hostile texts get: a refusal, an error of the evaluation, or a harmless value. Never Python."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator
from datetime import UTC, datetime
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


def test_searching_a_text_for_a_pattern_is_bounded_by_both() -> None:
    text = "ab" * 500_000
    assert compile_expression("event.t.matches('b$')")({"t": text}) is True
    assert compile_expression("event.t.matches('a[ab]{900}c')")({"t": text[:20_000]}) is False
    # The text may have 22,000 characters, or as many bytes of UTF-8.
    for expression, value in (
        ("event.t.matches('a[ab]{900}c')", {"t": text}),
        ("event.t.matches(event.p)", {"t": text, "p": "a[ab]{900}c"}),
        ("matches(event.t, 'a[ab]{900}c')", {"t": "ü" * 22_000}),
        ("[event.t].exists(t, t.matches('a[ab]{900}c'))", {"t": text}),
    ):
        for schema in (None, {"type": "record", "name": "E", "fields": [{"name": n, "type": "string"} for n in "tp"]}):
            with pytest.raises(ExpressionError, match=r"at most (5518|22072) are searched|more than 5000000"):
                compile_expression(expression, schema=schema)(value)


WIDE = {
    "big": "a" * 1_000_000,
    "same": "a" * 999_999 + "a",
    "l": list(range(100_000)),
    "s": ["x"] * 100_000,
    "nest": [[1] * 1000] * 100,
    "end": "ab" + "a" * 400_000,
    "patterns": [f"a{number}(b|c){{1,{number % 90}}}" for number in range(100_000)],
    "zones": [f"Zone/{number}" for number in range(100_000)],
    "at": datetime(2024, 1, 1, tzinfo=UTC),
}


@pytest.mark.parametrize(
    "text",
    [
        "event.l.all(x, event.big == event.same)",
        "event.l.all(x, event.big <= event.same)",
        "event.l.all(x, event.nest == event.nest)",
        "event.l.exists(x, 'a' in event.s)",
        "event.l.exists(x, [1] in event.nest)",
        f"event.l.map(x, [{','.join(['x'] * 1000)}])",
        "event.l.map(x, event.big)",
        f"[{','.join(['event.big'] * 500)}]",
        "'%s'.format([event.s.map(x, event.big)])",
        "event.patterns.exists(p, 'abc'.matches(p) && false)",
        "event.zones.all(z, event.at.getHours(z) == 0)",
        " || ".join(["event.big.contains('zz')"] * 250),
        " || ".join(["event.big.matches('a{10}c')"] * 200),
        " || ".join(["event.nest != event.nest"] * 200),
        " || ".join(["'y' in event.s"] * 400),
        " || ".join(["event.big != event.same"] * 200),
    ],
)
def test_no_part_is_repeated_without_an_end(text: str) -> None:
    expression = compile_expression(text)
    with pytest.raises(ExpressionError, match=r"more than|longer than"):
        expression(WIDE)


def test_a_long_text_is_searched_from_its_end_in_one_go() -> None:
    text = "a" * 1000 + "b" + "a" * 999_000
    expression = compile_expression("event.t.lastIndexOf(event.p)")
    assert expression({"t": text, "p": "b" + "a" * 400_000}) == 1000
    assert expression({"t": text, "p": "c" + "a" * 400_000}) == -1
    limited = compile_expression("event.t.lastIndexOf(event.p, event.n)")
    assert limited({"t": text, "p": "a" * 500, "n": 700}) == text.rfind("a" * 500, 0, 1200)
    assert limited({"t": text, "p": "b" + "a" * 500, "n": 999}) == -1


def test_what_is_plainly_written_needs_no_budget() -> None:
    """The hot path: no work is counted for an expression without macros that looks at its event a few times."""
    schema = {"type": "record", "name": "E", "fields": [{"name": name, "type": "string"} for name in "abc"]}
    text = "event.a == 'x' && event.b.startsWith('y') && event.c.matches('^z') || event.a + '/' + event.b + '/' + event.c == event.a"
    assert not {"budget", "spend"} & {*compile_expression(text, schema=schema).fn.__code__.co_varnames}
