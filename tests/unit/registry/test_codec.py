"""What is written is read, what is broken is refused, and what would be lost is never written."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from trunkline.core.errors import RejectedError, RetriableError
from trunkline.registry.codec import Decoder, Encoder, Limits
from trunkline.registry.precise import PreciseEncoder
from trunkline.registry.schema import Schema
from trunkline.registry.wire import frame, prefix, schema_id, unframe

from .damage import BROKEN, DECIMAL, ENUM, FIXED_DECIMAL, TREE, TRUST, logical
from .sources import SchemaShelf, decoded, record, through, zigzag

UTC = dt.UTC
MOMENT = dt.datetime(2013, 1, 1, 10, 20, 30, 123456, tzinfo=UTC)
LONG = {"type": "long"}


ROUND_TRIPS: list[tuple[Any, Any]] = [
    ("null", None),
    ("boolean", True),
    ("int", -(2**31)),
    ("long", 2**63 - 1),
    ("float", 1.5),
    ("double", -0.1),
    ("double", math.inf),
    ("string", "Zürich ✈"),
    ("bytes", b"\x00\xff"),
    ({"type": "fixed", "name": "F", "size": 3}, b"abc"),
    (ENUM, "DL"),
    ({"type": "array", "items": "int"}, [1, 2, 3]),
    ({"type": "map", "values": ["null", "string"]}, {"a": None, "b": "x"}),
    (["null", "string"], None),
    (["null", "int", "string", "boolean"], "x"),
    (["null", "int", "string", "boolean"], True),
    (["int", "double"], 3),
    (["double", "int"], 3),
    (["null", record(("x", "int"))], {"x": 1}),
    (
        record(("a", record(("b", {"type": "array", "items": record(("c", "string"), name="C")}), name="B"))),
        {"a": {"b": [{"c": "x"}]}},
    ),
    (TREE, {"v": 1, "next": {"v": 2, "next": None}}),
    (logical("long", "timestamp-micros"), MOMENT),
    (logical("long", "timestamp-millis"), MOMENT.replace(microsecond=123000)),
    (logical("long", "timestamp-micros"), dt.datetime(1905, 2, 3, tzinfo=UTC)),
    (logical("long", "local-timestamp-micros"), MOMENT.replace(tzinfo=None)),
    (logical("long", "local-timestamp-millis"), dt.datetime(2013, 1, 1)),  # noqa: DTZ001
    (logical("int", "date"), dt.date(1969, 7, 20)),
    (logical("int", "time-millis"), dt.time(23, 59, 59, 999000)),
    (logical("long", "time-micros"), dt.time(23, 59, 59, 999999)),
    (logical("string", "uuid"), UUID("12345678-1234-5678-1234-567812345678")),
    (DECIMAL, Decimal("-1234.56")),
    (DECIMAL, Decimal("0.00")),
    (FIXED_DECIMAL, Decimal("9999.99")),
    (FIXED_DECIMAL, Decimal("-9999.99")),
    (["null", DECIMAL, logical("long", "timestamp-micros")], MOMENT),
    (["null", logical("int", "date"), logical("long", "timestamp-micros")], MOMENT),
]


@pytest.mark.parametrize("trust", TRUST)
@pytest.mark.parametrize(("schema", "datum"), ROUND_TRIPS, ids=lambda value: str(value)[:50])
def test_a_datum_comes_back_as_it_was_written(schema: Any, datum: Any, trust: Any) -> None:
    found = through(schema, datum, trust=trust)
    assert found == datum
    assert type(found) is type(datum)


@pytest.mark.parametrize(("schema", "datum"), ROUND_TRIPS, ids=lambda value: str(value)[:50])
def test_the_fast_way_and_the_precise_way_write_the_same_bytes(schema: Any, datum: Any) -> None:
    made = Schema(schema, id=7)
    assert Encoder(made).encode(datum) == prefix(7) + PreciseEncoder(made.type).encode(datum)


@pytest.mark.parametrize(
    ("schema", "datum", "said"),
    [
        ("int", True, "expected int, found bool True"),
        ("int", 1.0, "expected int, found float 1.0"),
        ("int", 2**31, "expected int, found int 2147483648"),
        ("long", 2**63, "expected long"),
        ("long", False, "expected long, found bool False"),
        ("null", 0, "expected null, found int 0"),
        ("boolean", 1, "expected boolean, found int 1"),
        ("boolean", None, "expected boolean, found null"),
        ("float", "1.5", 'expected float, found str "1.5"'),
        ("float", 1e300, "expected float"),
        ("float", 2**24 + 1, "expected float"),
        ("double", True, "expected double"),
        ("double", 2**60 + 1, "expected double"),
        ("string", 5, "expected string, found int 5"),
        ("string", b"x", "expected string"),
        ("string", "\ud800", "expected string"),
        ("bytes", "x", "expected bytes"),
        ({"type": "fixed", "name": "F", "size": 2}, b"abc", "expected 2 bytes"),
        (ENUM, "XX", 'expected one of UA, DL, found str "XX"'),
        (ENUM, 0, "expected one of UA, DL"),
        ({"type": "array", "items": "int"}, "12", "expected array"),
        ({"type": "array", "items": "int"}, {1, 2}, "expected array"),
        ({"type": "array", "items": "int"}, b"ab", "expected array"),
        ({"type": "array", "items": "int"}, [1, True], r"field \[1\]: expected int"),
        ({"type": "map", "values": "int"}, [], "expected map"),
        ({"type": "map", "values": "int"}, {1: 1}, "expected text as the map's key"),
        (["null", "float"], 1e300, "expected float or null"),
        (["null", {"type": "array", "items": "int"}], b"ab", "expected array or null"),
        (["null", "int"], "NA", 'expected int or null, found str "NA"'),
        (logical("long", "timestamp-micros"), MOMENT.replace(tzinfo=None), "a datetime with a time zone"),
        (logical("long", "timestamp-millis"), "2013-01-01T00:00:00Z", "expected timestamp-millis"),
        (logical("long", "timestamp-micros"), 2**62, "expected timestamp-micros"),
        (logical("long", "local-timestamp-micros"), MOMENT, "a datetime without a time zone"),
        (logical("int", "date"), MOMENT, "expected date"),
        (logical("int", "date"), "2013-01-01", "expected date"),
        (logical("int", "time-millis"), dt.time(1, tzinfo=UTC), "expected time-millis"),
        (logical("string", "uuid"), "zzz", "expected uuid"),
        (DECIMAL, Decimal("1.555"), "a decimal of 6 digits, 2 of them after the point"),
        (DECIMAL, Decimal(99999), "a decimal of 6 digits"),
        (DECIMAL, Decimal("NaN"), "a decimal of 6 digits"),
        (DECIMAL, 1.5, "a decimal of 6 digits"),
        (DECIMAL, b"ab", "a decimal of 6 digits"),
        (record(("x", "int")), {"x": 1, "y": 2}, "field y: is not in the schema test.R, found int 2"),
        (record(("x", "int")), {}, "field x: is missing and has no default"),
        (record(("x", ["null", "int"])), {}, "field x: is missing and has no default"),
        (record(("x", "int")), [("x", 1)], "expected the record test.R"),
        (["null", record(("x", "int"))], {"x": 1, "y": 2}, "field y: is not in the schema"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_would_be_lost_or_changed_is_refused_with_its_place(schema: Any, datum: Any, said: str) -> None:
    with pytest.raises(RejectedError, match=said) as refused:
        Encoder(Schema(schema, id=1)).encode(datum)
    assert refused.value.code == "record.schema_mismatch"


def test_the_error_names_the_path_of_a_nested_field() -> None:
    schema = record(
        ("legs", {"type": "array", "items": record(("delay", ["int", "null"]), name="flights.leg")}),
        name="flights.departed",
    )
    with pytest.raises(RejectedError) as refused:
        Encoder(Schema(schema, id=1)).encode({"legs": [{"delay": 1}, {"delay": "NA"}]})
    assert str(refused.value) == 'flights.departed: field legs[1].delay: expected int or null, found str "NA"'


def test_unknown_fields_are_left_out_where_that_was_asked_for() -> None:
    schema = Schema(record(("x", "int"), ("n", ["null", record(("y", "int"), name="N")])), id=1)
    value = Encoder(schema, extra="ignore").encode({"x": 1, "z": 5, "n": {"y": 2, "z": 3}})
    shelf = SchemaShelf(record(("x", "int"), ("n", ["null", record(("y", "int"), name="N")])))
    assert decoded(shelf, value) == {"x": 1, "n": {"y": 2}}


def test_missing_fields_get_their_defaults_in_the_types_of_the_schema() -> None:
    schema = record(
        ("i", "int", 3),
        ("n", ["null", "int"], None),
        ("s", ["string", "null"], "x"),
        ("b", "bytes", "ÿ"),
        ("d", DECIMAL, "\u0001"),
        ("t", logical("long", "timestamp-millis"), 0),
        ("f", "double", 2),
        ("a", {"type": "array", "items": "int"}, [1]),
        ("r", record(("q", "int", 7), name="Q"), {}),
    )
    assert through(schema, {}) == {
        "i": 3,
        "n": None,
        "s": "x",
        "b": b"\xff",
        "d": Decimal("0.01"),
        "t": dt.datetime(1970, 1, 1, tzinfo=UTC),
        "f": 2.0,
        "a": [1],
        "r": {"q": 7},
    }


def test_a_union_of_records_takes_the_one_that_fits() -> None:
    schema = [record(("a", "int"), name="A"), record(("b", "int"), ("c", "int", 1), name="B")]
    assert through(schema, {"b": 2}) == {"b": 2, "c": 1}
    with pytest.raises(RejectedError, match="matches none of"):
        through(schema, {"z": 2})


def test_exact_values_are_taken_in_other_forms() -> None:
    assert through("double", 3) == 3.0
    assert through(DECIMAL, 5) == Decimal(5)
    assert through(DECIMAL, Decimal("1.50000")) == Decimal("1.5")
    assert through(logical("long", "timestamp-millis"), MOMENT) == MOMENT.replace(microsecond=123000)
    assert through(logical("long", "timestamp-millis"), 5) == dt.datetime(1970, 1, 1, 0, 0, 0, 5000, tzinfo=UTC)
    assert through(logical("string", "uuid"), "12345678123456781234567812345678") == UUID(
        int=0x12345678123456781234567812345678
    )


@pytest.mark.parametrize("value", [None, b"", b"\x00\x00", b"\x01\x00\x00\x00\x01x", b"{json", b"\x00\xff\xff\xff\xff"])
def test_what_is_not_in_the_wire_format_is_undecodable(value: Any) -> None:
    with pytest.raises(RejectedError) as refused:
        Decoder(SchemaShelf("int")).decode(value)
    assert refused.value.code == "record.undecodable"


def test_an_unknown_id_is_an_unknown_schema_and_an_unreachable_registry_is_not() -> None:
    with pytest.raises(RejectedError) as refused:
        Decoder(SchemaShelf("int")).decode(frame(99, b"\x02"))
    assert refused.value.code == "record.unknown_schema"

    class Down(SchemaShelf):
        def by_id(self, schema_id: int) -> Schema:
            raise RetriableError("down")

    with pytest.raises(RetriableError):
        Decoder(Down()).decode(frame(1, b"\x02"))


def test_the_schema_source_is_asked_once_for_each_id() -> None:
    shelf = SchemaShelf("int")
    decoder = Decoder(shelf)
    assert [decoder.decode(frame(1, zigzag(number)))[1] for number in range(100)] == list(range(100))
    assert shelf.asked == 1


def test_frames_are_taken_apart_as_they_were_put_together() -> None:
    assert frame(258, b"x") == b"\x00\x00\x00\x01\x02x"
    assert unframe(frame(258, b"x")) == (258, b"x")
    assert schema_id(frame(7, b"")) == 7
    with pytest.raises(ValueError, match="schema id"):
        prefix(-1)


@pytest.mark.parametrize(
    ("schema", "body", "trust"),
    [
        pytest.param(schema, body, trust, id=f"{name}, {trust}")
        for name, schema, body, trusts in BROKEN
        for trust in trusts
    ],
)
def test_a_broken_datum_is_refused(schema: Any, body: bytes, trust: Any) -> None:
    with pytest.raises(RejectedError) as refused:
        decoded(SchemaShelf(schema), frame(1, body), trust=trust)
    assert refused.value.code == "record.undecodable"


def test_the_limits_of_a_decoder_hold() -> None:
    def refused(schema: Any, datum: Any, limits: Limits) -> str:
        with pytest.raises(RejectedError) as error:
            through(schema, datum, trust="external", limits=limits)
        return error.value.code

    many = {"type": "array", "items": "int"}
    assert refused("string", "x" * 100, Limits(string=99)) == "record.undecodable"
    assert refused("string", "x" * 100, Limits(size=99)) == "record.too_large"
    assert refused(many, [1] * 11, Limits(elements=10)) == "record.undecodable"
    assert refused({"type": "array", "items": many}, [[1]], Limits(depth=1)) == "record.undecodable"
    assert through(many, [1] * 10, trust="external", limits=Limits(elements=10)) == [1] * 10


def test_blocks_with_sizes_are_read() -> None:
    body = zigzag(-2) + zigzag(2) + zigzag(1) + zigzag(2) + zigzag(1) + zigzag(3) + zigzag(0)
    for trust in TRUST:
        assert decoded(SchemaShelf({"type": "array", "items": "int"}), frame(1, body), trust=trust) == [1, 2, 3]


def test_recursion_up_to_the_limit_is_read_and_written_and_beyond_it_is_neither() -> None:
    def chain(levels: int) -> dict[str, Any]:
        made: dict[str, Any] = {"v": 0, "next": None}
        for _ in range(levels - 1):
            made = {"v": 0, "next": made}
        return made

    assert through(TREE, chain(200)) == chain(200)
    for levels in (201, 3000):
        with pytest.raises(RejectedError, match="nested"):
            through(TREE, chain(levels))
