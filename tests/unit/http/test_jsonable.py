"""Avro values as JSON."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from trunkline.core.errors import RejectedError
from trunkline.core.jsonable import to_json_bytes, to_jsonable


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), "2024-01-02T03:04:05.678901Z"),
        (datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2024-01-02T00:00:00+02:00"),
        (datetime(2024, 1, 2), "2024-01-02T00:00:00"),  # noqa: DTZ001 (Avro's local timestamps have no zone)
        (date(2024, 1, 2), "2024-01-02"),
        (time(1, 2, 3, 4), "01:02:03.000004"),
        (Decimal("-12345678901234567890.1230"), "-12345678901234567890.1230"),
        (Decimal("1E+3"), "1E+3"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"a"), "YQ=="),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (math.nan, None),
        (math.inf, None),
        ({"a": [b"x", {"b": Decimal(1)}], "ü": ("t",)}, {"a": ["eA==", {"b": "1"}], "ü": ["t"]}),
        (None, None),
    ],
)
def test_each_avro_type_has_one_json_form(value: Any, expected: Any) -> None:
    assert to_jsonable(value) == expected


@pytest.mark.parametrize("value", [2**64, "\ud800", {1: 2}, object(), {"a": {b"x": 1}}])
def test_what_json_can_not_hold_is_rejected(value: Any) -> None:
    with pytest.raises(RejectedError, match="can't be written as JSON") as caught:
        to_json_bytes(value)
    assert caught.value.code == "record.not_json"


def test_endless_nesting_is_rejected_and_kills_nothing() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(RejectedError):
        to_json_bytes(value)
    while isinstance(value, list):  # taken apart level by level: freeing it at once would be deep too
        value = value[0]


def test_keys_keep_their_order_unless_sorting_is_asked_for() -> None:
    assert to_json_bytes({"b": 1, "a": 2}) == b'{"b":1,"a":2}'
    assert to_json_bytes({"b": 1, "a": 2}, sort_keys=True) == b'{"a":2,"b":1}'
