"""Deliveries: order, retries, batches and verdicts, with a scripted sink on the real event loop."""

from __future__ import annotations

import asyncio
import random

import pytest
from deliveries import Book, Place, ScriptedSink, breaker_of, deliveries, delivering, gates, ok, until

from trunkline.bus.delivery.breaker import BreakerState
from trunkline.core.contracts import Batch, Promises
from trunkline.core.errors import FatalError, RejectedError, RetriableError
from trunkline.core.event import Event
from trunkline.core.secret import Secret
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict


async def test_each_key_keeps_its_order_while_records_of_any_key_fail_and_are_tried_again() -> None:
    random.seed(4)
    fails = {offset: random.choice([0, 0, 1, 2]) for offset in range(200)}

    def script(event: Event, times: int) -> Verdict:
        return Retry("not now") if times <= fails[event.offset] else Ok()

    sink, book = ScriptedSink(script), Book()
    keys = [f"k{random.randrange(12)}" for _ in range(200)]
    out = delivering(sink, book, in_flight=6)
    out.submit(deliveries(book, keys[:120]))
    out.submit(deliveries(book, keys[120:], first=120))
    await until(lambda: len(book.settled) == 200)
    assert set(book.settled.values()) == {"delivered"}
    for key in set(keys):
        mine = [offset for offset in range(200) if keys[offset] == key]
        assert [offset for offset in book.order if offset in set(mine)] == mine
    assert sum(len(call) for call in sink.calls) == 200 + sum(fails.values())  # only what failed was sent again
    assert out.held == 0


async def test_many_keys_are_under_way_at_once_and_never_more_than_allowed() -> None:
    sink, book = ScriptedSink(ok), Book()
    sink.gate = asyncio.Event()
    out = delivering(sink, book, in_flight=7)
    out.submit(deliveries(book, [f"k{n}" for n in range(50)]))
    await until(lambda: len(sink.under_way) == 7)
    sink.gate.set()
    await until(lambda: len(book.settled) == 50)
    assert sink.most_under_way == 7


async def test_a_record_that_fails_holds_back_its_key_and_no_other() -> None:
    sick = asyncio.Event()

    def script(event: Event, _times: int) -> Verdict:
        return Retry("sick") if event.raw_key == b"sick" and not sick.is_set() else Ok()

    sink, book = ScriptedSink(script), Book()
    out = delivering(sink, book, retry={"attempts": 1000})
    out.submit(deliveries(book, ["sick", "a", "sick", "b", "a", None]))
    await until(lambda: set(book.settled) == {1, 3, 4, 5})
    sick.set()
    await until(lambda: len(book.settled) == 6)
    assert book.order.index(0) < book.order.index(2)


async def test_a_record_goes_on_when_its_partition_came_back_while_its_predecessor_waited_for_a_retry() -> None:
    def script(_event: Event, times: int) -> Verdict:
        if times == 1:
            asyncio.get_running_loop().call_soon(partition_comes_back)
            return Retry("not now")
        return Ok()

    def partition_comes_back() -> None:
        assert isinstance(before[0].ticket, Place)
        before[0].ticket.current = False
        out.forget(lambda ticket: not ticket.current)
        out.submit(deliveries(book, ["a"]))

    sink, book = ScriptedSink(script), Book()
    out = delivering(sink, book)
    before = deliveries(book, ["a"])
    out.submit(before)
    await until(lambda: book.settled == {0: "delivered"})
    assert out.held == 0


async def test_of_a_partition_that_is_being_given_away_what_fails_is_not_tried_again() -> None:
    def script(event: Event, _times: int) -> Verdict:
        return Retry("not now") if event.partition == 0 else Ok()

    sink, book = ScriptedSink(script), Book()
    sink.gate = asyncio.Event()
    out = delivering(sink, book, retry={"min_delay": 0.001, "max_delay": 0.001})
    going = deliveries(book, ["a", "b"])
    out.submit(going)
    await until(lambda: len(sink.calls) == 2)
    for one in going:
        assert isinstance(one.ticket, Place)
        one.ticket.stays = False
    out.forget(lambda ticket: not ticket.stays)
    sink.gate.set()
    await until(lambda: not out.under_way(lambda ticket: not ticket.stays))
    out.submit(deliveries(book, ["a"], first=2, partition=1))
    await until(lambda: 2 in book.settled)
    assert sink.times == {0: 1, 1: 1, 2: 1}
    assert out.held == 0


