"""The short way of plain records: it gives what the long way gives, reads no more than it must, and leaves the unusual alone."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.filter import FilterStep
from tests.unit.bus.plain_streams import KEEP, OURS, STREAMS, Stream, message
from trunkline.bus.accounting.trace import TraceBatch, hops_of
from trunkline.bus.names import Names
from trunkline.bus.stream.hotloop import HotLoop
from trunkline.bus.stream.transform import FailedRecordError
from trunkline.bus.threshold import DeadLetterThreshold
from trunkline.core.manifests.models import DeadLetterSpec


@pytest.mark.parametrize("name", STREAMS)
@settings(max_examples=40, deadline=None)
@given(
    number=st.integers(-(2**63), 2**63 - 1),
    customer=st.none() | st.text(st.characters(codec="utf-8"), max_size=5),
    amount=st.floats(),
    note=st.text(st.characters(codec="utf-8"), max_size=80),
)
def test_the_short_way_gives_what_the_long_way_gives(
    name: str, number: int, customer: str | None, amount: float, note: str
) -> None:
    stream = STREAMS[name]
    value = stream.order(id=number, customer=customer, amount=amount, note=note)
    expected = stream.long_way_or_none(value)
    assert stream.short_way_or_none(value) == expected


def test_a_stream_that_changes_nothing_looks_only_at_the_fields_that_are_named() -> None:
    stream = STREAMS["filters"]
    value = stream.order(note="abc")
    stream.long_way(value)
    no_text = value.replace(b"abc", b"\xff\xfe\xfd")
    assert stream.short_way(no_text) == [("out", no_text, b"key", OURS)]


def test_a_stream_that_changes_a_value_refuses_what_can_not_be_read_whole() -> None:
    stream = STREAMS["changes"]
    value = stream.order(note="abc")
    stream.long_way(value)
    with pytest.raises(UnicodeDecodeError):
        stream.short_way(value.replace(b"abc", b"\xff\xfe\xfd"))
    with pytest.raises(FailedRecordError):
        stream.long_way(value.replace(b"abc", b"\xff\xfe\xfd"))


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(Stream([(FilterStep, KEEP)], [{"topic": "out"}], trust="external"), id="a topic of strangers"),
        pytest.param(Stream([(FilterStep, "meta.id != ''")], [{"topic": "out"}]), id="a step that needs the envelope"),
        pytest.param(Stream([], [{"topic": "out", "key": "topic"}]), id="a target that needs the place"),
        pytest.param(Stream([], [{"topic": "by.*", "name": "event.customer"}]), id="a family of topics"),
    ],
)
def test_what_needs_the_event_or_a_guard_has_no_short_way(stream: Stream) -> None:
    stream.long_way(stream.order())
    assert stream.transform.plain == {}


class Outbox:
    """What stands for a producer: keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[tuple[Any, ...]] = []

    def produce(
        self,
        topic: str,
        value: Any,
        key: Any,
        partition: int = -1,
        callback: Any = None,
        on_delivery: Any = None,
        timestamp: int = 0,
        headers: Any = None,
    ) -> None:
        self.written.append((topic, value, key, headers))


def test_a_run_of_plain_and_unusual_records_is_counted_written_and_traced_one_by_one() -> None:
    stream = Stream([(FilterStep, KEEP)], [{"topic": "out"}])
    trace, outbox = TraceBatch("s", "stream", "w"), Outbox()
    loop = HotLoop(
        "s", "w", Names("ns"), trace, lambda _error, _message: None, DeadLetterThreshold(DeadLetterSpec(), "s")
    )
    good, none = stream.order(), stream.order(amount=-1.0)
    moved = [OURS[0], ("other", b"x"), ("ce_correlationid", b"c\n4"), OURS[1]]
    run = [
        message(good),
        message(none),
        message(b"\x00\x00\x00\x00\x63no"),
        message(good),
        message(good, moved),
        message(good, [("theirs", b"1")]),
        message(None),
        message(good, [OURS[0], OURS[1], ("ce_correlationid", None)]),
    ]
    counts = loop.process(("orders", 0), list(range(8)), run, stream.transform, outbox, watch=False)  # type: ignore[arg-type]

    assert counts == (5, 1, 2, 5)
    assert [one[0] for one in outbox.written].count("out") == 5
    (record,) = trace.drain()
    hops = list(hops_of(Message("t", 0, 0, None, record, None, None, (0, 0))))
    assert [hop.outcome for hop in hops] == [
        "delivered", "filtered", "dead", "delivered", "delivered", "delivered", "dead", "delivered",
    ]  # fmt: skip
    assert [hop.correlation_id for hop in hops][:5] == ["c1", "c1", "c1", "c1", "c\n4"]
    assert hops[5].correlation_id
    assert hops[7].correlation_id == ""
