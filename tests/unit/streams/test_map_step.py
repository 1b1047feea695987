"""The `map` step: what comes out, and which schema it announces."""

from __future__ import annotations

import copy
import json
from typing import Any

import fastavro
import pytest
from pydantic import ValidationError

from streams.map import MapStep
from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event

FLIGHT: dict[str, Any] = {
    "type": "record",
    "name": "Flight",
    "namespace": "flights",
    "fields": [
        {"name": "year", "type": "int"},
        {"name": "dep_delay", "type": ["null", "double"], "default": None},
        {"name": "carrier", "type": "string", "doc": "IATA code"},
        {
            "name": "origin",
            "type": {
                "type": "record",
                "name": "Airport",
                "fields": [{"name": "code", "type": "string"}, {"name": "gate", "type": ["null", "string"]}],
            },
        },
        {"name": "dest", "type": "Airport"},
    ],
}


def flight(**changes: Any) -> dict[str, Any]:
    airport = {"code": "JFK", "gate": None}
    value = {"year": 2013, "dep_delay": 20.0, "carrier": "UA", "origin": airport, "dest": {"code": "LAX", "gate": "4"}}
    return {**copy.deepcopy(value), **changes}


def prepared(config: Any, *, schema: Any = FLIGHT, target: Any = None) -> tuple[MapStep, Any]:
    step = MapStep(MapStep.parse(config))
    return step, step.prepare(StepContext("delayed-flights", schema, "flow.yaml:3: spec.steps[0].map", target))


def mapped(config: Any, value: Any, **context: Any) -> Any:
    step, _ = prepared(config, **context)
    return step.process(Event(value)).value


def field_types(schema: Any) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


def test_every_expression_sees_the_record_as_it_came_in() -> None:
    config = {
        "set": {"year": "event.year + 1", "next": "event.year + 2"},
        "drop": ["carrier"],
        "rename": {"dest": "to"},
    }
    found = mapped(config, flight())
    assert (found["year"], found["next"]) == (2014, 2015)
    assert "carrier" not in found
    assert found["to"]["code"] == "LAX"


def test_the_derived_schema_has_the_types_of_the_expressions_and_a_name_of_its_own() -> None:
    _, schema = prepared(
        {"keep": ["carrier"], "set": {"minutes": "int(event.dep_delay)", "late": "event.dep_delay > 15.0"}}
    )
    assert (schema["name"], schema["namespace"]) == ("Flight_delayed_flights", "flights")
    assert field_types(schema) == {"carrier": "string", "minutes": "long", "late": "boolean"}


def test_a_map_that_changes_no_field_keeps_the_schema() -> None:
    assert prepared({"keep": "all"})[1] == FLIGHT
    assert prepared({"set": {"carrier": "event.carrier + '!'"}})[1] == FLIGHT


def test_dropping_the_field_that_defines_a_type_keeps_it_defined() -> None:
    _, schema = prepared({"drop": ["origin"]})
    fastavro.parse_schema(copy.deepcopy(schema), _force=True)
    assert field_types(schema)["dest"]["name"] == "Airport"


def test_a_second_map_of_the_pipeline_does_not_lengthen_the_name_again() -> None:
    _, once = prepared({"drop": ["year"]})
    _, twice = prepared({"drop": ["carrier"]}, schema=once)
    assert twice["name"] == "Flight_delayed_flights"


def test_a_nested_field_is_set_and_dropped_without_touching_the_same_type_elsewhere() -> None:
    config = {"drop": ["origin.gate"], "set": {"origin.city": "'New York'"}}
    step, schema = prepared(config)
    types = field_types(schema)
    assert [field["name"] for field in types["origin"]["fields"]] == ["code", "city"]
    assert [field["name"] for field in types["dest"]["fields"]] == ["code", "gate"]
    assert types["origin"]["name"] != types["dest"]["name"]
    assert step.process(Event(flight())).value["origin"] == {"code": "JFK", "city": "New York"}


def test_a_field_that_is_copied_shares_nothing_with_its_source() -> None:
    found = mapped({"set": {"again": "event.origin"}}, flight())
    found["again"]["code"] = "EWR"
    assert found["origin"]["code"] == "JFK"


