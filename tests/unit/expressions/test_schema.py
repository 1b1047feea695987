"""Expressions against the Avro schema of their event: what is refused before it runs, and what types come out."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.core.event import Event
from trunkline.core.expressions import (
    BOOL,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    CelType,
    ExpressionError,
    Variable,
    cel_to_avro,
    compile_expression,
    list_of,
    map_of,
    nullable,
    type_of_avro,
)

FLIGHT = {
    "type": "record",
    "name": "Departed",
    "namespace": "flights",
    "fields": [
        {"name": "carrier", "type": "string"},
        {"name": "flight", "type": "int"},
        {"name": "dep_delay", "type": ["null", "int"]},
        {"name": "distance", "type": "double"},
        {"name": "cancelled", "type": "boolean"},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["OPEN", "CLOSED"]}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "fare", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "ids", "type": {"type": "array", "items": {"type": "string", "logicalType": "uuid"}}},
        {"name": "notes", "type": {"type": "map", "values": "string"}},
        {
            "name": "origin",
            "type": {"type": "record", "name": "Airport", "fields": [{"name": "code", "type": "string"}]},
        },
        {"name": "target", "type": ["null", "Airport"]},
        {"name": "any", "type": ["null", "int", "string"]},
    ],
}
EVENT: dict[str, Any] = {
    "carrier": "UA",
    "flight": 1545,
    "dep_delay": 20,
    "distance": 1400.0,
    "cancelled": False,
    "status": "OPEN",
    "id": UUID("0190a0de-7c39-7000-8000-000000000001"),
    "fare": Decimal("99.90"),
    "day": date(2013, 1, 1),
    "at": datetime(2013, 1, 1, 5, 17, tzinfo=UTC),
    "clock": time(5, 17, 30),
    "tags": ["late", "domestic"],
    "ids": [UUID("0190a0de-7c39-7000-8000-000000000002")],
    "notes": {"gate": "C7"},
    "origin": {"code": "EWR"},
    "target": None,
    "any": "text",
}


def refused(text: str, **how: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        compile_expression(text, schema=FLIGHT, **how)
    return caught.value


@pytest.mark.parametrize(
    ("text", "code", "column", "hint"),
    [
        ("event.dep_dely >= 15", "expression.unknown_field", 7, "did you mean 'dep_delay'?"),
        ("event.origin.cod == 'EWR'", "expression.unknown_field", 14, "did you mean 'code'?"),
        ("event['carier'] == 'UA'", "expression.unknown_field", 7, "did you mean 'carrier'?"),
        ("has(event.carier)", "expression.unknown_field", 11, "did you mean 'carrier'?"),
        ("evnt.carrier == 'UA'", "expression.unknown_name", 1, "did you mean 'event'?"),
        ("carrier == 'UA'", "expression.unknown_name", 1, "did you mean 'event.carrier'?"),
        ("event.tags.exists(t, u == 'a')", "expression.unknown_name", 22, "known:"),
        ("event.carrier.startwith('U')", "expression.unknown_function", 15, "did you mean 'startsWith'?"),
        ("siz(event.tags) > 0", "expression.unknown_function", 1, "did you mean 'size'?"),
        ("event.flight + 1.0 > 2.0", "expression.wrong_type", 14, "write 2.0 for 2"),
        ("event.carrier + event.flight", "expression.wrong_type", 15, "string(…)"),
        ("event.carrier == 15", "expression.wrong_type", 15, "convert with int(…)"),
        ("event.carrier >= 15", "expression.wrong_type", 15, "convert with int(…)"),
        ("event.flight && true", "expression.wrong_type", 7, None),
        ("event.flight.code == 'a'", "expression.wrong_type", 14, None),
        ("'U' in event.carrier", "expression.wrong_type", 5, "contains()"),
        ("event.flight in event.tags", "expression.wrong_type", 14, None),
        ("size(event.flight) > 0", "expression.wrong_type", 1, "there is size(string)"),
        ("event.flight.all(x, true)", "expression.wrong_type", 14, None),
        ("event.at > '2013'", "expression.wrong_type", 10, "convert with timestamp(…)"),
        ("event.at > timestamp('2013')", "expression.wrong_type", 22, None),
        ("event.carrier.matches('(')", "expression.wrong_type", 23, None),
        ("event.carrier = 'UA'", "expression.syntax", 15, None),
        ("event.carrier == 'UA", "expression.syntax", 18, None),
        ("event.carrier ==", "expression.syntax", 17, None),
        ("(event.flight > 1", "expression.syntax", 18, None),
    ],
)
def test_a_mistake_is_named_with_its_column_and_what_was_meant(
    text: str, code: str, column: int, hint: str | None
) -> None:
    error = refused(text, where="spec.steps[0].filter")
    assert error.code == code
    assert f"at column {column} of: {text}" in error.message
    assert error.where == "spec.steps[0].filter"
    assert hint is None or hint in str(error.hint)


def test_an_error_in_a_text_of_several_lines_names_line_and_column() -> None:
    assert "line 2, column 10" in refused("event.flight > 1 &&\n   event.flght > 2").message


def test_an_unexpected_result_type_is_refused() -> None:
    assert "must be bool, and is int" in refused("event.flight", expect=BOOL).message
    assert compile_expression("event.flight", schema=FLIGHT, expect=INT)(EVENT) == 1545


def test_a_result_that_only_the_evaluation_knows_is_checked_there() -> None:
    expression = compile_expression("event.any", schema=FLIGHT, expect=STRING)
    assert expression(EVENT) == "text"
    with pytest.raises(ExpressionError, match="must be string, and is int"):
        expression({**EVENT, "any": 1})
    flag = compile_expression("event.x", expect=BOOL)
    with pytest.raises(ExpressionError, match="expected bool, found null"):
        flag({"x": None})


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        ("event.dep_delay", nullable(INT), 20),
        ("event.dep_delay + 1", INT, 21),
        ("event.dep_delay != null && event.dep_delay >= 15", BOOL, True),
        ("event.status == 'OPEN'", BOOL, True),
        ("event.id", STRING, "0190a0de-7c39-7000-8000-000000000001"),
        ("event.id.startsWith('0190')", BOOL, True),
        ("event.ids[0].endsWith('2')", BOOL, True),
        ("event.ids.exists(i, i.endsWith('2'))", BOOL, True),
        ("'0190a0de-7c39-7000-8000-000000000002' in event.ids", BOOL, True),
        ("event.ids == ['0190a0de-7c39-7000-8000-000000000002']", BOOL, True),
        ("event.fare", DOUBLE, 99.9),
        ("event.fare == 99.9", BOOL, True),
        ("event.fare > 99", BOOL, True),
        ("event.day", TIMESTAMP, datetime(2013, 1, 1, tzinfo=UTC)),
        ("event.day < event.at", BOOL, True),
        ("event.day.getFullYear()", INT, 2013),
        ("event.clock", DURATION, timedelta(hours=5, minutes=17, seconds=30)),
        ("event.at - event.day", DURATION, timedelta(hours=5, minutes=17)),
        ("event.tags.map(t, t.upperAscii())", list_of(STRING), ["LATE", "DOMESTIC"]),
        ("event.tags.filter(t, t != 'late')", list_of(STRING), ["domestic"]),
        ("event.notes", map_of(STRING, STRING), {"gate": "C7"}),
        ("event.notes.gate", STRING, "C7"),
        ("has(event.notes.seat) ? event.notes.seat : '?'", STRING, "?"),
        ("event.origin.code", STRING, "EWR"),
        ("event['origin']['code']", STRING, "EWR"),
        ("event.target == null ? 'none' : event.target.code", STRING, "none"),
        ("event.any", DYN, "text"),
        ("event.any == 'text'", BOOL, True),
        ("event.cancelled ? null : event.carrier", nullable(STRING), "UA"),
        ("[event.flight, 1]", list_of(INT), [1545, 1]),
        ("{'a': event.flight}", map_of(STRING, INT), {"a": 1545}),
        ("math.greatest(event.flight, 2000)", INT, 2000),
        ("event.carrier in ['UA', 'AA']", BOOL, True),
        ("event.flight == 1545.0", BOOL, True),
        ("event.flight != null", BOOL, True),
    ],
)
def test_the_types_of_avro_are_those_of_cel(text: str, type_: CelType, value: Any) -> None:
    expression = compile_expression(text, schema=FLIGHT)
    assert expression.type == type_
    assert expression(EVENT) == value
    assert type(expression(EVENT)) is type(value)


def test_null_where_a_number_is_needed_is_an_error_of_that_event() -> None:
    expression = compile_expression("event.dep_delay >= 15", schema=FLIGHT)
    with pytest.raises(ExpressionError, match=r"no such overload: >= of null, int, at column 17") as caught:
        expression({**EVENT, "dep_delay": None})
    assert caught.value.code == "expression.failed"


@pytest.mark.parametrize(
    "text",
    [
        "'abc'.lastIndexOf('a', event.dep_delay)",
        "'abc'.substring(0, event.dep_delay)",
        "'abc'.split(event.note)",
        "'abc'.indexOf(event.note)",
        "'abc'.replace('a', event.note)",
        "event.note.trim()",
        "event.note.size()",
        "event.note.contains('a')",
        "'abc'.startsWith(event.note)",
        "event.note.matches('a')",
        "double(event.dep_delay)",
    ],
)
def test_null_is_no_argument_of_a_function_not_even_of_an_optional_one(text: str) -> None:
    fields = [*FLIGHT["fields"], {"name": "note", "type": ["null", "string"]}]
    expression = compile_expression(text, schema={**FLIGHT, "fields": fields})
    with pytest.raises(ExpressionError, match="no such overload"):
        expression({**EVENT, "dep_delay": None, "note": None})


def test_a_field_that_is_absent_is_an_error_that_quotes_nothing_of_the_event() -> None:
    for schema in (FLIGHT, None):
        expression = compile_expression("event.origin.code == 'EWR'", schema=schema)
        with pytest.raises(ExpressionError, match="no such key: 'code', at column 14") as caught:
            expression({"origin": {"secret": "hunter2"}})
        assert "hunter2" not in str(caught.value)


def test_data_that_does_not_keep_its_schema_is_an_error_and_no_crash() -> None:
    expression = compile_expression("event.flight + 1 > 2 && event.carrier.size() == 2", schema=FLIGHT)
    for event in ({"flight": "x", "carrier": "UA"}, {"flight": 5, "carrier": 7}, {}, None, [], {"flight": object()}):
        with pytest.raises(ExpressionError):
            expression(event)


def test_true_is_not_one_even_in_events_without_a_schema() -> None:
    assert compile_expression("event.a == event.b")({"a": True, "b": 1}) is False
    assert compile_expression("event.a in [1]")({"a": True}) is False
    assert compile_expression("event.a == event.b")({"a": [True], "b": [1]}) is False


def test_names_are_the_paths_that_are_read() -> None:
    expression = compile_expression(
        "event.dep_delay > 1 && event.origin['code'] == key && has(event.carrier) && event.tags.exists(t, t == topic)",
        schema=FLIGHT,
    )
    assert expression.names == {
        ("event", "dep_delay"),
        ("event", "origin", "code"),
        ("event", "carrier"),
        ("event", "tags"),
        ("key",),
        ("topic",),
    }
    assert compile_expression("event.origin.code", schema=FLIGHT).path == ("event", "origin", "code")
    assert compile_expression("event.flight + 1", schema=FLIGHT).path is None


def test_the_context_gives_the_envelope_key_headers_and_topic() -> None:
    record = Event(
        {"a": 1},
        raw_key=b"UA",
        headers=[("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"), ("ce_specversion", b"1.0"), ("x-y", b"z")],
        topic="flights.departed",
    )
    for text in (
        "meta.id == '1' && meta.source == '/s' && meta.type == 't'",
        "key == 'UA'",
        "headers['x-y'] == 'z' && headers.`x-y` == 'z'",
        "topic.startsWith('flights.')",
        "!has(meta.subject)",
        "'x-y' in headers && !('q' in headers)",
    ):
        assert compile_expression(text, expect=BOOL)(record.value, record) is True
    with pytest.raises(ConfigurationError, match="meta has no field 'subjct'"):
        compile_expression("meta.subjct == 'a'")


def test_variables_of_ones_own_are_read_as_declared() -> None:
    class Context:
        limit = 10

    variables = (Variable("event", DYN, "event"), Variable("limit", INT, "ctx.limit"))
    assert compile_expression("event.n > limit", variables=variables)({"n": 11}, Context()) is True


@pytest.mark.parametrize(
    ("text", "schema"),
    [
        ("int(event.dep_delay)", "long"),
        ("event.flight", "int"),
        ("event.dep_delay", ["null", "int"]),
        ("event.status", {"type": "enum", "name": "Status", "symbols": ["OPEN", "CLOSED"]}),
        ("event.cancelled ? event.status : 'NONE'", "string"),
        ("event.fare", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
        ("event.fare * 2.0", "double"),
        ("event.day", {"type": "int", "logicalType": "date"}),
        ("event.day + duration('1h')", {"type": "long", "logicalType": "timestamp-micros"}),
        ("event.id", {"type": "string", "logicalType": "uuid"}),
        ("event.carrier + '!'", "string"),
        ("event.tags", {"type": "array", "items": "string"}),
        ("event.tags.map(t, size(t))", {"type": "array", "items": "long"}),
        ("{'a': event.distance}", {"type": "map", "values": "double"}),
        ("event.target", ["null", FLIGHT["fields"][14]["type"]]),  # type: ignore[index]
        ("event.cancelled ? null : event.carrier", ["null", "string"]),
        ("event.any", ["null", "int", "string"]),
        ("null", "null"),
    ],
)
def test_the_avro_schema_of_a_result_is_derived(text: str, schema: Any) -> None:
    assert compile_expression(text, schema=FLIGHT).avro_schema == schema


def test_a_bare_field_passes_as_it_is() -> None:
    assert compile_expression("event.fare", schema=FLIGHT).datum(EVENT) == Decimal("99.90")
    assert compile_expression("event.day", schema=FLIGHT).datum(EVENT) == date(2013, 1, 1)
    assert compile_expression("event.flight + 1", schema=FLIGHT).datum(EVENT) == 1546
    with pytest.raises(ExpressionError, match="no such key: 'fare'"):
        compile_expression("event.fare", schema=FLIGHT).datum({})


@pytest.mark.parametrize("text", ["event.at - event.day", "{1: 2}", "dyn(1)", "type(1)", "[]"])
def test_a_result_that_avro_can_not_hold_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        cel_to_avro(compile_expression(text, schema=FLIGHT).type)
    assert caught.value.code == "expression.no_avro_type"


def test_a_recursive_schema_is_known_down_to_where_it_comes_again() -> None:
    tree = {
        "type": "record",
        "name": "Tree",
        "fields": [{"name": "v", "type": "int"}, {"name": "left", "type": ["null", "Tree"]}],
    }
    expression = compile_expression("event.left.left.v + event.v", schema=tree)
    assert expression({"v": 1, "left": {"v": 2, "left": {"v": 3, "left": None}}}) == 4


@pytest.mark.parametrize("schema", ["{", {"type": "nonsense"}, 5, {"items": "int"}, "Missing"])
def test_what_is_no_avro_schema_is_refused(schema: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        type_of_avro(schema)
    assert caught.value.code == "expression.bad_schema"


def test_a_schema_may_be_given_as_text() -> None:
    text = '{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}'
    assert compile_expression("event.a + 1", schema=text)({"a": 1}) == 2
