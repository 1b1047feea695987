"""What hostile texts get: a refusal, an error of the evaluation, or a harmless value. Never Python."""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.core.event import Event
from trunkline.core.expressions import ExpressionError, compile_expression
from trunkline.core.expressions.compile import _verify
from trunkline.core.expressions.values import BoolKey, TypeValue

PLAIN = (int, float, str, bytes, bool, type(None), datetime, timedelta, TypeValue)
EVENT: dict[str, Any] = {"s": "text", "n": 1, "l": [1, 2], "m": {"a": "b"}, "null": None}

DUNDERS = """
__class__ __base__ __bases__ __mro__ __subclasses__ __init__ __globals__ __builtins__ __import__ __dict__
__code__ __closure__ __func__ __self__ __module__ __getattribute__ __getattr__ __reduce__ __reduce_ex__
__doc__ __name__ __call__ __new__ __del__ __format__ __loader__ __spec__ __file__ __defaults__ __wrapped__
func_globals gi_frame f_globals tb_frame cr_frame mro format_map
"""
SHAPES = (
    "event.{}",
    "event.s.{}",
    "''.{}",
    "[].{}()",
    "{}",
    "{}()",
    "event['{}']",
    "has(event.s.{})",
)
BUILTINS = """
eval exec open compile getattr setattr globals locals vars dir input breakpoint memoryview object super print
__import__ help exit quit id hash iter next range sum min max sorted map filter zip lambda yield await async
k0 k1 v0 t0 recover budget error ERRORS spend evaluate ctx self normal truth select namespace
"""
TRICKS = [
    "'{0.__class__}'.format([1])",
    "'{}'.format([1])",
    "'%(x)s'.format([{'x': 1}])",
    "'%s'.format([event]).format([1])",
    "'%999999999d'.format([1])",
    "'%.999s'.format(['a'])",
    "'%*d'.format([1])",
    "'%n'.format([1])",
    "'{0[__class__]}'.format([event])",
    "f'{1+1}'",
    "f'{__import__(\"os\")}'",
    "`__import__('os')`",
    "event.`__class__`",
    "event.`s`.`__class__`",
    "event.s;event.s",
    "event.s\nimport os",
    "import os",
    "lambda: 1",
    "(lambda: 1)()",
    "[x for x in event.l]",
    "{x: x for x in event.l}",
    "event.s if true else 1",
    "event := 1",
    "(event := 1)",
    "event.s = 'x'",
    "event['s'] = 'x'",
    "del event.s",
    "event.s += 'x'",
    "*event.l",
    "**event.m",
    "f(*event.l)",
    "event.l[0:1]",
    "event.l[::-1]",
    "event.l[...]",
    "event.s @ event.s",
    "event.n ** 999999",
    "2 ** 9999999",
    "1 << 99999",
    "1 | 2",
    "1 & 2",
    "~1",
    "1 // comment",
    "1 if 1 else 2",
    "not true",
    "true and false",
    "1 is 1",
    "0b101",
    "0o17",
    "1_000",
    "1j",
    "1e999",
    "9" * 5000,
    "-" * 50 + "9" * 400,
    "0x" + "f" * 5000,
    "int('" + "9" * 5000 + "')",
    "double('" + "9" * 5000 + "')",
    "uint('" + "9" * 5000 + "')",
    "duration('" + "9" * 5000 + "s')",
    "duration('9999999999999h')",
    "timestamp(9223372036854775807)",
    "timestamp('9999-12-31T23:59:59Z') + duration('1h')",
    "'a'.matches('(a+)+$')",
    "'a'.matches('(?P<x>a)(?P=x)')",
    "'a'.matches(r'(a)\\1')",
    "'a'.matches('(?=a)')",
    "'a'.matches('(((((a{99}){99}){99}){99}){99})')",
    "'a'.matches(event.s + '[')",
    "event.s.matches('\\u0000')",
    "'\\N{BULLET}'",
    "'\\x0'",
    "'\\u12'",
    "'\\U00110000'",
    "'\\777'",
    "\x00",
    "event\x00.s",
    "event.s\u2028",
    "ｅｖｅｎｔ.s",
    "event.ｓ",
    "event․s",
    "еvent.s",
    "event.__class__.__base__.__subclasses__()",
    "event.__class__()",
    "ctx.value",
    "ctx.__class__",
    "meta.__class__",
    "meta.__dict__",
    "key.__class__",
    "topic.__class__",
    "topic.encode()",
    "topic.join(['a'])",
    "headers.__class__",
    "headers.get('a')",
    "headers.keys()",
    "headers.items()",
    "event.m.get('a')",
    "event.m.items()",
    "event.m.update({'a': 1})",
    "event.l.append(1)",
    "event.l.sort()",
    "event.s.encode()",
    "event.s.format_map(event)",
    "event.n.to_bytes(1)",
    "event.n.real",
    "event.n.bit_length()",
    "math.__class__",
    "math.pi",
    "math.factorial(99)",
    "math.__loader__",
    "strings.quote('a')",
    "google.__class__",
    "google.protobuf.Any{}",
    "google.protobuf.Timestamp{seconds: 1}",
    "google.protobuf.Timestamp.__class__",
    "type(event).__class__",
    "type(1)()",
    "type(1).mro()",
    "int.__class__",
    "int.from_bytes(b'a')",
    "string.__class__",
    "dyn(event).__class__",
    "event.l.map(x, x.__class__)",
    "event.l.map(__class__, __class__)",
    "event.l.map(event, event)",
    "event.l.map(v0, v0)",
    "event.l.map(ctx, ctx)",
    "event.l.map(k0, recover)",
    "event.l.map(x, event.l.map(y, v0))",
    "has(event.__class__)",
    "has(event.s.__class__)",
    "has(__class__)",
    "event.?s",
    "event[?'s']",
    "optional.of(1)",
    "cel.bind(x, 1, x)",
    "cel.__class__",
    "{'__class__': 1}.__class__.__class__",
    "{'a': 1}.get('a')",
    "{1: 2}.__class__",
    "event.s.s.s.s",
    "event.l['__class__']",
    "event.l[-1]",
    "event.l[99999999999]",
    "event.l[9223372036854775808]",
    "event.s[0]",
    "b'a'[0]",
    "null.__class__",
    "true.__class__",
    "1.5.__class__",
    "1.0.is_integer()",
    "1.real",
    "1.__class__",
    "b'a'.__class__",
    "(1).__class__",
    "[1].__class__",
    "''.join(['a'])",
    "'a'.join('b')",
    "timestamp(0).__class__",
    "timestamp(0).tzinfo",
    "timestamp(0).getHours('../../../etc/passwd')",
    "timestamp(0).getHours('/etc/passwd')",
    "timestamp(0).getHours('UTC\\u0000')",
    "timestamp(0).getHours('99:99')",
    "timestamp(0).getHours('" + "A" * 1000 + "')",
    "timestamp(0).strftime('%Y')",
    "duration('1s').total_seconds()",
    "duration('1s').__class__",
]


