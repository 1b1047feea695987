"""Dead letters: the record as it was, and what went wrong in headers that other tools know."""

from __future__ import annotations

from typing import Any

import pytest
from records import Read

from trunkline.bus.deadletters import (
    ORIGIN,
    DeadLetter,
    Failure,
    dead_letter_headers,
    event_id,
    fingerprint,
    idempotency_key,
)
from trunkline.bus.records import with_envelope
from trunkline.core.envelope import Headers, WireHeaders, foreign_event_id
from trunkline.core.event import Event
from trunkline.core.secret import Secret


def _headers(original: WireHeaders, failure: Failure) -> WireHeaders:
    return dead_letter_headers(
        original, pipeline="posts", task="w1", topic="orders", partition=3, offset=42, failure=failure
    )


def test_the_headers_are_the_originals_in_their_order_then_connects_names_then_ours() -> None:
    original = [("b", b"1"), ("a", b"\xff"), ("b", b"2")]
    found = _headers(original, Failure("SINK", "http.422", "it is bad", attempts=2, first_failed_at=1.5))
    assert found[:3] == original
    own = dict(found[3:])
    assert own.pop("trunkline.fingerprint")
    assert own == {
        "__connect.errors.topic": b"orders",
        "__connect.errors.partition": b"3",
        "__connect.errors.offset": b"42",
        "__connect.errors.connector.name": b"posts",
        "__connect.errors.task.id": b"w1",
        "__connect.errors.stage": b"SINK",
        "__connect.errors.exception.class.name": b"http.422",
        "__connect.errors.exception.message": b"it is bad",
        "trunkline.attempts": b"2",
        "trunkline.first.failed.at": b"1500",
    }


def test_the_headers_of_an_earlier_failure_are_replaced() -> None:
    once = _headers([("own", b"1")], Failure("SINK", "a.b", "first", place="file:1"))
    twice = _headers(once, Failure("DECODE", "c.d", "second"))
    names = [name for name, _ in twice]
    assert len(names) == len(set(names))
    assert dict(twice)["__connect.errors.exception.message"] == b"second"
    assert "trunkline.place" not in names
    assert twice[0] == ("own", b"1")


def test_no_secret_stands_in_reason_or_place() -> None:
    secret = Secret.of("open-sesame-42").reveal()
    found = dict(_headers([], Failure("SINK", "x", f"token {secret} refused", place=f"/hooks?key={secret}")))
    assert found["__connect.errors.exception.message"] == b"token ******** refused"
    assert found["trunkline.place"] == b"/hooks?key=********"


def test_a_reason_of_any_length_fits() -> None:
    assert len(dict(_headers([], Failure("SINK", "x", "r" * 10**6)))["__connect.errors.exception.message"]) <= 2000


def test_failures_of_one_cause_share_a_fingerprint_and_others_do_not() -> None:
    def of(reason: str, code: str = "c") -> str:
        return fingerprint("p", "SINK", code, reason)

    assert of("row 17 has no 'amount'") == of("row 99999 has no 'price'")
    assert of("row 17 is late") != of("row 17 is early")
    assert of("late") != of("late", "other")


def test_the_name_of_a_field_belongs_to_the_cause_and_its_value_does_not() -> None:
    def of(reason: str) -> str:
        return fingerprint("p", "SOURCE CAST", "c", reason)

    assert of("field 'id': expected long (0 to 9), found 'x'") != of("field 'total': expected long (0 to 9), found 'x'")
    assert of("field 'id': expected long (0 to 9), found 'x'") == of(
        "field 'id': expected long (0 to 9), found \"it's\""
    )
    assert of("field 'address1' is missing") != of("field 'address2' is missing")
    assert of("field 'items[3].id' is missing") == of("field 'items[14].id' is missing")
    assert of("a record has no field 'idd'") != of("a record has no field 'totl'")
    assert of("column 'id': no number") != of("column 'total': no number")


