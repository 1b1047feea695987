"""Random expressions over one event, mostly well typed: what hypothesis feeds to the oracles."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

SCHEMA = {
    "type": "record",
    "name": "Sample",
    "fields": [
        {"name": "i", "type": "long"},
        {"name": "n", "type": ["null", "int"]},
        {"name": "d", "type": "double"},
        {"name": "s", "type": "string"},
        {"name": "ns", "type": ["null", "string"]},
        {"name": "b", "type": "boolean"},
        {"name": "nb", "type": ["null", "boolean"]},
        {"name": "by", "type": "bytes"},
        {"name": "l", "type": {"type": "array", "items": "long"}},
        {"name": "ls", "type": {"type": "array", "items": "string"}},
        {"name": "m", "type": {"type": "map", "values": "long"}},
        {"name": "t", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "r",
            "type": {
                "type": "record",
                "name": "Inner",
                "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null", "string"]}],
            },
        },
        {"name": "u", "type": ["null", "long", "string"]},
    ],
}

# Maps have one key: cel-go visits several in no order.
EVENTS: list[dict[str, Any]] = [
    {
        "i": 7,
        "n": None, "d": 2.5, "s": "delayed", "ns": None, "b": True, "nb": None, "by": b"ab\xff", "l": [3, 1, 2], "ls": ["a", "é😁"],
        "m": {"a": 1}, "t": datetime(2013, 1, 1, 5, 30, tzinfo=UTC), "r": {"x": 1, "y": None}, "u": "text",
    },
    {
        "i": -9223372036854775808,
        "n": 15, "d": float("inf"), "s": "", "ns": "é", "b": False, "nb": True, "by": b"", "l": [], "ls": [],
        "m": {}, "t": datetime(1, 1, 1, tzinfo=UTC), "r": {"x": 0, "y": "q"}, "u": 0,
    },
    {
        "i": 9223372036854775807,
        "n": 0, "d": -0.0, "s": "a", "ns": "a", "b": True, "nb": False, "by": b"a", "l": [0, -1], "ls": ["", "a"],
        "m": {"a": 9223372036854775807}, "t": datetime(2020, 2, 29, 23, 59, 59, 999999, tzinfo=UTC), "r": {"x": -5, "y": ""}, "u": None,
    },
]  # fmt: skip

_LEAVES: dict[str, list[str]] = {
    "int": ["event.i", "event.n", "event.r.x", "0", "1", "2", "-1", "15", "9223372036854775807", "-9223372036854775808", "event.m.a",
            "event.u", "event.l[0]", "event['i']", "0x1F"],
    "uint": ["0u", "1u", "3u", "18446744073709551615u"],
    "double": ["event.d", "0.0", "1.5", "-2.5", "1e10", "3.0", "0.1"],
    "string": ["event.s", "event.ns", "event.r.y", "'a'", "''", "'é😁'", "'delayed'", "event.u", "'1'", "'true'", "event.ls[0]", r"'\n'"],
    "bool": ["event.b", "event.nb", "true", "false", "has(event.s)", "has(event.zz)", "has(event.r.y)"],
    "bytes": ["event.by", "b'a'", r"b'\xff'", "b''"],
    "list": ["event.l", "[1, 2, 3]", "[]", "[1, 2.0, 3u]", "event.ls", "['a', 'b']", "[[1], [2]]", "dyn([null, 1])", "[true, false]"],
    "map": ["event.m", "{'a': 1}", "{}", "dyn({1: 'x'})", "event.r", "dyn({true: 1})", "{'a': {'b': [1]}}", "event"],
    "timestamp": ["event.t", "timestamp('2013-01-01T05:30:00Z')", "timestamp(0)", "timestamp('9999-12-30T23:59:59Z')"],
    "duration": ["duration('1h')", "duration('-1.5s')", "duration('100ms')", "duration('0s')"],
    "type": ["int", "string", "type(1)", "type(event.s)", "type(event.u)", "bool", "google.protobuf.Timestamp"],
    "null": ["event.n", "event.ns"],
}  # fmt: skip

_FORMS: dict[str, list[str]] = {
    "int": ["{int} + {int}", "{int} - {int}", "{int} * {int}", "{int} / {int}", "{int} % {int}", "-{int}", "-({int})", "size({string})",
            "{string}.size()", "size({list})", "size({map})", "size({bytes})", "int({int})", "int({double})", "int({string})",
            "int({uint})",
            "int({timestamp})", "{bool} ? {int} : {int}", "{list}[{int}]", "{map}['a']", "{map}.a", "{string}.indexOf({string})",
            "{string}.lastIndexOf({string})", "{string}.indexOf({string}, {int})", "{timestamp}.getFullYear()", "{timestamp}.getMonth()",
            "{timestamp}.getDayOfYear()", "{timestamp}.getDayOfWeek('America/New_York')", "{timestamp}.getHours('+05:30')", "({int})",
            "{timestamp}.getMilliseconds()", "{duration}.getSeconds()", "{duration}.getMilliseconds()", "{duration}.getHours()",
            "{timestamp}.getDate()", "math.abs({int})", "math.greatest({int}, {int})", "math.least({list})", "dyn({int})",
            "{timestamp}.getDayOfMonth()", "{string}.lastIndexOf({string}, {int})"],
    "uint": ["{uint} + {uint}", "{uint} - {uint}", "{uint} * {uint}", "{uint} / {uint}", "{uint} % {uint}", "uint({int})",
             "uint({double})", "uint({string})", "math.abs({uint})"],
    "double": ["{double} + {double}", "{double} - {double}", "{double} * {double}", "{double} / {double}", "-{double}", "double({int})",
               "double({uint})", "double({string})", "math.ceil({double})", "math.floor({double})", "math.round({double})",
               "math.greatest({double}, {int})", "math.least({double}, {uint}, {int})", "math.abs({double})"],
    "string": ["{string} + {string}", "string({int})", "string({double})", "string({bool})", "string({bytes})", "string({uint})",
               "string({duration})", "string({timestamp})", "{string}.charAt({int})", "{string}.substring({int})",
               "{string}.substring({int}, {int})", "{string}.upperAscii()", "{string}.lowerAscii()", "{string}.trim()",
               "{string}.replace({string}, {string})", "{string}.replace({string}, {string}, {int})",
               "{string}.reverse()",
               "{list}.join({string})", "{list}.join()", "{bool} ? {string} : {string}", "{list}[0]", "'%s-%d'.format([{string}, {int}])",
               "'%s %s'.format([{int}, {double}])", "'%s %s'.format([{bool}, {list}])", "'%x %b'.format([{int}, {int}])"],
    "bool": ["{int} {cmp} {int}", "{double} {cmp} {double}", "{int} {cmp} {double}", "{uint} {cmp} {int}", "{string} {cmp} {string}",
             "{bytes} {cmp} {bytes}", "{bool} {cmp} {bool}", "{timestamp} {cmp} {timestamp}", "{duration} {cmp} {duration}",
             "{bool} && {bool}", "{bool} || {bool}", "({bool} && {bool} && {bool})", "({bool} || {bool} || {bool})", "!({bool})", "!{bool}",
             "{string}.contains({string})", "{string}.startsWith({string})", "{string}.endsWith({string})", "{string}.matches('^[a-d]+$')",
             "{string}.matches({string})", "{int} in {list}", "{string} in {list}", "{string} in {map}", "{int} in {map}",
             "{int} in [1, 15]",
             "{string} in ['a', 'delayed']", "{list} == {list}", "{map} == {map}", "{list} != {list}", "{int} == null", "{string} != null",
             "{type} == {type}", "{any} == {any}", "{any} != {any}", "dyn({any}) == {any}", "dyn({any}) {cmp} {any}", "bool({string})",
             "{list}.exists(x, {bool})", "{list}.all(x, {bool})", "{list}.exists_one(x, {bool})", "{list}.exists(x, x {cmp} {int})",
             "{list}.all(x, x {cmp} {int})", "{list}.exists(x, {int} / x == 1)", "{list}.all(x, {int} / x == 1)",
             "{map}.exists(k, k == {string})", "{map}.all(k, size(k) > 0)", "{list}.exists(x, {list}.exists(y, x == y))",
             "{bool} ? {bool} : {bool}", "dyn({any}) in {list}", "dyn({any}) && {bool}", "dyn({any}) || {bool}", "has({map}.a)",
             "{list}.exists_one(x, x == {int})", "dyn({int}) in {map}"],
    "bytes": ["{bytes} + {bytes}", "bytes({string})", "bytes({bytes})"],
    "list": ["{list} + {list}", "[{int}, {int}]", "[{any}, {any}]", "[{string}]", "{list}.map(x, {any})", "{list}.map(x, x)",
             "{list}.map(x, {bool}, x)", "{list}.filter(x, {bool})", "{list}.filter(x, x {cmp} {int})", "{map}.map(k, 1)",
             "{string}.split({string})", "{string}.split({string}, {int})", "{list}.map(x, [x, {int}])",
             "{list}.map(x, {list}.map(y, [x, y]))"],
    "map": ["{{'a': {any}}}", "{{'a' + {string}: {int}}}", "{bool} ? {map} : {map}"],
    "timestamp": ["{timestamp} + {duration}", "{timestamp} - {duration}", "{duration} + {timestamp}", "timestamp({string})",
                  "timestamp({timestamp})", "{bool} ? {timestamp} : {timestamp}"],
    "duration": ["{duration} + {duration}", "{duration} - {duration}", "duration({string})", "duration({duration})"],
    "type": ["type({any})"],
    "null": ["{bool} ? {null} : {null}"],
}  # fmt: skip
_COMPARISONS = ["==", "!=", "<", "<=", ">", ">="]
_KINDS = sorted(_LEAVES)


# What cel-python gets right: well typed, without null. See `test_oracles.py` for what it does not.
_CORE_LEAVES: dict[str, list[str]] = {
    "int": [
        "event.i",
        "event.r.x",
        "0",
        "1",
        "2",
        "-1",
        "15",
        "9223372036854775807",
        "size(event.l)",
        "event['i']",
        "0x1F",
    ],
    "uint": ["0u", "1u", "3u"],
    "double": ["0.5", "1.5", "-2.5", "1e10", "3.0", "0.1"],
    "string": ["event.s", "'a'", "''", "'é😁'", "'delayed'", r"'\n'", r"r'\n'"],
    "text": ["event.s", "'a'", "''", "'é😁'", "'delayed'"],  # a sum of strings has no methods there
    "bool": ["event.b", "true", "false", "has(event.s)", "has(event.m.zz)"],
    "list": ["event.l", "[1, 2, 3]", "[0]", "[]"],
}
_CORE_FORMS: dict[str, list[str]] = {
    "int": ["{int} + {int}", "{int} - {int}", "{int} * {int}", "{int} / {int}", "{int} % {int}", "-({int})", "size({string})",
            "({bool} ? {int} : {int})", "size({list})", "event.t.getFullYear()", "event.t.getDayOfYear()", "event.t.getMonth()"],
    "uint": ["{uint} + {uint}", "{uint} * {uint}"],
    "double": ["{double} + {double}", "{double} - {double}", "{double} * {double}"],
    "text": ["event.s", "'abc'"],
    "string": ["{string} + {string}", "({bool} ? {string} : {string})"],
    "bool": ["{int} {cmp} {int}", "{double} {cmp} {double}", "{uint} {cmp} {uint}", "{string} {cmp} {string}", "{bool} && {bool}",
             "{bool} || {bool}", "!({bool})", "{text}.contains({string})",
             "{text}.startsWith({string})", "{text}.endsWith({string})",
             "{text}.matches('^[a-d]+$')", "{int} in {list}", "{string} in event.m", "{list} == {list}", "({bool} ? {bool} : {bool})",
             "{list}.exists(x, x {cmp} {int})", "{list}.all(x, x {cmp} {int})", "{list}.exists(x, {int} / x == 1)",
             "{list}.all(x, {int} / x == 1)"],
    "list": ["[{int}, {int}]", "{list}.map(x, x * 2)", "{list}.filter(x, x {cmp} {int})"],
}  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn, depth: int = 4) -> str:
    """The text of an expression. One part in twenty is of a type that its place does not want."""
    return _part(draw, draw(st.sampled_from(["bool", "bool", "bool", *_KINDS])), depth, _LEAVES, _FORMS)


@st.composite
def core_expressions(draw: st.DrawFn, depth: int = 3) -> str:
    """The text of a well typed expression without null, extensions and comparisons across types."""
    return _part(draw, draw(st.sampled_from(["bool", "int", "string"])), depth, _CORE_LEAVES, _CORE_FORMS)


def _part(draw: st.DrawFn, kind: str, depth: int, leaves: dict[str, list[str]], forms: dict[str, list[str]]) -> str:
    if kind == "any" or (forms is _FORMS and draw(st.integers(0, 19)) == 13):
        kind = draw(st.sampled_from([one for one in _KINDS if one not in {"bytes", "type"}]))
    if depth <= 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(leaves[kind]))
    form = draw(st.sampled_from(forms[kind]))
    pieces = []
    while form:
        head, brace, rest = form.partition("{")
        pieces.append(head.replace("}}", "}"))
        if not brace:
            break
        if rest.startswith("{"):
            pieces.append("{")
            form = rest[1:]
            continue
        name, _, form = rest.partition("}")
        if name == "cmp":
            pieces.append(draw(st.sampled_from(_COMPARISONS)))
        else:
            pieces.append(_part(draw, name, depth - 1, leaves, forms))
    return "".join(pieces)