def attempts() -> Iterator[str]:
    for name in DUNDERS.split():
        for shape in SHAPES:
            yield shape.format(name)
    for name in BUILTINS.split():
        yield name
        yield f"{name}('os')"
        yield f"event.s.{name}('os')"
    yield from TRICKS


def harmless(value: Any) -> bool:
    if type(value) is list:
        return all(harmless(item) for item in value)
    if type(value) is dict:
        return all(type(key) in {str, int, BoolKey} and harmless(item) for key, item in value.items())
    return type(value) in PLAIN


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


@pytest.mark.parametrize(
    "text",
    [
        "(" * 4000 + "1" + ")" * 4000,
        "[" * 4000 + "]" * 4000,
        "!" * 8000 + "true",
        "-" * 8000 + "1",
        "1" + "+1" * 4000,
        "event" + ".a" * 4000,
        "event" + "[0]" * 2700,
        "true ? 1 : " * 700 + "1",
        "{'a': " * 1000 + "1" + "}" * 1000,
        "[1].map(x, " * 500 + "x" + ")" * 500,
        "int(" * 1500 + "1" + ")" * 1500,
        "'" + "a" * 9000 + "'",
        "true || " * 1100 + "true",
    ],
)
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


HUNDRED = f"[{','.join(['1'] * 100)}]"


@pytest.mark.parametrize(
    "text",
    [
        f"{HUNDRED}.all(a, {HUNDRED}.all(b, {HUNDRED}.all(c, {HUNDRED}.all(d, true))))",
        f"{HUNDRED}.map(a, {HUNDRED}.map(b, {HUNDRED}.map(c, a)))",
        f"false || {HUNDRED}.exists(a, {HUNDRED}.exists(b, {HUNDRED}.exists(c, false)))",
        f"{HUNDRED}.map(a, {HUNDRED}.filter(b, {HUNDRED}.exists_one(c, true)))",
        "event.big.all(a, event.big.all(b, true))",
        "['a']" + ".map(x, x + x)" * 30 + ".size() > 0",
        "event.big.map(x, event.text + event.text).size() > 0",
        "event.big.exists(x, event.text.contains('zzz'))",
        "event.big.exists(x, event.text.matches('z+$'))",
        "event.big.map(x, event.text.replace('a', 'bbbb')).size() > 0",
        "event.big.all(x, event.big == event.big)",
        "event.text.replace('', 'bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb').size() > 0",
        "event.text.split('').map(x, event.text.split('')).size() > 0",
        "'%100d'.format([1])",
        "(event.big + event.big + event.big + event.big).size() > 0",
    ],
)
def test_a_bomb_of_work_or_size_is_stopped(text: str) -> None:
    with pytest.raises((ExpressionError, ConfigurationError)):
        compile_expression(text)({"big": list(range(30_000)), "text": "a" * 100_000})


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
