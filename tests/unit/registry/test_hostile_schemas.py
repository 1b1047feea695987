"""Schemas that are small and spread far, on the side of those who read and write with them: nothing hangs, and honest data pass."""

from __future__ import annotations

import contextlib
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from trunkline.core.avro.assignment import check_assignable
from trunkline.core.avro.records import RecordSchema
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.extent import Extents
from trunkline.registry.fast_check import compile_check
from trunkline.registry.fast_read import compile_reader
from trunkline.registry.fast_write import compile_writer
from trunkline.registry.guard import Guard, Limits, is_zero_width, needs_guard
from trunkline.registry.model import parse_type
from trunkline.registry.precise import PreciseEncoder
from trunkline.registry.resolution import Resolution
from trunkline.registry.schema import WRAPPED, Schema
from trunkline.registry.steps import Steps

from .served import apart
from .sources import SchemaShelf, record, through, zigzag


def doubling(levels: int, leaf: Any) -> Any:
    """Records of which each has the one before twice, defined at their first use: 2 ** levels leaves in a few lines."""
    made: Any = record(("x", leaf), name="R0")
    for level in range(levels):
        made = record(("a", made), ("b", f"R{level}"), name=f"R{level + 1}")
    return made


def nullable(levels: int, inner: Any = "int") -> Any:
    for level in range(levels):
        inner = record(("f", ["null", inner]), name=f"N{level}")
    return inner


def in_wire_format(body: bytes) -> bytes:
    return b"\0\0\0\0\x01" + body


# --- code written for a schema ---


def test_no_code_is_written_for_what_spreads_too_far() -> None:
    node = parse_type(doubling(45, "int"))
    assert Extents().of(node).values > 2**45
    assert compile_reader(node) is None
    assert compile_reader(node, ["a"]) is None
    assert compile_writer(node, b"") is None
    assert compile_check(node) is not None  # a function for each record, and no more


def test_code_is_written_for_a_record_that_is_used_a_few_times() -> None:
    address = record(("street", "string"), ("city", "string"), name="Address")
    node = parse_type(record(("home", address), ("work", "Address"), ("other", "Address")))
    assert compile_reader(node) is not None
    assert compile_writer(node, b"") is not None


@pytest.mark.parametrize(
    "source",
    [
        nullable(45),
        record(("u", [{"type": "fixed", "name": f"F{index}", "size": 1} for index in range(3000)])),
        record(*((f"f{index}", ["null", *(record(name=f"R{index}_{n}") for n in range(60))]) for index in range(3))),
        record(("e", {"type": "enum", "name": "E", "symbols": [f"S{n}" for n in range(50_000)]})),
    ],
    ids=["nullable records in each other", "a union of 3,000", "unions of 60", "50,000 symbols"],
)
def test_wide_and_deep_schemas_are_read_and_written(source: Any) -> None:
    name = source["fields"][0]["name"]
    datum = {
        "f": {"f": None},
        "u": {"u": b"x"},
        "f0": {f"f{index}": None for index in range(3)},
        "e": {"e": "S49999"},
    }[name]
    assert through(source, datum) == datum


# --- data of few bytes ---


@pytest.mark.parametrize(
    "source",
    [
        doubling(45, "null"),
        {"type": "array", "items": record(*((f"n{index}", "null") for index in range(200)), ("x", "int"))},
        {"type": "map", "values": doubling(20, "null")},
        {"type": "array", "items": doubling(45, {"type": "fixed", "name": "F", "size": 0})},
    ],
    ids=["2 ** 45 nulls", "items of 200 nulls", "values of a million nulls", "items without bytes"],
)
def test_data_that_cost_more_than_their_bytes_are_guarded(source: Any) -> None:
    assert needs_guard(parse_type(source))
    with pytest.raises(RejectedError, match=r"take no bytes|elements"):
        Decoder(SchemaShelf(source)).decode(in_wire_format(zigzag(900_000) + bytes(900_000)))
    with pytest.raises(RejectedError, match=r"take no bytes|elements|after the value|it ends"):
        Decoder(SchemaShelf(source)).decode(in_wire_format(b""))


