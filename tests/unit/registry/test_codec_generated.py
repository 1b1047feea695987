"""The codec on schemas, data and damage that nobody thought of."""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.core.errors import RejectedError
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.precise import PreciseEncoder
from trunkline.registry.schema import Schema
from trunkline.registry.wire import prefix

from .damage import busy_datum, busy_schema, mutated
from .generated import pairs
from .sources import SchemaShelf, record

CALM = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@CALM
@given(st.data())
def test_data_of_any_schema_come_back_as_they_were_written(data: st.DataObject) -> None:
    source, values = data.draw(pairs())
    datum = data.draw(values)
    shelf = SchemaShelf(source)
    schema = shelf.schemas[1]
    value = Encoder(schema).encode(datum)
    assert value == prefix(1) + PreciseEncoder(schema.type).encode(datum)
    for trust in ("internal", "external"):
        assert Decoder(shelf, trust=trust).decode(value) == (schema, datum)  # type: ignore[arg-type]


@CALM
@given(st.data())
def test_reading_with_a_longer_schema_changes_nothing_but_adds_the_default(data: st.DataObject) -> None:
    source, values = data.draw(pairs())
    datum = data.draw(values)
    shelf = SchemaShelf(record(("kept", source), ("dropped", "string")))
    value = Encoder(shelf.schemas[1]).encode({"kept": datum, "dropped": "x"})
    reader = Schema(record(("added", "int", 7), ("kept", source)))
    assert Decoder(shelf, reader=reader).decode(value)[1] == {"added": 7, "kept": datum}


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=4)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@CALM
@given(st.data())
def test_whatever_is_encoded_comes_back_and_all_else_is_rejected(data: st.DataObject) -> None:
    source, values = data.draw(pairs(depth=2))
    datum = data.draw(values | JUNK)
    shelf = SchemaShelf(source)
    try:
        value = Encoder(shelf.schemas[1]).encode(datum)
    except RejectedError as refused:
        assert refused.code == "record.schema_mismatch"  # noqa: PT017 (either outcome is right)
        return
    found = Decoder(shelf, trust="external").decode(value)[1]
    # The datum read may be of a more exact type than the one written; written again it gives the same bytes.
    assert Encoder(shelf.schemas[1]).encode(found) == value


def test_twenty_thousand_mutated_data_are_each_decoded_or_rejected() -> None:
    shelf, datum = SchemaShelf(busy_schema()), busy_datum()
    good = Encoder(shelf.schemas[1]).encode(datum)
    decoders = [Decoder(shelf), Decoder(shelf, trust="external")]
    chance = random.Random(20)
    decoded = rejected = 0
    for number in range(20_000):
        try:
            _, found = decoders[number % 2].decode(mutated(chance, good))
        except RejectedError as refused:
            assert refused.code == "record.undecodable"  # noqa: PT017 (either outcome is right)
            rejected += 1
        else:
            decoded += 1
            assert set(found) == set(datum)
    assert decoded + rejected == 20_000
    assert decoded > 500
    assert rejected > 500
