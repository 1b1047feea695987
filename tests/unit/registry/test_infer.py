"""A schema proposed from samples takes every sample."""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import json
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from trunkline.core.errors import ConfigurationError
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.conform import conform
from trunkline.registry.contracts import load_folder, shipped_schema, shipped_schemas
from trunkline.registry.infer import infer_schema
from trunkline.registry.model import SchemaError, parse_type
from trunkline.registry.schema import Schema

from .sources import SchemaShelf, record

WEBHOOKS = Path(__file__).parents[4] / "shared" / "data" / "github-webhooks.jsonl.gz"


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


def test_each_kind_of_value_gets_its_type() -> None:
    schema = infer_schema(
        [{"b": True, "i": 1, "d": 1.5, "s": "x", "a": [1], "r": {"x": 1}, "n": None, "e": []}], "test.R"
    )
    assert fields(schema) == {
        "b": "boolean",
        "i": "long",
        "d": "double",
        "s": "string",
        "a": {"type": "array", "items": "long"},
        "r": {"type": "record", "name": "test.R_r", "fields": [{"name": "x", "type": "long"}]},
        "n": ["null", "string"],
        "e": {"type": "array", "items": "string"},
    }
    Schema(schema)


def test_what_some_sample_lacks_or_has_as_null_is_optional() -> None:
    schema = infer_schema([{"a": 1, "b": None}, {"b": "x"}], "R")
    assert schema["fields"] == [
        {"name": "a", "type": ["null", "long"], "default": None},
        {"name": "b", "type": ["null", "string"], "default": None},
    ]


def test_values_of_several_kinds_make_a_union_and_numbers_widen() -> None:
    schema = infer_schema([{"m": 1, "n": 1, "o": 1}, {"m": 1.5, "n": "x", "o": {"y": [2]}}], "R")
    assert fields(schema)["m"] == "double"
    assert fields(schema)["n"] == ["long", "string"]
    assert fields(schema)["o"][0] == "long"
    Schema(schema)


def test_times_are_recognised_where_that_was_asked_for() -> None:
    samples = [
        {"t": "2021-08-19T12:16:32.000-04:00", "u": "2021-08-19T12:16:32Z"},
        {"t": "2021-08-20T00:00:00Z", "u": "later"},
    ]
    assert fields(infer_schema(samples, "R")) == {"t": "string", "u": "string"}
    schema = infer_schema(samples, "R", timestamps=True)
    assert fields(schema) == {"t": {"type": "long", "logicalType": "timestamp-micros"}, "u": "string"}
    mixed = infer_schema([{"t": 1629389792}, {"t": "2021-08-20T00:00:00Z"}], "R", timestamps=True)
    assert fields(mixed) == {"t": ["long", "string"]}
    assert conform(parse_type(schema), samples[0])["t"] == dt.datetime(2021, 8, 19, 16, 16, 32, tzinfo=dt.UTC)


def test_a_key_that_is_no_name_gets_one_and_is_found_by_its_own() -> None:
    sample = {"+1": 1, "a-b": "x", "a_b": "y", "plain": 0, "more": 1, "url": "z"}
    schema = infer_schema([sample], "R")
    assert list(fields(schema)) == ["_1", "a_b_2", "a_b", "plain", "more", "url"]
    assert conform(parse_type(schema), sample) == {"_1": 1, "a_b_2": "x", "a_b": "y", "plain": 0, "more": 1, "url": "z"}


def test_an_object_with_keys_that_are_data_becomes_a_map() -> None:
    schema = infer_schema([{"sizes": {"10.0.0.1": 1, "10.0.0.2": 2}, "wide": {f"k{n}": "x"}} for n in range(100)], "R")
    assert fields(schema) == {"sizes": {"type": "map", "values": "long"}, "wide": {"type": "map", "values": "string"}}


def test_rows_of_text_get_numbers_and_nulls() -> None:
    rows = list(csv.DictReader(["id,delay,code,flag,share", "1,NA,007,true,0.5", "2,-3,12,false,2"]))
    schema = infer_schema(rows, "R", text=True)
    assert fields(schema)["delay"] == ["null", "long"]
    assert fields(schema)["flag"] == "boolean"
    assert fields(schema)["share"] == "double"
    assert "string" in str(fields(schema)["code"])
    assert [conform(parse_type(schema), row, text=True)["delay"] for row in rows] == [None, -3]