def test_a_dead_letter_that_is_read_back_knows_where_it_came_from_and_its_own_headers() -> None:
    headers = _headers([("own", b"1")], Failure("SINK", "x", "no"))
    letter = DeadLetter.from_message(Read(b"v", b"k", list(headers), ("posts.dlq", 3, 7)))  # type: ignore[arg-type]
    assert letter.origin == ("orders", 3, 42)
    assert (letter.partition, letter.offset, letter.key, letter.value) == (3, 7, b"k", b"v")
    assert letter.original_headers() == [("own", b"1")]
    assert letter.header("absent") == ""


def test_a_header_without_a_value_stays_one() -> None:
    headers = _headers([("own", None)], Failure("SINK", "x", "no"))
    letter = DeadLetter.from_message(Read(b"v", b"k", list(headers), ("posts.dlq", 3, 7)))  # type: ignore[arg-type]
    assert letter.original_headers() == [("own", None)]
    assert letter.header("own") == ""


def _event(headers: Headers, offset: int = 5, topic_id: str = "Tid") -> Event:
    return Event(None, headers=headers, topic="orders", topic_id=topic_id, partition=1, offset=offset)


def test_the_idempotency_key_follows_from_namespace_pipeline_source_id_and_output() -> None:
    event = _event([("ce_source", b"/s"), ("ce_id", b"1")])
    key = idempotency_key("ns", "p", event)
    assert key == idempotency_key("ns", "p", _event([("ce_id", b"1"), ("ce_source", b"/s")], offset=99))
    others = [
        idempotency_key("other", "p", event),
        idempotency_key("ns", "q", event),
        idempotency_key("ns", "p", event, "second output"),
        idempotency_key("ns", "p", _event([("ce_source", b"/s"), ("ce_id", b"2")])),
        idempotency_key("ns", "p", _event([("ce_source", b"/t"), ("ce_id", b"1")])),
    ]
    assert len({key, *others}) == 6
    assert len(key) == 32


def test_a_foreign_record_is_known_by_its_place_also_after_a_redrive() -> None:
    first = _event([("theirs", b"x")])
    again = _event([("theirs", b"x"), (ORIGIN, b"orders/Tid/1/5")], offset=0, topic_id="retry")
    assert event_id(first) == event_id(again) == foreign_event_id("Tid", 1, 5)
    first.headers, again.headers = with_envelope(first), with_envelope(again)
    assert idempotency_key("ns", "p", first) == idempotency_key("ns", "p", again)
    assert first.correlation_id == again.correlation_id


@pytest.mark.parametrize(
    "strange",
    [
        [("ce_id", None)],
        [("ce_id", b"")],
        [(ORIGIN, b"x")],
        [(ORIGIN, None)],
        [(ORIGIN, b"a/b/c/d/e")],
        [("ce_correlationid", None), ("traceparent", None), ("ce_source", None)],
    ],
    ids=str,
)
def test_headers_of_strangers_under_names_of_ours_leave_a_record_its_place_as_its_id(strange: Any) -> None:
    event = _event(strange)
    assert event_id(event) == foreign_event_id("Tid", 1, 5)
    assert idempotency_key("ns", "p", event) != idempotency_key("ns", "p", _event(strange, offset=6))
    assert event.correlation_id
    assert event.traceparent is None
    found = dict(with_envelope(event))
    assert found["ce_id"] == event_id(event).encode()
    assert found["ce_correlationid"]


@pytest.mark.parametrize("headers", [[], [("ce_id", b"mine")], [("ce_correlationid", b"c"), ("other", b"\xff")]])
def test_the_envelope_is_completed_and_nothing_that_was_there_is_lost(headers: Headers) -> None:
    found = with_envelope(_event(headers))
    assert found[0] == ("ce_specversion", b"1.0")
    names = [name for name, _ in found]
    assert {"ce_id", "ce_correlationid", "content-type"} <= set(names)
    assert len(names) == len(set(names))
    assert all(pair in found for pair in headers)
    assert with_envelope(_event(headers)) == found
