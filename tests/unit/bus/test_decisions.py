"""Decisions about parked records, read from a topic to which others may have written."""

from __future__ import annotations

import orjson
import pytest
from structlog.testing import capture_logs

from trunkline.bus.parking.decisions import VERSION, Decision, readable

GOOD = Decision("orders-out", 0, b"c1", "retry", "ada")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"{}", "no decision"),
        (b"nonsense", "no decision"),
        (b"[]", "no decision"),
        (b'{"v": 1, "key": 5, "value": ""}', "no decision"),
        (b'{"v": null}', "no decision"),
        (orjson.dumps({"v": VERSION + 1}), "left to others"),
    ],
)
def test_a_record_that_is_no_decision_hides_no_other_and_is_named(value: bytes, said: str) -> None:
    with capture_logs() as logged:
        found = readable({"planted": value, GOOD.record_key.decode(): GOOD.to_value()}, "_trunkline.decisions")
    assert found == [GOOD]
    [line] = logged
    assert (line["key"], line["topic"]) == ("planted", "_trunkline.decisions")
    assert said in line["event"]
