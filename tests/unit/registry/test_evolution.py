"""Data read with another schema than they were written with, and which schemas promise that it works."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from trunkline.core.errors import RejectedError
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.compatibility import breaks, incompatibilities
from trunkline.registry.model import parse_type
from trunkline.registry.schema import Schema

from .sources import SchemaShelf, record, through


def enum(*symbols: str, name: str = "E", **more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": name, "symbols": list(symbols), **more}


def fixed(size: int, name: str = "F") -> dict[str, Any]:
    return {"type": "fixed", "name": name, "size": size}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def decimal(precision: int, scale: int) -> dict[str, Any]:
    return {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}


def tree(kind: str) -> dict[str, Any]:
    return record(("v", kind), ("n", ["null", "test.R"]))


def deep(kind: str) -> dict[str, Any]:
    return record(("a", array(record(("b", kind), name="B"))))


TREE_DATUM = {"v": 1, "n": {"v": 2, "n": None}}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}

READABLE: list[tuple[str, Any, Any, Any, Any]] = [
    ("int as long", "int", "long", 5, 5),
    ("int as float", "int", "float", 5, 5.0),
    ("int as double", "int", "double", 5, 5.0),
    ("long as float", "long", "float", 5, 5.0),
    ("long as double", "long", "double", 5, 5.0),
    ("float as double", "float", "double", 1.5, 1.5),
    ("string as bytes", "string", "bytes", "ü", "ü".encode()),
    ("bytes as string", "bytes", "string", "ü".encode(), "ü"),
    ("items promoted", array("int"), array("double"), [1], [1.0]),
    ("values promoted", {"type": "map", "values": "int"}, {"type": "map", "values": "long"}, {"a": 1}, {"a": 1}),
    ("into a union", "int", ["null", "int"], 5, 5),
    ("into a union by promotion", "int", ["null", "double"], 5, 5.0),
    ("out of a union", ["null", "int"], "int", 5, 5),
    ("union to union", ["int", "string"], ["null", "string", "long"], "x", "x"),
    ("union of records", ["null", record(("x", "int"))], ["null", record(("y", "int", 2), ("x", "long"))], {"x": 1}, {"y": 2, "x": 1}),
    ("field dropped", record(("x", "int"), ("y", "int")), record(("y", "int")), {"x": 1, "y": 2}, {"y": 2}),
    ("field added", record(("x", "int")), record(("x", "int"), ("d", "string", "?")), {"x": 1}, {"x": 1, "d": "?"}),
    ("bytes added", record(), record(("b", "bytes", "ÿ")), {}, {"b": b"\xff"}),
    ("decimal added", record(), record(("b", decimal(4, 2), "\u0001")), {}, {"b": Decimal("0.01")}),
    ("time added", record(), record(("t", MILLIS, 0)), {}, {"t": dt.datetime(1970, 1, 1, tzinfo=dt.UTC)}),
    ("field renamed", record(("x", "int")), record({"name": "z", "type": "long", "aliases": ["x"]}), {"x": 1}, {"z": 1}),
    ("record renamed", record(("x", "int"), name="a.Old"), record(("x", "int"), name="b.New") | {"aliases": ["a.Old"]}, {"x": 1}, {"x": 1}),
    ("record in another namespace", record(("x", "int"), name="a.R"), record(("x", "int"), name="b.R"), {"x": 1}, {"x": 1}),
    ("symbol unknown", enum("A", "B"), enum("A", "Z", default="Z"), "B", "Z"),
    ("symbols reordered", enum("A", "B"), enum("B", "A"), "B", "B"),
    ("fixed", fixed(2), fixed(2, "x.F"), b"ab", b"ab"),
    ("recursion", tree("int"), tree("long"), TREE_DATUM, TREE_DATUM),
    ("long as a time", "long", MICROS, 5, dt.datetime(1970, 1, 1, 0, 0, 0, 5, tzinfo=dt.UTC)),
    ("time as a long", MICROS, "long", dt.datetime(1970, 1, 1, tzinfo=dt.UTC), 0),
    ("more digits", decimal(4, 2), decimal(8, 2), Decimal("1.50"), Decimal("1.50")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("writer", "reader", "datum", "expected"), [pytest.param(*each[1:], id=each[0]) for each in READABLE]
)
def test_a_compatible_reader_gets_the_datum_in_its_own_form(
    writer: Any, reader: Any, datum: Any, expected: Any
) -> None:
    assert incompatibilities(parse_type(reader), parse_type(writer)) == [] or isinstance(writer, list)
    found = through(writer, datum, reader)
    assert found == expected
    assert type(found) is type(expected)


UNREADABLE: list[tuple[str, Any, Any, str, str]] = [
    ("long as int", "long", "int", "TYPE_MISMATCH", "/"),
    ("double as float", "double", "float", "TYPE_MISMATCH", "/"),
    ("string as int", "string", "int", "TYPE_MISMATCH", "/"),
    ("boolean as int", "boolean", "int", "TYPE_MISMATCH", "/"),
    ("int as string", "int", "string", "TYPE_MISMATCH", "/"),
    ("array as map", array("int"), {"type": "map", "values": "int"}, "TYPE_MISMATCH", "/"),
    ("items", array("string"), array("int"), "TYPE_MISMATCH", "/items"),
    ("values", {"type": "map", "values": "string"}, {"type": "map", "values": "int"}, "TYPE_MISMATCH", "/values"),
    ("field", record(("x", "string")), record(("x", "int")), "TYPE_MISMATCH", "/fields/0/type"),
    ("field without default", record(), record(("a", "int", 1), ("x", "int")), "READER_FIELD_MISSING_DEFAULT_VALUE", "/fields/1"),
    ("record's name", record(name="a.Old"), record(name="a.New"), "NAME_MISMATCH", "/name"),
    ("enum's name", enum("A"), enum("A", name="G"), "NAME_MISMATCH", "/name"),
    ("symbols", enum("A", "B"), enum("A"), "MISSING_ENUM_SYMBOLS", "/symbols"),
    ("fixed's size", fixed(2), fixed(3), "FIXED_SIZE_MISMATCH", "/size"),
    ("branch", ["int", "string"], ["int"], "MISSING_UNION_BRANCH", "/1"),
    ("no branch", "string", ["null", "int"], "MISSING_UNION_BRANCH", "/"),
    ("out of a union", ["null", "int"], "int", "TYPE_MISMATCH", "/"),
    ("deep", deep("string"), deep("int"), "TYPE_MISMATCH", "/fields/0/type/items/fields/0/type"),
    ("decimal's scale", decimal(6, 2), decimal(6, 3), "TYPE_MISMATCH", "/"),
    ("decimal's digits", decimal(6, 2), decimal(5, 2), "TYPE_MISMATCH", "/"),
    ("time's unit", MILLIS, MICROS, "TYPE_MISMATCH", "/"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("writer", "reader", "kind", "path"), [pytest.param(*each[1:], id=each[0]) for each in UNREADABLE]
)
def test_an_incompatible_reader_is_told_kind_and_path(writer: Any, reader: Any, kind: str, path: str) -> None:
    found = incompatibilities(parse_type(reader), parse_type(writer))
    assert [(each.kind, each.path) for each in found] == [(kind, path)]


@pytest.mark.parametrize(
    ("writer", "reader", "datum"),
    [
        ("string", "int", "x"),
        (["null", "int"], "int", None),
        (["int", "string"], ["int"], "x"),
        (enum("A", "B"), enum("A"), "B"),
        (record(), record(("x", "int")), {}),
        (fixed(2), fixed(3), b"ab"),
        ("bytes", "string", b"\xff"),
        (decimal(6, 2), decimal(6, 3), Decimal("1.00")),
        ("long", MICROS, 2**62),
    ],
)
def test_a_datum_that_the_reader_can_not_take_is_rejected(writer: Any, reader: Any, datum: Any) -> None:
    with pytest.raises(RejectedError) as refused:
        through(writer, datum, reader)
    assert refused.value.code == "record.schema_mismatch"


def test_a_branch_that_the_reader_lacks_matters_only_to_data_of_that_branch() -> None:
    assert through(["int", "string"], 5, ["null", "long"]) == 5


def test_data_of_several_writers_come_to_one_reader() -> None:
    shelf = SchemaShelf(record(("x", "int")), record(("x", "long"), ("y", "string")))
    decoder = Decoder(shelf, reader=Schema(record(("x", "double"), ("y", "string", "-"))))
    old = Encoder(shelf.schemas[1]).encode({"x": 1})
    new = Encoder(shelf.schemas[2]).encode({"x": 2, "y": "new"})
    assert [decoder.decode(value)[1] for value in (old, new, old)] == [
        {"x": 1.0, "y": "-"},
        {"x": 2.0, "y": "new"},
        {"x": 1.0, "y": "-"},
    ]


def test_a_default_is_a_fresh_value_for_every_event() -> None:
    shelf = SchemaShelf(record())
    decoder = Decoder(shelf, reader=Schema(record(("tags", array("string"), []))))
    value = Encoder(shelf.schemas[1]).encode({})
    first = decoder.decode(value)[1]
    first["tags"].append("changed by a step")
    assert decoder.decode(value)[1] == {"tags": []}


OPTIONAL = record(("x", "int"), ("y", ["null", "int"], None))
PLAIN = record(("x", "int"))
REQUIRED = record(("x", "int"), ("z", "int"))


@pytest.mark.parametrize(
    ("level", "old", "new", "fine"),
    [
        ("NONE", "int", "string", True),
        ("BACKWARD", PLAIN, OPTIONAL, True),
        ("BACKWARD", PLAIN, REQUIRED, False),
        ("BACKWARD", REQUIRED, PLAIN, True),
        ("FORWARD", PLAIN, REQUIRED, True),
        ("FORWARD", REQUIRED, PLAIN, False),
        ("FULL", PLAIN, OPTIONAL, True),
        ("FULL", PLAIN, REQUIRED, False),
        ("FULL", REQUIRED, PLAIN, False),
        ("FULL_TRANSITIVE", "int", "long", False),
        ("BACKWARD_TRANSITIVE", "int", "long", True),
        ("FORWARD_TRANSITIVE", "int", "long", False),
    ],
)
def test_each_compatibility_level_asks_its_own_question(level: Any, old: Any, new: Any, fine: bool) -> None:
    assert (breaks(parse_type(new), parse_type(old), level) == []) is fine
