"""Which schemas are valid, and the forms of one that are compared."""

from __future__ import annotations

import json
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.registry.canonical import canonical_text, fingerprint, normalised_text, parsing_canonical_form
from trunkline.registry.model import SchemaError, parse_type
from trunkline.registry.model_json import to_json
from trunkline.registry.schema import MAX_SCHEMA_BYTES, Schema

from .generated import pairs
from .sources import record, through


def enum(**more: Any) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": ["A"], **more}


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nonsense", "'nonsense' is not defined"),
        (5, "a type is a name, a list or an object"),
        ({}, "no `type`"),
        ({"type": "record", "fields": []}, "has no `name`"),
        ({"type": "record", "name": "R"}, "no list of `fields`"),
        (record(name="1R"), "no valid name"),
        (record(name="a..R"), "no valid name"),
        (record(("a-b", "int")), "no valid field name"),
        (record(("a", "int"), ("a", "int")), "two fields named a"),
        (record({"name": "a"}), "has no `type`"),
        (record(("a", record(name="test.R"))), "test.R is defined twice"),
        (record(name="int"), "name of a primitive"),
        (enum(symbols=["A", "A"]), "names a symbol twice"),
        (enum(symbols=["A B"]), "no valid enum symbol"),
        (enum(default="Z"), "none of the symbols"),
        ({"type": "fixed", "name": "F", "size": -1}, "number of bytes"),
        ({"type": "fixed", "name": "F", "size": "2"}, "number of bytes"),
        ({"type": "array"}, "has no `items`"),
        ({"type": "map", "items": "int"}, "has no `values`"),
        (["int", "int"], "holds int twice"),
        (["int", ["null"]], "may not hold a union"),
        ([{"type": "array", "items": "int"}, {"type": "array", "items": "string"}], "holds array twice"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 0}, "decimal with precision 0"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}, "decimal with precision 2 and scale 3"),
        ({"type": "fixed", "name": "F", "size": 2, "logicalType": "decimal", "precision": 9}, "is not possible"),
        (record(("a", "int", "1")), "default '1' of the field a does not match its type int"),
        (record(("a", "int", None)), "default None"),
        (record(("a", "int", 2**31)), "does not match"),
        (record(("a", ["null", "int"], "x")), "does not match its type null or int"),
        (record(("a", "boolean", 0)), "does not match"),
        (record(("a", "bytes", "€")), "does not match"),
        (record(("a", enum(), "Z")), "does not match"),
        (record(("a", {"type": "array", "items": "int"}, [1, "2"])), "does not match"),
        (record(("a", record(("b", "int"), name="B"), {})), "does not match"),
    ],
)  # fmt: skip
def test_a_schema_that_breaks_a_rule_is_refused(source: Any, said: str) -> None:
    with pytest.raises(SchemaError, match=said):
        Schema(source)


def test_the_error_names_the_place() -> None:
    with pytest.raises(SchemaError) as refused:
        Schema(record(("a", {"type": "array", "items": record(("b", "nonsense"), name="B")})))
    assert refused.value.where == "/fields/0/type/items/fields/0/type"


def test_schemas_that_are_too_deep_or_too_large_are_refused() -> None:
    deep: Any = "int"
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    for source in (deep, "[" * 100_000, " " * (MAX_SCHEMA_BYTES + 1), '{"type":' * 20_000):
        with pytest.raises(SchemaError):
            Schema(source)


def test_a_lenient_reader_lives_with_a_wrong_default() -> None:
    assert Schema(record(("a", "int", "1")), strict=False).json["fields"][0]["default"] == "1"


def test_a_schema_never_changes() -> None:
    schema = Schema("int")
    with pytest.raises(AttributeError, match="never changes"):
        schema.id = 5
    assert schema.with_id(5).id == 5
    assert schema.id is None


def test_references_are_inlined_where_they_are_used_first() -> None:
    airport = record(("code", "string"), name="geo.Airport")
    schema = Schema(record(("a", "Airport"), ("b", "geo.Airport"), name="geo.Route"), references=[airport])
    assert schema.json["fields"][0]["type"] == airport
    assert schema.json["fields"][1]["type"] == "geo.Airport"
    assert Schema(schema.json).fingerprint == schema.fingerprint


def test_a_type_without_a_namespace_is_used_inside_one() -> None:
    address = record(("city", "string"), name="Address")
    source = record(("home", ["null", "Address"]), ("work", "Address"), name="com.x.Person")
    schema = Schema(source, references=[address])
    datum = {"home": {"city": "Bern"}, "work": {"city": "Thun"}}
    assert through(schema.json, datum) == datum


def test_spelling_does_not_matter_to_the_canonical_text_but_meaning_does() -> None:
    one = canonical_text(
        {"fields": [{"type": {"type": "int"}, "name": "x"}], "name": "R", "type": "record", "aliases": []}
    )
    assert one == '{"type":"record","name":"R","fields":[{"name":"x","type":"int"}]}'
    assert canonical_text(record(("x", "int", 1))) != canonical_text(record(("x", "int", 2)))
    namespaced = {"type": "record", "name": "R", "namespace": "test", "fields": [{"name": "x", "type": "int"}]}
    assert normalised_text(namespaced) == normalised_text(record(("x", "int")))


def test_a_normalised_schema_names_its_references() -> None:
    airport = record(("code", "string"), name="geo.Airport")
    text = normalised_text(record(("a", "Airport"), name="geo.Route"), [airport])
    assert json.loads(text)["fields"][0]["type"] == "geo.Airport"


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_parsing_canonical_form_is_that_of_fastavro(data: st.DataObject) -> None:
    source, _ = data.draw(pairs())
    node = parse_type(source)
    ours = parsing_canonical_form(node)
    assert ours == fastavro.schema.to_parsing_canonical_form(source)
    assert fingerprint(node) == fastavro.schema.fingerprint(ours, "sha256")
    assert parsing_canonical_form(parse_type(to_json(node))) == ours
    assert parsing_canonical_form(parse_type(json.loads(canonical_text(source)))) == ours