async def test_what_waits_for_its_next_try_is_given_away_at_once() -> None:
    sink, book = ScriptedSink(lambda _event, _times: Retry("not now")), Book()
    out = delivering(sink, book, retry={"min_delay": 3600, "max_delay": 3600})
    out.submit(deliveries(book, ["a"]))
    await until(lambda: sink.times == {0: 1} and not out.under_way(lambda _ticket: True))
    out.forget(lambda _ticket: True)
    assert out.held == 0


async def test_frozen_deliveries_begin_no_call_until_what_waits_was_dropped() -> None:
    sink, book = ScriptedSink(ok), Book()
    out = delivering(sink, book)
    out.submit(deliveries(book, ["a"]))
    out.freeze()  # its flight was made, and has not had its turn
    gone = deliveries(book, ["b"], first=1)
    out.submit(gone)
    await asyncio.sleep(0.01)
    assert sink.calls == []
    out.forget(lambda ticket: ticket is gone[0].ticket)
    await until(lambda: len(book.settled) == 1)
    assert sink.calls == [[0]]
    assert out.held == 0


async def test_the_end_of_one_freeze_ends_no_other() -> None:
    """A busy event loop drops what waits of two partitions at last, one after the other; or the pipeline has failed meanwhile."""
    sink, book = ScriptedSink(ok), Book()
    out = delivering(sink, book)
    out.freeze()
    out.submit(deliveries(book, ["a", "b"]))
    out.freeze()
    out.forget(lambda _ticket: False)
    await asyncio.sleep(0.01)
    assert sink.calls == []
    out.forget(lambda _ticket: False)
    await until(lambda: len(book.settled) == 2)


async def test_what_waits_is_dropped_before_a_flight_that_was_made_has_its_turn() -> None:
    sink, book = ScriptedSink(ok), Book()
    out = delivering(sink, book)
    gone = deliveries(book, ["a"])
    out.submit(gone)
    assert isinstance(gone[0].ticket, Place)
    gone[0].ticket.stays = False
    out.freeze()
    out.forget(lambda ticket: not ticket.stays)
    out.submit(deliveries(book, ["a"], first=1, partition=1))
    await until(lambda: 1 in book.settled)
    assert sink.calls == [[1]]
    assert out.held == 0


@pytest.mark.parametrize(("order", "expected"), [("partition", [0, 1, 2, 3]), ("none", [1, 3, 2, 0])])
async def test_order_is_by_partition_or_not_at_all_where_the_manifest_says_so(order: str, expected: list[int]) -> None:
    turns = {offset: expected.index(offset) for offset in expected}

    def script(event: Event, _times: int) -> Verdict:
        done = len(book.settled)
        return Ok() if done >= turns[event.offset] else Retry("not my turn")

    sink, book = ScriptedSink(script), Book()
    out = delivering(sink, book, order=order, retry={"attempts": 1000})
    out.submit(deliveries(book, ["a", "a", "b", "b"]))
    await until(lambda: len(book.settled) == 4)
    assert book.order == expected


async def test_batches_are_as_large_as_allowed_and_do_not_wait_when_full() -> None:
    sink, book = ScriptedSink(ok, Promises(idempotent=True, max_batch=5)), Book()
    out = delivering(sink, book, batch={"age": 3600})
    out.submit(deliveries(book, [f"k{n}" for n in range(12)]))
    await until(lambda: len(book.settled) == 10)
    assert [len(call) for call in sink.calls] == [5, 5]
    out.submit(deliveries(book, ["x", "y", "z"], first=12))
    await until(lambda: len(book.settled) == 15)


async def test_a_batch_that_does_not_fill_goes_at_its_age() -> None:
    sink, book = ScriptedSink(ok, Promises(idempotent=True, max_batch=100)), Book()
    out = delivering(sink, book, batch={"age": 0.02})
    out.submit(deliveries(book, ["a", "b", "c"]))
    await until(lambda: len(book.settled) == 3)
    assert sink.calls == [[0, 1, 2]]


async def test_a_batch_is_cut_by_bytes() -> None:
    sink, book = ScriptedSink(ok, Promises(idempotent=True, max_batch=100)), Book()
    out = delivering(sink, book, batch={"age": 0.001, "bytes": 25})
    out.submit(deliveries(book, ["a", "b", "c", "d", "e"]))
    await until(lambda: len(book.settled) == 5)
    assert max(len(call) for call in sink.calls) == 2


async def test_a_batch_never_holds_two_records_of_a_key() -> None:
    sink, book = ScriptedSink(ok, Promises(idempotent=True, max_batch=10)), Book()
    delivering(sink, book).submit(deliveries(book, ["a", "a", "b", "a", "b"]))
    await until(lambda: len(book.settled) == 5)
    assert sink.calls[0] == [0, 2]


