"""When a pipeline that failed is tried again, and how it begins then."""

from __future__ import annotations

import asyncio

import pytest
from deliveries import Book, ScriptedSink, contiguous, deliveries, delivering, gates, ok, until

from trunkline.bus.delivery.gates import OneAtFirst
from trunkline.bus.states import SOON_SECONDS, State
from trunkline.bus.worker.retrying import next_try
from trunkline.core.contracts import Promises
from trunkline.core.errors import (
    ConfigurationError,
    DefectError,
    FatalError,
    HaltError,
    RetriableError,
    TrunklineError,
    UnavailableError,
)
from trunkline.core.event import Event
from trunkline.core.verdicts import Dead, Ok, Verdict

UNAUTHORIZED = FatalError("answered 401", code="http.unauthorized")
FAR = 360.0
"""The restart after the third failure, six minutes later."""


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (UNAUTHORIZED, SOON_SECONDS),
        (FatalError("not allowed", code="kafka.denied_topic"), SOON_SECONDS),
        (ConfigurationError("not known there", code="schema.no_subject"), SOON_SECONDS),
        (DefectError("KeyError: 'x'", code="sink.broken"), FAR),
        (FatalError("a dead letter can't be saved", code="deadletters.failed"), FAR),
        (ConfigurationError("a wrong value"), FAR),
        (ConfigurationError("nothing there", code="secret.missing"), FAR),
        (FatalError("nothing there", code="topic.missing"), None),
        (HaltError("too many dead letters"), None),
    ],
)
def test_what_is_mended_where_nobody_tells_us_is_tried_soon_and_the_rest_as_before(
    error: TrunklineError, wait: float | None
) -> None:
    assert next_try(error, 3) == (State.FAILED, wait)


def test_the_first_restart_is_at_once() -> None:
    assert next_try(UNAUTHORIZED, 1) == (State.FAILED, 0.0)


@pytest.mark.parametrize(("hours", "wait"), [(0.25, 4.5), (1, 18), (3, 54), (100, 60)])
def test_what_lasts_is_tried_more_and_more_seldom(hours: float, wait: float) -> None:
    assert next_try(UNAUTHORIZED, 4, lasting=hours * 3600) == (State.FAILED, pytest.approx(wait))


def test_a_worker_tries_five_pipelines_a_second_at_the_most_however_many_failed() -> None:
    assert next_try(UNAUTHORIZED, 3, failed=10) == (State.FAILED, SOON_SECONDS)
    assert next_try(UNAUTHORIZED, 3, failed=200) == (State.FAILED, 40.0)


def test_what_passes_is_tried_again_soon_or_when_the_other_side_says() -> None:
    away = UnavailableError("away")
    assert [next_try(away, failures)[1] for failures in (1, 2, 3, 4, 9)] == [
        1,
        2,
        SOON_SECONDS,
        SOON_SECONDS,
        SOON_SECONDS,
    ]
    assert next_try(RetriableError("later", after=20), 9) == (State.RESTARTING, 20)
    assert next_try(away, 9, lasting=3 * 3600) == (State.RESTARTING, 30)


# --- one call before the others ---


def refused(_event: Event, _times: int) -> Verdict:
    raise UNAUTHORIZED


async def test_an_account_that_still_refuses_is_called_once() -> None:
    sink, book = ScriptedSink(refused), Book()
    out = delivering(sink, book, through=[*gates(), OneAtFirst()], in_flight=8)
    out.submit(deliveries(book, [f"k{n}" for n in range(50)]))
    await until(lambda: book.errors == [UNAUTHORIZED])
    assert len(sink.calls) == 1
    assert not out.answered
    assert not book.settled


async def test_after_the_first_answer_calls_are_as_many_as_ever() -> None:
    sink, book = ScriptedSink(ok), Book()
    sink.gate = asyncio.Event()
    out = delivering(sink, book, through=[*gates(), OneAtFirst()], in_flight=8)
    out.submit(deliveries(book, [f"k{n}" for n in range(50)]))
    await until(lambda: len(sink.under_way) == 1)
    sink.gate.set()
    await until(lambda: len(book.settled) == 50)
    assert sink.most_under_way == 8
    assert out.answered


async def test_refusals_of_records_are_no_sign_that_the_account_is_open_again() -> None:
    sink = ScriptedSink(lambda event, _times: Dead("403", access=True) if event.offset < 3 else Ok())
    book = Book()
    out = delivering(sink, book, through=[*gates(), OneAtFirst()], in_flight=8, access_refusals=10)
    out.submit(deliveries(book, [f"k{n}" for n in range(50)]))
    await until(lambda: len(book.settled) == 50)
    assert sink.calls[:4] == [[0], [1], [2], [3]], "one by one, up to the first that is taken"
    assert sink.most_under_way == 8
    assert [offset for offset, outcome in book.settled.items() if outcome == "dead"] == [0, 1, 2]


async def test_of_several_partitions_one_range_goes_before_the_others() -> None:
    sink, book = ScriptedSink(refused, Promises(idempotent=True, max_batch=5, contiguous=True)), Book()
    out = contiguous(sink, book, through=[*gates(), OneAtFirst()])
    for partition in range(3):
        out.begin(("orders", partition), None)
    for partition in range(3):
        out.submit(deliveries(book, ["a"] * 5, partition=partition), {("orders", partition): 5})
    await until(lambda: bool(book.errors))
    assert len(sink.calls) == 1
