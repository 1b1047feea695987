"""Values as Salesforce takes them, and a mapping checked against an object's describe."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from sinks.salesforce.mock.schema import DEFAULT_OBJECTS, describe_object
from sinks.salesforce.record import ObjectFields, Target, to_json
from trunkline.core.errors import ConfigurationError, RejectedError

FLIGHT = ObjectFields(describe_object("Flight__c", DEFAULT_OBJECTS["Flight__c"], "62.0"))
EAST = timezone(timedelta(hours=-5))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (None, "double", None),
        ("UA", "string", "UA"),
        (1545, "string", "1545"),
        (Decimal("1.50"), "string", "1.50"),
        (True, "string", "true"),
        (UUID(int=1), "string", "00000000-0000-0000-0000-000000000001"),
        (["a", "b"], "multipicklist", "a;b"),
        (b"\x00\x01", "base64", "AAE="),
        (2, "double", 2),
        (2.0, "int", 2),
        (Decimal("2.5"), "currency", 2.5),
        (True, "boolean", True),
        (date(2013, 1, 31), "date", "2013-01-31"),
        (datetime(2013, 1, 31, 23, 0, tzinfo=EAST), "date", "2013-02-01"),
        (datetime(2013, 1, 31, 5, 15, 0, 123999, tzinfo=UTC), "datetime", "2013-01-31T05:15:00.123Z"),
        (datetime(2013, 1, 31, 5, 15, tzinfo=EAST), "datetime", "2013-01-31T10:15:00.000Z"),
        ("2013-01-31T05:15:00Z", "datetime", "2013-01-31T05:15:00.000Z"),
        (datetime(2013, 1, 31, 5, 15, tzinfo=UTC), "string", "2013-01-31T05:15:00.000Z"),
        (time(5, 15), "time", "05:15:00.000Z"),
        ("x", "any", "x"),
        (7, "any", 7),
    ],
)
def test_a_value_takes_the_form_of_its_field(value: Any, kind: str, expected: Any) -> None:
    found = to_json(value, Target("F", kind))
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("many", "double"),
        (True, "double"),
        (float("nan"), "double"),
        (Decimal("Infinity"), "double"),
        (2.5, "int"),
        ("yes", "boolean"),
        (1, "boolean"),
        ("31.01.2013", "date"),
        (20130131, "date"),
        (datetime(2013, 1, 31), "datetime"),  # noqa: DTZ001 (a naive one is the point)
        ("2013-01-31T05:15:00", "datetime"),
        (5, "datetime"),
        ({"a": 1}, "string"),
        (["a"], "string"),
        (b"x", "string"),
        ({"a": 1}, "any"),
    ],
)
def test_a_value_that_does_not_fit_rejects_its_record_and_names_the_field(value: Any, kind: str) -> None:
    with pytest.raises(RejectedError, match="Delay__c") as caught:
        to_json(value, Target("Delay__c", kind))
    assert "31.01.2013" not in str(caught.value)


def test_a_number_beyond_64_bits_is_sent_as_a_double() -> None:
    assert to_json(Decimal(10) ** 30, Target("F", "double")) == 1e30


def test_a_lookup_by_external_id_becomes_a_nested_object() -> None:
    record: dict[str, Any] = {}
    target = FLIGHT.target("Operator__r.ExtId__c", upsert=True)
    target.put(record, "UA")
    assert record == {"Operator__r": {"ExtId__c": "UA"}}
    target.put(record, None)
    assert record == {"Operator__r": None}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Carier__c", "did you mean 'Carrier__c'"),
        ("CreatedDate", "can't be written"),
        ("Operatr__r.ExtId__c", "did you mean 'Operator__r'"),
    ],
)
def test_a_field_that_cant_be_written_is_a_configuration_error_with_its_place(name: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        FLIGHT.target(name, upsert=True)
    assert caught.value.where == f"config.fields.{name}"


def test_a_field_that_is_no_external_id_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match="Flight_Key__c"):
        FLIGHT.external_id("Carrier__c")