async def test_of_a_batch_only_the_rows_that_failed_are_sent_again() -> None:
    def script(event: Event, times: int) -> Verdict:
        if event.offset == 2:
            return Dead("no such column", code="row.bad")
        return Retry("busy") if event.offset == 3 and times == 1 else Ok(f"row-{event.offset}")

    sink, book = ScriptedSink(script, Promises(idempotent=True, max_batch=5)), Book()
    delivering(sink, book).submit(deliveries(book, list("abcde")))
    await until(lambda: len(book.settled) == 5)
    assert sink.calls == [[0, 1, 2, 3, 4], [3]]
    assert book.settled == {0: "delivered", 1: "delivered", 2: "dead", 3: "delivered", 4: "delivered"}
    assert book.details[0] == "row-0"
    assert (book.failures[2].stage, book.failures[2].code, book.failures[2].reason) == (
        "SINK",
        "row.bad",
        "no such column",
    )
    assert sink.batches[1].attempt == 2


class Miscounting(ScriptedSink):
    """Gives one verdict too few at the first call."""

    async def write(self, batch: Batch) -> list[Verdict]:
        verdicts = list(await super().write(batch))
        return verdicts[:-1] if len(self.calls) == 1 else verdicts


async def test_where_verdicts_and_records_do_not_match_none_of_the_verdicts_counts() -> None:
    sink, book = Miscounting(ok, Promises(idempotent=True, max_batch=3)), Book()
    delivering(sink, book).submit(deliveries(book, ["a", "b", "c"]))
    await until(lambda: len(book.settled) == 3)
    assert sorted(offset for call in sink.calls for offset in call) == [0, 0, 1, 1, 2, 2]
    assert set(book.settled.values()) == {"delivered"}


async def test_used_up_attempts_make_a_dead_letter_with_their_number_and_the_first_time() -> None:
    sink, book = ScriptedSink(lambda _event, times: Retry(f"no, for the {times}. time")), Book()
    delivering(sink, book, retry={"attempts": 3}).submit(deliveries(book, ["a"]))
    await until(lambda: 0 in book.failures)
    failure = book.failures[0]
    assert (failure.code, failure.attempts) == ("sink.exhausted", 3)
    assert "no, for the 3. time" in failure.reason
    assert failure.first_failed_at is not None
    assert len(sink.calls) == 3


async def test_a_named_wait_holds_every_record_back_and_uses_up_no_attempt() -> None:
    loop = asyncio.get_running_loop()
    asked: list[tuple[int, float]] = []

    def script(event: Event, times: int) -> Verdict:
        asked.append((event.offset, loop.time()))
        return Retry("slow down", after=0.15) if event.offset == 0 and times == 1 else Ok()

    sink, book = ScriptedSink(script), Book()
    delivering(sink, book, in_flight=1, retry={"attempts": 1}).submit(deliveries(book, ["a", "b", "c"]))
    await until(lambda: len(book.settled) == 3)
    assert set(book.settled.values()) == {"delivered"}
    refused_at = asked[0][1]
    assert all(at - refused_at >= 0.15 for _, at in asked[1:])


async def test_an_account_that_answers_nobody_opens_the_breaker_and_uses_up_no_attempts() -> None:
    up = asyncio.Event()
    sink, book = ScriptedSink(lambda _event, _times: Ok() if up.is_set() else Retry("down")), Book()
    account = gates()
    breaker = breaker_of(account)
    out = delivering(sink, book, through=account, retry={"attempts": 3})
    out.submit(deliveries(book, [f"k{n}" for n in range(40)]))
    await until(lambda: breaker.state is BreakerState.OPEN and len(sink.calls) > 60)
    assert book.settled == {}
    up.set()
    await until(lambda: len(book.settled) == 40)
    assert set(book.settled.values()) == {"delivered"}
    assert breaker.state is BreakerState.CLOSED


async def test_two_pipelines_of_one_account_wait_for_one_breaker_and_go_on_together() -> None:
    up = asyncio.Event()
    account = gates(longest=0.01)
    first, second = (ScriptedSink(lambda _event, _times: Ok() if up.is_set() else Retry("down")) for _ in range(2))
    mine, other = Book(), Book()
    delivering(first, mine, through=account).submit(deliveries(mine, [f"k{n}" for n in range(20)]))
    await until(lambda: breaker_of(account).state is not BreakerState.CLOSED)
    waiting = delivering(second, other, through=account, in_flight=8)
    waiting.submit(deliveries(other, [f"k{n}" for n in range(20)]))
    await asyncio.sleep(0.02)
    assert len(second.under_way) <= 1  # at most the probe
    up.set()
    await until(lambda: len(mine.settled) == len(other.settled) == 20)
    assert set(mine.settled.values()) == set(other.settled.values()) == {"delivered"}