def test_an_honest_schema_with_nullable_fields_needs_no_guard() -> None:
    item = record(*((f"f{index}", ["null", "string"]) for index in range(60)))
    assert not needs_guard(parse_type({"type": "array", "items": item}))
    assert not needs_guard(parse_type(record(("nothing", "null"), ("x", "int"))))


def test_a_datum_may_have_as_many_values_without_bytes_as_elements() -> None:
    node = parse_type(doubling(6, "null"))
    Guard(node, Limits(elements=64)).check(b"")
    with pytest.raises(RejectedError, match="more than 63 values that take no bytes"):
        Guard(node, Limits(elements=63)).check(b"")


def test_whether_a_type_takes_bytes_is_found_in_a_way_through_its_types() -> None:
    assert is_zero_width(parse_type(doubling(45, "null")))
    assert not is_zero_width(parse_type(doubling(45, "int")))
    assert is_zero_width(parse_type(record(("r", "test.R"), ("n", "null"))))


@pytest.mark.parametrize(
    ("source", "datum", "reader"),
    [
        (["null", record(("x", "int"), name="A"), record(("y", "int"), name="B")], {"y": 5}, None),
        (["null", "int"], None, ["null", "long"]),
        ([record(("x", "int"), name="A"), "string"], {"x": 5}, [record(("x", "long"), name="A"), "string"]),
        ({"type": "array", "items": record(("x", "int"), name="A")}, [{"x": 5}], None),
        (
            {"type": "map", "values": ["int", "string"]},
            {"a": 5, "b": "c"},
            {"type": "map", "values": ["long", "string"]},
        ),
    ],
)
def test_what_is_no_record_is_parsed_once_and_not_for_every_datum(source: Any, datum: Any, reader: Any) -> None:
    shelf = SchemaShelf(source)
    encoder = Encoder(shelf.schemas[1])
    decoder = Decoder(shelf, reader=Schema(reader) if reader is not None else None)
    assert isinstance(shelf.schemas[1].parsed, dict)
    assert shelf.schemas[1].parsed["__fastavro_parsed"], "the library would parse it again"
    value = encoder.encode(datum)
    assert value[5:] == PreciseEncoder(shelf.schemas[1].type).encode(datum)
    assert decoder.decode(value)[1] == datum
    with pytest.raises(RejectedError, match="after the"):
        decoder.decode(value + b"\0")


# --- encoding ---


