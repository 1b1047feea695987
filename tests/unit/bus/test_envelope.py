"""The envelope: what headers say of an event, ids that sort by time, and correlation ids that can go out again."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.envelope import (
    Envelope,
    Headers,
    correlation_from,
    envelope_from_headers,
    envelope_to_headers,
    foreign_event_id,
    made_at,
    trace_id,
    uuid7,
)
from trunkline.core.event import Event

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_uuid7_has_its_version_its_variant_and_the_time() -> None:
    before = time.time_ns() // 1_000_000
    found = uuid.UUID(uuid7())
    after = time.time_ns() // 1_000_000
    assert (found.version, found.variant) == (7, uuid.RFC_4122)
    assert before <= found.int >> 80 <= after


def test_uuid7s_differ() -> None:
    assert len({uuid7() for _ in range(10_000)}) == 10_000


def test_uuid7s_of_forked_processes_differ() -> None:
    # In an interpreter of its own: this one has threads, and who has those should not fork.
    program = """
import os
from trunkline.core.envelope import uuid7
for _ in range(3):
    if os.fork() == 0:
        print(uuid7(), flush=True)
        os._exit(0)
    os.wait()
print(uuid7())
"""
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    randoms = {one.replace("-", "")[13:] for one in printed.split()}
    assert len(randoms) == 4


visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=50)


@given(
    st.builds(
        Envelope,
        id=visible,
        source=visible,
        type=visible,
        time=st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda one: one.replace(tzinfo=UTC)),  # noqa: DTZ001
        subject=st.none() | st.text(min_size=1).filter(lambda text: text.isprintable()),
        correlation_id=visible,
        causation_id=st.none() | visible,
        traceparent=st.none() | st.just(TRACE),
    )
)  # fmt: skip
def test_an_envelope_comes_back_from_its_headers(envelope: Envelope) -> None:
    assert envelope_from_headers(envelope_to_headers(envelope), foreign_id="unused") == envelope


def test_a_foreign_record_takes_its_correlation_from_the_trace_else_from_its_id() -> None:
    assert envelope_from_headers([], foreign_id="place").correlation_id == "place"
    found = envelope_from_headers([("traceparent", TRACE.encode())], foreign_id="place")
    assert (found.id, found.correlation_id) == ("place", "0af7651916cd43dd8448eb211c80319c")


@pytest.mark.parametrize("bad", [b"", b"two words", b"a\n", b"a\r\nX-Evil: 1", b"\xff\xfe", b"x" * 257, "ü".encode()])
def test_a_correlation_id_that_cannot_stand_in_a_header_is_none(bad: bytes) -> None:
    found = envelope_from_headers([("ce_id", b"e1"), ("ce_correlationid", bad)], foreign_id="")
    assert found.correlation_id == "e1"


@pytest.mark.parametrize(
    "bad", ["", "garbage", TRACE.upper(), TRACE + "-more", TRACE + "\n", "00-" + "0" * 32 + TRACE[35:]]
)
def test_a_malformed_trace_is_passed_over(bad: str) -> None:
    assert trace_id(bad) is None
    assert envelope_from_headers([("traceparent", bad.encode())], foreign_id="f").traceparent is None


def test_the_correlation_of_a_request_is_the_first_that_can_be_kept() -> None:
    headers = {"x-correlation-id": "corr", "x-request-id": "req", "traceparent": TRACE}
    assert correlation_from(headers, "field") == "field"
    assert correlation_from(headers, "bad field") == "corr"
    del headers["x-correlation-id"]
    assert correlation_from(headers) == "req"
    del headers["x-request-id"]
    assert correlation_from(headers) == "0af7651916cd43dd8448eb211c80319c"
    assert correlation_from({}) is None


def test_a_foreign_id_is_the_same_for_the_same_place_and_no_other() -> None:
    assert foreign_event_id("T", 1, 2) == foreign_event_id("T", 1, 2)
    assert len({foreign_event_id("T", 1, 2), foreign_event_id("T", 2, 1), foreign_event_id("U", 1, 2)}) == 3


def test_the_parts_of_a_split_differ_and_name_what_they_came_from() -> None:
    parts = [Envelope("e", "s", "t", correlation_id="c").part(index) for index in range(2)]
    assert [(part.id, part.causation_id, part.correlation_id) for part in parts] == [
        ("e.0", "e", "c"),
        ("e.1", "e", "c"),
    ]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_id", b"e1")],
        [
            ("ce_id", b"e1"),
            ("ce_correlationid", b"c-1"),
            ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"),
        ],
        [("ce_id", b"e1"), ("ce_correlationid", b"with blank")],
        [("ce_id", b"e1"), ("ce_correlationid", b"\xff\xfe"), ("traceparent", b"garbage")],
        [("ce_id", b"e1"), ("traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")],
    ],
    ids=["none", "id", "all", "blank", "no text", "trace only"],
)
def test_an_event_knows_its_correlation_id_and_trace_context_without_reading_its_whole_envelope(
    headers: Headers,
) -> None:
    event, whole = (Event(None, headers=headers, topic="t", topic_id="T", offset=3) for _ in range(2))
    expected = whole.envelope
    assert (event.traceparent, event.correlation_id) == (expected.traceparent, expected.correlation_id)


def test_an_id_of_ours_says_when_it_was_made_and_no_other_does() -> None:
    before = int(time.time() * 1000)
    made = made_at(uuid7())
    assert made is not None
    assert before <= made <= time.time() * 1000
    assert made_at("0198f3c2-7a1b-7c3d-9e4f-5a6b7c8d9e0f.2.0") == 0x0198F3C27A1B
    for other in (
        "",
        "4711",
        str(uuid.uuid4()),
        "ffffffff-ffff-7fff-9fff-ffffffffffff",
        "00000000-0001-7000-8000-000000000000",
    ):
        assert made_at(other) is None
