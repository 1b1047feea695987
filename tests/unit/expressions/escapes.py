"""Hostile expressions: texts that try to reach Python, and texts that cost without bound."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

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
    """More than 500 of them."""
    for name in DUNDERS.split():
        for shape in SHAPES:
            yield shape.format(name)
    for name in BUILTINS.split():
        yield name
        yield f"{name}('os')"
        yield f"event.s.{name}('os')"
    yield from TRICKS


def harmless(value: Any) -> bool:
    """Whether a value is data and nothing else."""
    if type(value) is list:
        return all(harmless(item) for item in value)
    if type(value) is dict:
        return all(type(key) in {str, int, BoolKey} and harmless(item) for key, item in value.items())
    return type(value) in PLAIN


NESTED = [
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
]
"""Bombs of nesting or length, which no compiler may run into."""

HUNDRED = f"[{','.join(['1'] * 100)}]"
BUSY = [
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
]
"""Bombs of work or size, on `LARGE`."""
LARGE: dict[str, Any] = {"big": list(range(30_000)), "text": "a" * 100_000}