def test_samples_that_no_schema_fits_are_refused() -> None:
    for samples in ([], [5], [{"x": 2**64}], [{"x": object()}]):
        with pytest.raises(ConfigurationError):
            infer_schema(samples, "R")  # type: ignore[arg-type]


def test_json_becomes_what_the_schema_means() -> None:
    schema = parse_type(
        record(
            ("t", ["null", {"type": "long", "logicalType": "timestamp-millis"}]),
            ("d", {"type": "int", "logicalType": "date"}),
            ("m", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
            ("u", {"type": "string", "logicalType": "uuid"}),
            ("b", "bytes"),
            ("i", "int"),
        )
    )
    text = {
        "t": "2013-01-01T10:00:00Z",
        "d": "2013-01-01",
        "m": 12.34,
        "u": "12345678-1234-5678-1234-567812345678",
        "b": "AP8=",
        "i": 3.0,
    }
    assert conform(schema, text) == {
        "t": dt.datetime(2013, 1, 1, 10, tzinfo=dt.UTC),
        "d": dt.date(2013, 1, 1),
        "m": Decimal("12.34"),
        "u": UUID("12345678-1234-5678-1234-567812345678"),
        "b": b"\x00\xff",
        "i": 3,
    }
    broken = {"t": "soon", "d": "x", "m": "y", "u": "z", "b": "?", "i": "NA", "extra": 1}
    assert conform(schema, broken) == broken


@pytest.mark.skipif(not WEBHOOKS.exists(), reason="the sample data (github-webhooks.jsonl.gz) are not here")
@pytest.mark.parametrize("timestamps", [False, True])
def test_every_github_webhook_comes_back_through_the_schema_inferred_for_its_kind(timestamps: bool) -> None:
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    with gzip.open(WEBHOOKS, "rt", encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            by_kind[event["event"]].append(event["payload"])
    assert sum(map(len, by_kind.values())) == 329
    for kind, payloads in by_kind.items():
        shelf = SchemaShelf(infer_schema(payloads, f"github.{kind}", timestamps=timestamps))
        schema = shelf.schemas[1]
        encoder, decoder = Encoder(schema), Decoder(shelf, trust="external")
        for payload in payloads:
            datum = conform(schema.type, payload)
            found = decoder.decode(encoder.encode(datum))[1]
            assert without_missing(found, datum) == datum
            if not timestamps:
                assert json.dumps(values_of(datum)) == json.dumps(values_of(payload))


def without_missing(found: Any, datum: Any) -> Any:
    """What was read without the nulls of fields that the datum did not have."""
    if isinstance(datum, dict):
        assert all(value is None for key, value in found.items() if key not in datum)
        return {key: without_missing(found[key], datum[key]) for key in datum}
    if isinstance(datum, list):
        return [without_missing(*each) for each in zip(found, datum, strict=True)]
    return found


def values_of(datum: Any) -> list[Any]:
    """All scalars, in an order that does not depend on names."""
    if isinstance(datum, dict):
        return sorted((values_of(value) for value in datum.values()), key=str)
    return [values_of(value) for value in datum] if isinstance(datum, list) else [datum]


def test_a_folder_of_contracts_is_read_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "geo").mkdir()
    (tmp_path / "a.avsc").write_text(json.dumps(record(("at", "geo.Airport"), name="geo.Route")))
    (tmp_path / "geo" / "b.avsc").write_text(json.dumps(record(("code", "geo.Code"), name="geo.Airport")))
    (tmp_path / "geo" / "c.avsc").write_text(json.dumps({"type": "fixed", "name": "geo.Code", "size": 3}))
    assert sorted(load_folder(tmp_path)) == ["geo.Airport", "geo.Code", "geo.Route"]
    assert isinstance(load_folder(tmp_path)["geo.Route"], Schema)


@pytest.mark.parametrize("content", ["{", '{"type": "nonsense"}', "\udcff"])
def test_a_broken_contract_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "fine.avsc").write_text('{"type": "fixed", "name": "F", "size": 3}')
    (tmp_path / "broken.avsc").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(SchemaError, match=r"broken\.avsc"):
        load_folder(tmp_path)


def test_the_contracts_that_are_shipped_are_valid() -> None:
    assert shipped_schemas()
    assert all(name == schema.name for name, schema in shipped_schemas().items())
    tick = shipped_schema("trunkline/schedule_tick.avsc")
    assert shipped_schemas()[tick.name] == tick
    with pytest.raises(ConfigurationError, match="can't be read"):
        shipped_schema("trunkline/none.avsc")
