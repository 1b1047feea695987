"""Text becomes what an Avro schema asks for, or is refused with the field, the expected type and what was found."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.casting import cast_to_schema, compile_caster
from trunkline.core.errors import ConfigurationError, RejectedError


def schema_of(kind: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Row", "fields": [{"name": "x", "type": kind, **more}]}


def cast(kind: Any, text: Any, *, values: Any = "text") -> Any:
    return cast_to_schema({"x": text}, schema_of(kind), values=values)["x"]


DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}
ENUM = {"type": "enum", "name": "Colour", "symbols": ["RED", "BLUE"]}


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "5", 5),
        ("int", "-2147483648", -(2**31)),
        ("int", "0517", 517),
        ("long", "9223372036854775807", 2**63 - 1),
        ("double", "1e3", 1000.0),
        ("double", "-.5", -0.5),
        ("float", "2.5", 2.5),
        ("boolean", "TRUE", True),
        ("boolean", "0", False),
        ("string", " as it is ", " as it is "),
        ("bytes", "AAH/", b"\x00\x01\xff"),
        ({"type": "fixed", "name": "Two", "size": 2}, "AAE=", b"\x00\x01"),
        (ENUM, "RED", "RED"),
        (["null", "int"], None, None),
        (["null", "int"], "7", 7),
        (["null", "long", "string"], "seven", "seven"),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            "2013-01-01T10:00:00Z",
            datetime(2013, 1, 1, 10, tzinfo=UTC),
        ),
        (
            {"type": "long", "logicalType": "timestamp-micros"},
            "2013-01-01T10:00:00.000001+02:00",
            datetime(2013, 1, 1, 8, 0, 0, 1, tzinfo=UTC),
        ),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, "2013-01-01 10:00", datetime(2013, 1, 1, 10)),  # noqa: DTZ001
        ({"type": "int", "logicalType": "date"}, "2024-02-29", date(2024, 2, 29)),
        ({"type": "int", "logicalType": "time-millis"}, "23:59:01", time(23, 59, 1)),
        (DECIMAL, "123.45", Decimal("123.45")),
        ({"type": "string", "logicalType": "uuid"}, str(uuid.UUID(int=7)), uuid.UUID(int=7)),
        ({"type": "array", "items": "int"}, "[1, 2]", [1, 2]),
        ({"type": "map", "values": "string"}, '{"a": "b"}', {"a": "b"}),
    ],
)
def test_text_of_the_right_form_becomes_the_value(kind: Any, text: Any, expected: Any) -> None:
    found = cast(kind, text)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "5.0"),
        ("int", "1e3"),
        ("int", " 5"),
        ("int", "+5"),
        ("int", "5_0"),
        ("int", "٥"),
        ("int", ""),
        ("int", "-"),
        ("int", "2147483648"),
        ("int", None),
        ("long", "9223372036854775808"),
        ("long", "9" * 10_000),
        ("double", "NaN"),
        ("double", "inf"),
        ("double", "1e999"),
        ("double", "1_0"),
        ("double", "1,5"),
        ("float", "1e39"),
        ("boolean", "maybe"),
        ("boolean", "2"),
        ("bytes", "no base64!"),
        ({"type": "fixed", "name": "Two", "size": 2}, "AA=="),
        (ENUM, "red"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "2013-01-01T10:00:00"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "2013-02-30T10:00:00Z"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "1357034400000"),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, "2013-01-01T10:00:00Z"),
        ({"type": "int", "logicalType": "date"}, "20240229"),
        ({"type": "int", "logicalType": "date"}, "2023-02-29"),
        ({"type": "int", "logicalType": "time-millis"}, "25:00:00"),
        (DECIMAL, "1.234"),
        (DECIMAL, "12345"),
        (DECIMAL, "1e2"),
        ({"type": "string", "logicalType": "uuid"}, "{00000000-0000-0000-0000-000000000007}"),
        ({"type": "array", "items": "int"}, '["1"]'),
        ({"type": "array", "items": "int"}, "{}"),
        ({"type": "array", "items": "int"}, "[1"),
        (["null", "int"], "NA"),
    ],
)
def test_text_of_another_form_is_refused_and_not_guessed(kind: Any, text: Any) -> None:
    with pytest.raises(RejectedError) as caught:
        cast(kind, text)
    assert "field 'x" in caught.value.message
    assert caught.value.code == "record.cast"


def test_a_refusal_names_the_field_the_type_and_the_text_shortened() -> None:
    with pytest.raises(RejectedError) as caught:
        cast("int", "z" * 5000)
    assert caught.value.message.startswith("field 'x': expected int (-2147483648 to 2147483647), found 'zzz")
    assert len(caught.value.message) < 200


def test_a_refusal_inside_a_nested_value_names_the_whole_path() -> None:
    inner = {"type": "record", "name": "Leg", "fields": [{"name": "minutes", "type": "int"}]}
    with pytest.raises(RejectedError, match=r"field 'x\[1\]\.minutes'"):
        cast({"type": "array", "items": inner}, '[{"minutes": 1}, {"minutes": "2"}]')


def test_an_absent_field_gets_its_default_and_each_row_its_own() -> None:
    caster = compile_caster(schema_of({"type": "array", "items": "int"}, default=[]))
    first, second = caster({}), caster({})
    assert first == second == {"x": []}
    assert first["x"] is not second["x"]


def test_an_absent_field_without_default_is_refused() -> None:
    with pytest.raises(RejectedError, match="no default"):
        cast_to_schema({}, schema_of("int"))


def test_columns_that_the_schema_lacks_are_refused_or_ignored_as_told() -> None:
    row = {"x": "1", "y": "2"}
    with pytest.raises(RejectedError, match="also y"):
        cast_to_schema(row, schema_of("int"))
    assert cast_to_schema(row, schema_of("int"), extra_columns="ignore") == {"x": 1}


def test_an_extra_column_is_seen_also_when_another_one_is_absent() -> None:
    with pytest.raises(RejectedError, match="also y"):
        cast_to_schema({"y": "2"}, schema_of("int", default=1))


def test_json_values_keep_their_types_and_strings_become_only_what_json_lacks() -> None:
    assert cast("int", 5, values="json") == 5
    assert cast({"type": "long", "logicalType": "timestamp-millis"}, 1000, values="json") == 1000
    assert cast({"type": "int", "logicalType": "date"}, "2024-02-29", values="json") == date(2024, 2, 29)
    for kind, wrong in (
        ("int", "5"),
        ("int", 5.0),
        ("int", True),
        ("boolean", "true"),
        ("boolean", 1),
        ("double", "1.5"),
    ):
        with pytest.raises(RejectedError):
            cast(kind, wrong, values="json")


def test_a_type_may_hold_itself_and_endless_nesting_is_refused() -> None:
    tree = {"type": "record", "name": "Tree", "fields": [{"name": "next", "type": ["null", "Tree"], "default": None}]}
    assert cast_to_schema({"next": {"next": None}}, tree, values="json") == {"next": {"next": None}}
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"next": deep}
    with pytest.raises(RejectedError, match="deeply"):
        cast_to_schema(deep, tree, values="json")


def test_names_are_found_in_their_namespaces() -> None:
    schema = {
        "type": "record",
        "name": "Row",
        "namespace": "flights",
        "fields": [
            {"name": "a", "type": ENUM},
            {"name": "b", "type": "Colour"},
            {"name": "c", "type": "flights.Colour"},
        ],
    }
    assert cast_to_schema({"a": "RED", "b": "BLUE", "c": "RED"}, schema) == {"a": "RED", "b": "BLUE", "c": "RED"}
    with pytest.raises(ConfigurationError, match="unknown type 'Shade'"):
        compile_caster(schema_of("Shade"))
    with pytest.raises(ConfigurationError, match="record"):
        compile_caster('"string"')


@given(st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text())
def test_what_is_cast_is_what_fastavro_writes_and_reads_again(number: int, real: float, flag: bool, text: str) -> None:
    fields = [("n", "long"), ("r", "double"), ("f", "boolean"), ("t", "string")]
    schema = {"type": "record", "name": "Row", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    text = text.encode("utf-8", "replace").decode()
    datum = cast_to_schema({"n": str(number), "r": repr(real), "f": str(flag), "t": text}, schema)
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, schema, datum)
    buffer.seek(0)
    assert fastavro.schemaless_reader(buffer, schema, None) == {"n": number, "r": real, "f": flag, "t": text}