async def test_an_unknown_outcome_is_tried_again_where_the_sink_is_idempotent() -> None:
    sink, book = ScriptedSink(lambda _event, times: Unknown("reset") if times == 1 else Ok()), Book()
    delivering(sink, book, on_unknown="dead-letter").submit(deliveries(book, ["a"]))
    await until(lambda: len(book.settled) == 1)
    assert book.settled == {0: "delivered"}


@pytest.mark.parametrize(("on_unknown", "calls", "outcome"), [("retry", 2, "delivered"), ("dead-letter", 1, "dead")])
async def test_an_unknown_outcome_of_a_sink_that_is_not_idempotent_ends_as_the_manifest_says(
    on_unknown: str, calls: int, outcome: str
) -> None:
    sink = ScriptedSink(lambda _event, times: Unknown("reset") if times == 1 else Ok(), Promises(idempotent=False))
    book = Book()
    delivering(sink, book, on_unknown=on_unknown).submit(deliveries(book, ["a"]))
    await until(lambda: len(book.settled) == 1)
    assert book.settled == {0: outcome}
    assert len(sink.calls) == calls


async def test_a_probe_whose_outcome_is_unknown_does_not_leave_the_breaker_open_for_ever() -> None:
    answers: list[Verdict] = [Retry("down")] * 5 + [Unknown("reset")]

    def script(_event: Event, _times: int) -> Verdict:
        return answers.pop(0) if answers else Ok()

    sink, book = ScriptedSink(script, Promises(idempotent=False)), Book()
    out = delivering(sink, book, through=gates(calls=5), on_unknown="dead-letter", in_flight=5)
    out.submit(deliveries(book, [f"k{n}" for n in range(7)]))
    await until(lambda: len(book.settled) == 7)
    assert sorted(book.settled.values()) == ["dead"] + ["delivered"] * 6


@pytest.mark.parametrize(
    ("raised", "outcome"),
    [
        (RejectedError("no", code="row.no"), "dead"),
        (RetriableError("wait"), "delivered"),
        (ValueError("a bug"), "delivered"),
    ],
)
async def test_what_a_sink_raises_is_a_verdict_for_each_record(raised: Exception, outcome: str) -> None:
    def script(_event: Event, times: int) -> Verdict:
        if times == 1:
            raise raised
        return Ok()

    sink, book = ScriptedSink(script, Promises(idempotent=True, max_batch=1)), Book()
    delivering(sink, book).submit(deliveries(book, ["a"]))
    await until(lambda: len(book.settled) == 1)
    assert book.settled == {0: outcome}


async def test_a_call_that_takes_too_long_has_an_unknown_outcome() -> None:
    sink, book = ScriptedSink(ok, Promises(idempotent=False)), Book()
    sink.gate = asyncio.Event()
    delivering(sink, book, timeout=0.02, on_unknown="dead-letter").submit(deliveries(book, ["a"]))
    await until(lambda: 0 in book.failures)
    assert book.failures[0].code == "sink.unknown"


async def test_refused_credentials_stop_everything_and_settle_nothing() -> None:
    def script(event: Event, _times: int) -> Verdict:
        if event.offset == 3:
            raise FatalError("401", code="http.unauthorized")
        return Ok()

    sink, book = ScriptedSink(script), Book()
    out = delivering(sink, book, in_flight=1)
    out.submit(deliveries(book, [f"k{n}" for n in range(20)]))
    await until(lambda: bool(book.errors))
    await out.drain(1)
    assert [error.code for error in book.errors] == ["http.unauthorized"]
    assert set(book.settled) == {0, 1, 2}
    assert book.failures == {}


def _refused(_event: Event, _times: int) -> Verdict:
    return Dead("403", code="http.403", access=True)


async def test_one_access_refusal_among_many_answers_is_a_dead_letter() -> None:
    sink, book = ScriptedSink(lambda event, times: _refused(event, times) if event.offset == 2 else Ok()), Book()
    delivering(sink, book, access_refusals=3).submit(deliveries(book, [f"k{n}" for n in range(9)]))
    await until(lambda: len(book.settled) == 9)
    assert set(book.failures) == {2}
    assert book.errors == []