def test_a_value_that_only_passes_through_stays_what_it_was() -> None:
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 5, "scale": 2}
    schema = {"type": "record", "name": "Price", "fields": [{"name": "amount", "type": decimal}]}
    from decimal import Decimal

    step, derived = prepared({"set": {"copy": "event.amount"}}, schema=schema)
    found = step.process(Event({"amount": Decimal("1.10")})).value
    assert isinstance(found["copy"], Decimal)
    assert field_types(derived)["copy"] == decimal


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"drop": ["carier"]}, "carrier"),
        ({"keep": ["carier"]}, "carrier"),
        ({"rename": {"carier": "airline"}}, "carrier"),
        ({"set": {"x": "event.carier"}}, "carrier"),
        ({"drop": ["origin.cod"]}, "code"),
        ({"drop": ["carrier.code"]}, "carrier"),
    ],
)
def test_an_unknown_field_is_named_with_the_nearest_known_one(config: Any, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        prepared(config)
    assert "flow.yaml:3" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"set": {"a b": "1"}},
        {"set": {"x": "1"}, "drop": ["x"]},
        {"rename": {"year": "x", "carrier": "x"}},
        {"rename": {"year": "x"}, "set": {"x": "1"}},
        {"keep": ["year", "year"]},
        {"keeps": "all"},
    ],
)
def test_a_contradiction_is_refused_by_the_settings(config: Any) -> None:
    with pytest.raises(ValidationError):
        MapStep.parse(config)


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="carrier"):
        prepared({"rename": {"year": "carrier"}})


def test_a_type_that_only_the_evaluation_knows_needs_a_conversion_or_a_target() -> None:
    schema = {
        "type": "record",
        "name": "Loose",
        "fields": [{"name": "id", "type": ["string", "long"]}],
    }
    with pytest.raises(ConfigurationError, match="string\\("):
        prepared({"set": {"copy": "[event.id, 1.5][0]"}}, schema=schema)
    target = {
        "type": "record",
        "name": "T",
        "fields": [{"name": "id", "type": "string"}, {"name": "copy", "type": "string"}],
    }
    assert prepared({"set": {"copy": "[event.id, 1.5][0]"}}, schema=schema, target=target)[1] == target


def target(*fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": "Target", "fields": list(fields)}


def test_the_targets_schema_is_taken_where_the_result_can_be_written_with_it() -> None:
    wanted = target(
        {"name": "carrier", "type": "string"},
        {"name": "minutes", "type": "int"},
        {"name": "note", "type": ["null", "string"], "default": None},
    )
    _, schema = prepared({"keep": ["carrier"], "set": {"minutes": "int(event.dep_delay)"}}, target=wanted)
    assert schema == wanted


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (target({"name": "carier", "type": "string"}), "carrier.*carier"),
        (
            target({"name": "carrier", "type": "string"}, {"name": "minutes", "type": "int"}),
            "needs the field 'minutes'",
        ),
        (target({"name": "carrier", "type": "int"}), "'carrier' is string"),
    ],
)
def test_what_could_never_be_written_to_the_target_is_an_error_before_anything_runs(
    wanted: Any, complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        prepared({"keep": ["carrier"]}, target=wanted)


def test_without_an_input_schema_it_works_and_announces_nothing() -> None:
    step, schema = prepared({"drop": ["year"], "set": {"x": "event.carrier"}}, schema=None)
    assert schema is None
    assert step.process(Event({"year": 1, "carrier": "UA"})).value == {"carrier": "UA", "x": "UA"}


def test_an_expression_that_fails_leaves_the_value_as_it_was() -> None:
    step, _ = prepared({"drop": ["year"], "set": {"a": "event.carrier", "minutes": "int(event.dep_delay)"}})
    value = flight(dep_delay=None)
    before = json.dumps(value)
    with pytest.raises(RejectedError):
        step.process(Event(value))
    assert json.dumps(value) == before


def test_a_schema_that_is_no_record_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="record"):
        prepared({"drop": ["x"]}, schema="string")


def test_an_unsigned_number_becomes_one_that_avro_knows() -> None:
    found = mapped({"set": {"count": "uint(event.year)"}}, flight())["count"]
    assert type(found) is int
