"""What Trunkline notes of its own work survives other people's text."""

from __future__ import annotations

import orjson

from trunkline.bus.accounting.trace import TraceBatch
from trunkline.core.jsonable import note_bytes


def test_a_sign_that_utf_8_has_no_bytes_for_is_noted_as_its_escape() -> None:
    note = {"path": "a\udcff/ü", "list": ["\ud800", 1], "n": 2}
    assert orjson.loads(note_bytes(note)) == {"path": "a\\udcff/ü", "list": ["\\ud800", 1], "n": 2}


def test_a_reference_that_is_no_text_does_not_end_the_pipeline_that_traces_it() -> None:
    trace = TraceBatch("out", "Sink", "w")
    trace.add("orders", 0, 7, "id", "delivered", detail="outbox\udcff/orders.jsonl")
    [record] = trace.drain()
    assert orjson.loads(record)["details"] == {"0": "outbox\\udcff/orders.jsonl"}