async def test_access_refusals_of_several_keys_in_a_row_stop_the_pipeline_and_nothing_is_dead_lettered() -> None:
    sink, book = ScriptedSink(_refused), Book()
    out = delivering(sink, book, access_refusals=4, in_flight=3)
    out.submit(deliveries(book, [f"k{n}" for n in range(30)]))
    await until(lambda: bool(book.errors))
    await out.drain(1)
    assert (type(book.errors[0]), book.errors[0].code) == (FatalError, "sink.access")
    assert book.settled == {}
    assert book.failures == {}


async def test_an_answer_after_the_pipeline_was_stopped_for_its_access_buries_nothing() -> None:
    sink = ScriptedSink(
        lambda event, times: Ok() if event.offset == 5 else _refused(event, times),
        Promises(idempotent=True, max_batch=6),
    )
    book = Book()
    out = delivering(sink, book, access_refusals=4)
    out.submit(deliveries(book, [f"k{n}" for n in range(6)]))  # one batch: five refusals, then an answer
    await until(lambda: bool(book.errors))
    await out.drain(1)
    assert book.failures == {}


async def test_access_refusals_of_a_single_key_are_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.bus.delivery.suspects.PATIENCE", 0.02)
    sink, book = ScriptedSink(_refused), Book()
    delivering(sink, book, access_refusals=2).submit(deliveries(book, ["same"] * 5))
    await until(lambda: len(book.settled) == 5)
    assert set(book.settled.values()) == {"dead"}
    assert book.errors == []


async def test_what_is_paused_starts_nothing_and_goes_on_when_resumed() -> None:
    sink, book = ScriptedSink(ok), Book()
    out = delivering(sink, book)
    out.pause(True)
    out.submit(deliveries(book, ["a", "b"]))
    await asyncio.sleep(0.01)
    assert sink.calls == []
    out.pause(False)
    await until(lambda: len(book.settled) == 2)


async def test_a_call_cancelled_before_it_began_leaves_no_probe_under_way() -> None:
    sink, book, account = ScriptedSink(ok), Book(), gates(calls=1)
    breaker = breaker_of(account)
    breaker.ended([deliveries(book, ["a"])[0].event], [Retry("down")])
    await asyncio.sleep(0.02)
    out = delivering(sink, book, through=account)
    out.submit(deliveries(book, ["a"]))
    assert breaker.state is BreakerState.HALF_OPEN
    await out.drain(0)
    assert breaker.delay(1) == 0.0


async def test_draining_lets_calls_end_and_begins_no_other() -> None:
    sink, book = ScriptedSink(ok), Book()
    sink.gate = asyncio.Event()
    out = delivering(sink, book, in_flight=2)
    out.submit(deliveries(book, [f"k{n}" for n in range(6)]))
    await until(lambda: len(sink.under_way) == 2)
    draining = asyncio.create_task(out.drain(10))
    await asyncio.sleep(0)
    sink.gate.set()
    await draining
    assert set(book.settled) == {0, 1}
    assert len(sink.calls) == 2


async def test_draining_cancels_what_does_not_end_in_time_and_settles_nothing_of_it() -> None:
    sink, book = ScriptedSink(ok), Book()
    sink.gate = asyncio.Event()
    out = delivering(sink, book)
    out.submit(deliveries(book, ["a"]))
    await until(lambda: bool(sink.under_way))
    await out.drain(0.01)
    assert book.settled == {}
    assert sink.under_way == set()


async def test_what_waits_for_a_partition_that_went_away_is_forgotten_and_the_rest_goes_on() -> None:
    refuse = asyncio.Event()

    def script(event: Event, times: int) -> Verdict:
        if event.offset == 1 and times == 1:
            return Retry("later")
        if event.offset == 2 and not refuse.is_set():
            return _refused(event, times)
        return Ok()

    sink, book = ScriptedSink(script), Book()
    out = delivering(sink, book, retry={"min_delay": 0.05, "max_delay": 0.05})
    gone = deliveries(book, ["a", "b", "c", "a", "a"])
    out.pause(True)
    out.submit(gone)
    out.submit(deliveries(book, ["a", "d"], first=5, partition=1))
    for one in gone:
        assert isinstance(one.ticket, Place)
        one.ticket.current = False
    out.forget(lambda ticket: not ticket.current)
    out.pause(False)
    await until(lambda: len(book.settled) == 2)
    assert set(book.settled) == {5, 6}
    assert out.held == 0


async def test_no_secret_stands_in_the_reason_of_a_dead_letter() -> None:
    secret = Secret.of("swordfish-4711")
    sink, book = ScriptedSink(lambda _event, _times: Dead(f"bad token {secret.reveal()}")), Book()
    delivering(sink, book).submit(deliveries(book, ["a"]))
    await until(lambda: 0 in book.failures)
    assert book.failures[0].reason == "bad token ********"