def test_a_value_is_tried_once_for_each_branch_that_it_might_be(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["A", "B", "C", "D"]
    branches = [
        record(("f", ["null", *names[:index], f"{name}"]), ("z", "int"), name=name) for index, name in enumerate(names)
    ]
    schema = Schema(record(("u", branches)))
    datum: Any = {"f": None, "z": "bad"}
    for _ in range(40):
        datum = {"f": datum, "z": 1}
    calls = 0
    write = PreciseEncoder._write

    def counted(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        write(*arguments)

    monkeypatch.setattr(PreciseEncoder, "_write", counted)
    with pytest.raises(RejectedError, match="matches none of"):
        PreciseEncoder(schema.type).encode({"u": datum})
    assert calls < 60 * 41


def test_a_value_that_fits_the_last_branch_at_each_level_is_written() -> None:
    names = ["A", "B", "C"]
    branches = [
        record(("f", ["null", *names[:index], name]), ("z", "int" if name == "C" else "string"), name=name)
        for index, name in enumerate(names)
    ]
    datum: Any = {"f": None, "z": 1}
    for _ in range(30):
        datum = {"f": datum, "z": 1}
    schema = Schema(record(("u", branches)), id=1)
    value = Encoder(schema).encode({"u": datum})
    shelf = SchemaShelf(schema.json)
    assert Decoder(shelf).decode(value)[1] == {"u": datum}


def test_what_fits_none_of_many_branches_is_told_in_few_words() -> None:
    schema = Schema(record(("u", [record(("x", "int"), name=f"Rec{index}") for index in range(500)])), id=1)
    with pytest.raises(RejectedError, match=r"expected the record test\.Rec0 or the record test\.Rec1") as refused:
        Encoder(schema).encode({"u": 5})
    assert len(refused.value.message) < 400


# --- resolution ---


def test_a_union_of_many_records_is_brought_to_another_of_their_names() -> None:
    def union(space: str, kind: str) -> list[Any]:
        return [record(("x", kind), name=f"{space}.Rec{index}") for index in range(500)]

    steps = Steps()
    resolution = Resolution(Schema(union("a", "int")), Schema(union("b", "long")), steps=steps)
    assert steps.taken < 20 * 500
    assert resolution.convert({WRAPPED: ("a.Rec499", {"x": 5})}) == {"x": 5}


def test_two_schemas_that_cost_too_much_together_are_refused_as_a_record() -> None:
    def same(space: str) -> list[Any]:
        return [record((f"f{index}", "int"), name=f"{space}{index}.R") for index in range(400)]

    with pytest.raises(RejectedError, match="more than 100000 steps") as refused:
        Resolution(Schema(same("a")), Schema(same("b")), steps=Steps(100_000))
    assert refused.value.code == "record.schema_mismatch"


def test_each_datum_has_defaults_of_its_own() -> None:
    reader = Schema(record(("xs", {"type": "array", "items": "int"}, [1]), ("m", {"type": "map", "values": "int"}, {})))
    convert = Resolution(Schema(record()), reader).convert
    first = convert({})
    first["xs"].append(2)
    first["m"]["a"] = 1
    assert convert({}) == {"xs": [1], "m": {}}


def test_a_decimal_that_nobody_can_hold_is_read_as_its_bytes() -> None:
    schema = Schema({"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 10**9}, strict=False)
    assert schema.type.logical is None
    shelf = SchemaShelf()
    shelf.schemas[1] = schema.with_id(1)
    assert Decoder(shelf).decode(in_wire_format(b"\x02\x05"))[1] == b"\x05"


def test_a_default_that_python_knows_no_day_for_is_refused_as_a_record() -> None:
    day = {"type": "int", "logicalType": "date"}
    with pytest.raises(RejectedError) as refused:
        PreciseEncoder(parse_type(record(("d", day, 2**31 - 1)))).encode({})
    assert refused.value.code == "record.schema_mismatch"


# --- references ---


def put(url: str, subject: str, source: Any, below: list[int]) -> int:
    """Registers a schema with references, which our own client never sends; its id."""
    place = urlsplit(url)
    references = [{"name": f"R{number}", "subject": f"s{number}", "version": 1} for number in below]
    body = json.dumps({"schema": json.dumps(source), "references": references})
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80)
    with contextlib.closing(connection):
        path = f"{place.path}/subjects/{subject}/versions"
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        return int(json.loads(connection.getresponse().read())["id"])


async def test_references_that_meet_again_are_asked_for_once(registry: Any, client: RegistryClient) -> None:
    levels = 25
    newest = await apart(put, registry.url, "s0", record(("x", "int"), name="R0"), [])
    for level in range(1, levels):
        below = [number for number in (level - 1, level - 2) if number >= 0]
        source = record(*((f"f{number}", f"R{number}") for number in below), name=f"R{level}")
        newest = await apart(put, registry.url, f"s{level}", source, below)
    before = registry.requests
    schema = await apart(client.by_id, newest)
    assert schema.name == f"R{levels - 1}"
    assert registry.requests - before == levels


# --- steps ---


def test_records_that_meet_again_are_checked_once_for_a_target() -> None:
    def wide(levels: int, leaf: str) -> Any:
        made: Any = record(("x", leaf), name="W0")
        for level in range(levels):
            fields = [("f0", made), *((f"f{number}", f"W{level}") for number in range(1, 10))]
            made = record(*fields, name=f"W{level + 1}")
        return record(("top", made), name="Top")

    check_assignable(wide(12, "int"), wide(12, "long"), "here")
    with pytest.raises(ConfigurationError, match="wants string"):
        check_assignable(wide(12, "int"), wide(12, "string"), "here")


def test_a_record_is_taken_apart_without_a_copy_for_each_level() -> None:
    inner: Any = record(*((f"f{index}", "int") for index in range(2000)), name="I")
    for level in range(60):
        inner = record(("f", inner), name=f"L{level}")
    schema = RecordSchema(inner, "here")
    assert schema.json()["name"] == "L59"
    assert len(schema.named) == 61
