"""Readers and writers generated for a schema: they say what fastavro says, or leave the datum to it."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from fastavro import schemaless_reader
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from trunkline.core.errors import RejectedError
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.fast_read import compile_reader
from trunkline.registry.fast_write import compile_writer
from trunkline.registry.precise import PreciseEncoder
from trunkline.registry.schema import Schema
from trunkline.registry.wire import prefix

from .generated import pairs
from .sources import SchemaShelf, record, zigzag

CALM = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
HEAD = prefix(1)
ORDER = record(("id", "string"), ("amount", "double"), ("note", ["null", "string"]), ("count", "int"))


@st.composite
def records(draw: st.DrawFn) -> tuple[Schema, Any]:
    """A record schema of some fields, and a datum of it."""
    fields = draw(st.lists(pairs(depth=1), min_size=1, max_size=5))
    schema = Schema(record(*((f"f{index}", each) for index, (each, _) in enumerate(fields))), id=1)
    return schema, {f"f{index}": draw(values) for index, (_, values) in enumerate(fields)}


def by_fastavro(schema: Schema, value: bytes) -> Any:
    """What the library reads, with every byte consumed; None where it refuses."""
    body = BytesIO(value[len(HEAD) :])
    try:
        datum = schemaless_reader(body, schema.parsed)
    except Exception:  # noqa: BLE001 (whatever it raises is a refusal)
        return None
    return datum if body.tell() == len(value) - len(HEAD) else None


def read_by(reader: Any, value: bytes) -> Any:
    """What a generated reader reads; None where it leaves the value to the library."""
    try:
        return reader(value)
    except Exception:  # noqa: BLE001
        return None


@st.composite
def damaged(draw: st.DrawFn, value: bytes) -> bytes:
    """The value with some bytes changed, cut, put in, or none."""
    body = bytearray(value[len(HEAD) :])
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, max(len(body) - 1, 0)))
        change = draw(st.sampled_from(["set", "cut", "insert", "drop"]))
        if change == "cut":
            del body[place:]
        elif change == "insert":
            body[place:place] = draw(st.binary(min_size=1, max_size=11))
        elif body:
            body[place : place + 1] = draw(st.binary(min_size=1, max_size=1)) if change == "set" else b""
    return HEAD + bytes(body)


@CALM
@given(st.data())
def test_a_generated_reader_gives_what_fastavro_gives_or_leaves_it_to_fastavro(data: st.DataObject) -> None:
    schema, datum = data.draw(records())
    reader = compile_reader(schema.type)
    assume(reader is not None)
    value = data.draw(damaged(HEAD + PreciseEncoder(schema.type).encode(datum)))
    found = read_by(reader, value)
    assert found is None or repr(found) == repr(by_fastavro(schema, value))


@CALM
@given(st.data())
def test_a_reader_of_some_fields_gives_those_of_every_datum_that_the_whole_reader_takes(data: st.DataObject) -> None:
    schema, datum = data.draw(records())
    names = data.draw(st.sets(st.sampled_from(sorted(datum))))
    reader = compile_reader(schema.type, names)
    assume(reader is not None)
    value = data.draw(damaged(HEAD + PreciseEncoder(schema.type).encode(datum)))
    whole = by_fastavro(schema, value)
    found = read_by(reader, value)
    if found is not None:
        assert set(found) == names
        if whole is not None:
            assert repr(found) == repr({name: whole[name] for name in found})


@CALM
@given(st.data())
def test_a_generated_reader_takes_what_is_plainly_encoded(data: st.DataObject) -> None:
    schema, datum = data.draw(records())
    for wanted in (None, frozenset(datum), frozenset({"f0"})):
        reader = compile_reader(schema.type, wanted)
        assume(reader is not None)
        found = read_by(reader, HEAD + PreciseEncoder(schema.type).encode(datum))
        assert found == {name: value for name, value in datum.items() if wanted is None or name in wanted}


JUNK = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3) | st.binary(max_size=3)
)


@CALM
@given(st.data())
def test_a_generated_writer_writes_what_the_precise_encoder_writes_or_leaves_it_to_that(data: st.DataObject) -> None:
    schema, datum = data.draw(records())
    writer = compile_writer(schema.type, HEAD)
    assume(writer is not None)
    datum = {name: data.draw(JUNK) if data.draw(st.integers(0, 3)) == 0 else value for name, value in datum.items()}
    found = read_by(writer, datum)
    if found is not None:
        assert found == HEAD + PreciseEncoder(schema.type).encode(datum)


def test_a_plain_order_is_written_and_read_by_generated_code() -> None:
    schema = Schema(ORDER, id=1)
    reader, writer = compile_reader(schema.type), compile_writer(schema.type, HEAD)
    assert reader is not None
    assert writer is not None
    for note in (None, "", "é" * 70, "x" * 9000):
        datum = {"id": "o1", "amount": 1.5, "note": note, "count": -70_000}
        assert reader(writer(datum)) == datum
        assert writer(datum) == Encoder(schema).encode(datum)


@pytest.mark.parametrize(
    "datum",
    [
        pytest.param({"id": "o1", "amount": 1.5, "note": None}, id="a missing field"),
        pytest.param({"id": "o1", "amount": 1.5, "note": None, "count": 1, "more": 1}, id="a field too many"),
        pytest.param({"id": "o1", "amount": 1, "note": None, "count": 1}, id="an int for a double"),
        pytest.param({"id": b"o1", "amount": 1.5, "note": None, "count": 1}, id="bytes for a string"),
        pytest.param({"id": "o1", "amount": 1.5, "note": None, "count": True}, id="a truth value for an int"),
        pytest.param({"id": "o1", "amount": 1.5, "note": None, "count": 2**31}, id="an int of 33 bits"),
        pytest.param({"id": "\ud800", "amount": 1.5, "note": None, "count": 1}, id="half a surrogate pair"),
    ],
)
def test_what_is_not_plainly_of_the_schema_is_left_to_the_long_way(datum: Any) -> None:
    assert read_by(compile_writer(Schema(ORDER).type, HEAD), datum) is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(zigzag(2**62) + b"abc", id="a length far beyond the end"),
        pytest.param(zigzag(-3) + b"abc" + bytes(8), id="a negative length"),
        pytest.param(zigzag(1) + b"a" + bytes(8) + zigzag(-1) + zigzag(0), id="a negative branch"),
        pytest.param(zigzag(1) + b"a" + bytes(8) + zigzag(5) + zigzag(0), id="an unknown branch"),
        pytest.param(zigzag(1) + b"a" + bytes(7), id="an end inside a number"),
        pytest.param(zigzag(1) + b"a" + bytes(8) + zigzag(0) + b"\x80" * 11, id="a number without end"),
        pytest.param(zigzag(1) + b"a" + bytes(8) + zigzag(0) + zigzag(1) + b"\x00", id="a byte after the end"),
    ],
)
@pytest.mark.parametrize("wanted", [None, frozenset({"count"}), frozenset()], ids=["all", "count", "none"])
def test_damage_to_the_structure_is_seen_also_in_fields_that_are_skipped(
    body: bytes, wanted: frozenset[str] | None
) -> None:
    assert read_by(compile_reader(Schema(ORDER).type, wanted), HEAD + body) is None


def test_what_may_be_hostile_or_comes_in_another_schema_has_no_plain_reader() -> None:
    shelf = SchemaShelf(ORDER)
    value = Encoder(shelf.schemas[1]).encode({"id": "o1", "amount": 1.5, "note": None, "count": 1})
    longer = Schema(record(*((each["name"], each["type"]) for each in ORDER["fields"]), ("more", "int", 1)))
    assert Decoder(shelf, trust="external").plain_reader(value) is None
    assert Decoder(shelf, reader=longer).plain_reader(value) is None
    assert Decoder(shelf).plain_reader(value, {"count"})(value) == {"count": 1}  # type: ignore[misc]


def test_a_negative_index_is_refused_also_where_another_schema_is_read_with() -> None:
    shelf = SchemaShelf(record(("a", ["null", "int"])))
    longer = Schema(record(("a", ["null", "int"]), ("more", "int", 1)))
    decoder = Decoder(shelf, reader=longer)
    assert decoder.decode(HEAD + zigzag(1) + zigzag(3))[1] == {"a": 3, "more": 1}
    with pytest.raises(RejectedError, match="branch -1 of a union with 2"):
        decoder.decode(HEAD + zigzag(-1) + zigzag(3))


@pytest.mark.parametrize("kind", ["record", "array", "map"])
def test_a_schema_of_more_levels_than_python_compiles_is_read_by_the_library(kind: str) -> None:
    schema: Any = ["null", "int"]
    datum: Any = 7
    for level in range(42 if kind == "record" else 8):
        inner = record(("a", schema), name=f"R{level}")
        schema = ["null", inner if kind == "record" else {"type": kind, "items": inner, "values": inner}]
        datum = {"record": {"a": datum}, "array": [{"a": datum}], "map": {"k": {"a": datum}}}[kind]
    shelf = SchemaShelf(record(("a", schema)))
    assert compile_reader(shelf.schemas[1].type) is None
    decoder = Decoder(shelf)
    assert decoder.decode(Encoder(shelf.schemas[1]).encode({"a": datum}))[1] == {"a": datum}
