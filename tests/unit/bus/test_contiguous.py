"""Deliveries of ranges: planned before the effect, and after a crash the same range under the same name."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from deliveries import Book, Place, ScriptedSink, breaker_of, contiguous, deliveries, gates, ok, until

from trunkline.bus.delivery.breaker import BreakerState
from trunkline.core.contracts import Promises
from trunkline.core.errors import FatalError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

HERE = ("orders", 0)
RANGES = Promises(idempotent=True, max_batch=1000, contiguous=True)


async def test_ranges_are_gapless_planned_first_and_named_by_topic_id_partition_and_range() -> None:
    def script(event: Event, _times: int) -> Verdict:
        assert book.plans[-1][0] <= event.offset <= book.plans[-1][1]
        return Ok()

    sink, book = ScriptedSink(script, RANGES), Book()
    out = contiguous(sink, book, batch={"count": 4, "age": 0.01})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["k"] * 10), {HERE: 9})
    await until(lambda: len(book.settled) == 10)
    assert book.plans == [(0, 3), (4, 7), (8, 9)]
    assert [batch.name for batch in sink.batches] == ["pipeline-Tid-0-0-3", "pipeline-Tid-0-4-7", "pipeline-Tid-0-8-9"]
    assert out.held == 0


async def test_after_a_crash_the_planned_range_is_built_again_alike_although_more_records_wait() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, batch={"count": 100, "age": 0.01})
    out.begin(HERE, 5)
    out.submit(deliveries(book, ["k"] * 4, first=2), {HERE: 5})
    out.submit(deliveries(book, ["k"] * 4, first=6), {HERE: 9})
    await until(lambda: len(book.settled) == 8)
    assert [batch.name for batch in sink.batches] == ["pipeline-Tid-0-2-5", "pipeline-Tid-0-6-9"]
    assert [batch.rebuilt for batch in sink.batches] == [True, False], "a sink may look for what the first one began"


async def test_a_call_may_take_as_long_as_the_sink_says_that_its_jobs_take() -> None:
    patient, book = ScriptedSink(ok, replace(RANGES, patience=30.0)), Book()
    patient.gate = asyncio.Event()
    asyncio.get_running_loop().call_later(0.05, patient.gate.set)
    out = contiguous(patient, book, batch={"count": 2, "age": 0.01}, timeout=0.01)
    out.begin(HERE, None)
    out.submit(deliveries(book, ["k"] * 2), {HERE: 1})
    await until(lambda: len(book.settled) == 2)
    assert len(patient.batches) == 1


async def test_a_planned_range_waits_until_it_was_read_whole_whatever_its_age() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, batch={"age": 0.001, "count": 2})
    out.begin(HERE, 7)
    out.submit(deliveries(book, ["k"] * 5), {HERE: 4})
    await asyncio.sleep(0.02)
    assert sink.calls == []
    out.submit(deliveries(book, ["k"] * 2, first=5), {HERE: 7})  # the last record of the range was filtered this time
    await until(lambda: len(book.settled) == 7)
    assert sink.calls == [[0, 1, 2, 3, 4, 5, 6]]


async def test_a_planned_range_of_which_nothing_is_left_makes_room_for_the_next() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, batch={"age": 0.005})
    out.begin(HERE, 7)
    out.submit(deliveries(book, ["k"] * 3, first=20), {HERE: 22})
    await until(lambda: len(book.settled) == 3)
    assert sink.calls == [[20, 21, 22]]


async def test_a_range_that_could_not_be_written_is_tried_again_whole_under_its_name() -> None:
    sink, book = ScriptedSink(lambda _event, times: [Retry("full"), Unknown("?"), Ok()][times - 1], RANGES), Book()
    out = contiguous(sink, book, batch={"count": 3})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["k"] * 3), {HERE: 2})
    await until(lambda: len(book.settled) == 3)
    assert sink.calls == [[0, 1, 2]] * 3
    assert {batch.name for batch in sink.batches} == {"pipeline-Tid-0-0-2"}
    assert [batch.attempt for batch in sink.batches] == [1, 2, 3]
    assert book.plans == [(0, 2)]


async def test_a_range_is_never_a_dead_letter_and_the_pipeline_stops_when_its_attempts_are_used_up() -> None:
    sink, book = ScriptedSink(lambda _event, _times: Retry("disk full"), RANGES), Book()
    out = contiguous(sink, book, batch={"count": 3}, retry={"attempts": 3})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["k"] * 3), {HERE: 2})
    await until(lambda: bool(book.errors))
    assert (type(book.errors[0]), book.errors[0].code) == (FatalError, "sink.exhausted")
    assert "disk full" in str(book.errors[0])
    assert book.settled == {}


async def test_a_record_that_the_sink_refuses_is_a_dead_letter_and_the_rest_of_its_range_is_delivered() -> None:
    sink, book = ScriptedSink(lambda event, _times: Dead("no") if event.offset == 1 else Ok(), RANGES), Book()
    out = contiguous(sink, book, batch={"count": 3})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["k"] * 3), {HERE: 2})
    await until(lambda: len(book.settled) == 3)
    assert book.settled == {0: "delivered", 1: "dead", 2: "delivered"}


async def test_partitions_have_ranges_of_their_own() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, batch={"count": 2})
    there = ("orders", 1)
    out.begin(HERE, None)
    out.begin(there, None)
    out.submit(
        deliveries(book, ["a", "b"]) + deliveries(book, ["c", "d"], first=100, partition=1), {HERE: 1, there: 101}
    )
    await until(lambda: len(book.settled) == 4)
    assert sorted(batch.name for batch in sink.batches) == ["pipeline-Tid-0-0-1", "pipeline-Tid-1-100-101"]


async def test_nothing_is_written_without_its_plan() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, ours=False, batch={"count": 2})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["a", "b"]), {HERE: 1})
    await until(lambda: bool(book.plans))
    out.forget(lambda _ticket: True, [HERE])
    await out.drain(1)
    assert sink.calls == []


async def test_a_partition_that_went_away_takes_its_waiting_records_along() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, batch={"age": 3600})
    out.begin(HERE, None)
    waiting = deliveries(book, ["a", "b"])
    out.submit(waiting, {HERE: 1})
    assert out.held == 2
    for one in waiting:
        assert isinstance(one.ticket, Place)
        one.ticket.current = False
    out.forget(lambda ticket: not ticket.current, [HERE])
    assert out.held == 0
    out.submit(deliveries(book, ["c"], first=2), {HERE: 2})  # on its way when the partition went
    assert out.held == 0


async def test_the_end_of_one_freeze_ends_no_other() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    out = contiguous(sink, book, batch={"count": 1})
    out.begin(HERE, None)
    out.freeze()
    out.submit(deliveries(book, ["a"]), {HERE: 0})
    out.freeze()
    out.forget(lambda _ticket: False, [])
    await asyncio.sleep(0.01)
    assert sink.calls == []
    out.forget(lambda _ticket: False, [])
    await until(lambda: len(book.settled) == 1)


async def test_draining_does_not_sit_out_the_wait_of_a_range_that_failed() -> None:
    sink, book = ScriptedSink(lambda _event, _times: Retry("full", after=300), RANGES), Book()
    out = contiguous(sink, book, batch={"count": 1})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["a"]), {HERE: 0})
    await until(lambda: len(sink.calls) == 1)
    async with asyncio.timeout(60):
        await out.drain(60)
    assert book.settled == {}


async def test_a_range_waits_while_the_breaker_of_its_account_is_open_and_uses_up_no_attempt() -> None:
    up = asyncio.Event()
    sink, book, account = ScriptedSink(lambda _e, _t: Ok() if up.is_set() else Retry("down"), RANGES), Book(), gates()
    out = contiguous(sink, book, through=account, batch={"count": 1}, retry={"attempts": 3})
    places = [("orders", number) for number in range(12)]
    for partition in places:
        out.begin(partition, None)
    for number, partition in enumerate(places):
        out.submit(deliveries(book, [f"k{number}"], first=number, partition=number), {partition: number})
    await until(lambda: breaker_of(account).state is not BreakerState.CLOSED and len(sink.calls) > 24)
    assert book.errors == []
    up.set()
    await until(lambda: len(book.settled) == 12)
    assert set(book.settled.values()) == {"delivered"}


@pytest.mark.parametrize("raised", [FatalError("no", code="x.y"), ValueError("a bug")])
async def test_what_the_sink_raises_is_fatal_or_tried_again(raised: Exception) -> None:
    def script(_event: Event, times: int) -> Verdict:
        if times == 1:
            raise raised
        return Ok()

    sink, book = ScriptedSink(script, RANGES), Book()
    out = contiguous(sink, book, batch={"count": 1})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["a"]), {HERE: 0})
    await until(lambda: bool(book.errors or book.settled))
    assert (book.errors == [raised]) if isinstance(raised, TrunklineError) else (book.settled == {0: "delivered"})


async def test_a_range_that_is_being_written_when_its_partition_goes_is_waited_for_and_counts() -> None:
    sink, book = ScriptedSink(ok, RANGES), Book()
    sink.gate = asyncio.Event()
    out = contiguous(sink, book, batch={"count": 2})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["a", "b"]), {HERE: 1})
    await until(lambda: len(sink.calls) == 1)
    out.forget(lambda _ticket: True, [HERE])
    assert out.under_way(lambda _ticket: True)
    sink.gate.set()
    await until(lambda: not out.under_way(lambda _ticket: True))
    assert set(book.settled) == {0, 1}


async def test_a_range_that_waits_for_its_next_try_is_not_waited_for() -> None:
    sink, book = ScriptedSink(lambda _event, _times: Retry("full"), RANGES), Book()
    out = contiguous(sink, book, batch={"count": 1}, retry={"min_delay": 3600, "max_delay": 3600})
    out.begin(HERE, None)
    out.submit(deliveries(book, ["a"]), {HERE: 0})
    await until(lambda: len(sink.calls) == 1 and not sink.under_way)
    await until(lambda: not out.under_way(lambda _ticket: True))
    out.forget(lambda _ticket: True, [HERE])
    await out.drain(5)
    assert len(sink.calls) == 1
