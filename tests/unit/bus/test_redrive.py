"""Choosing, ordering, editing and following, without a broker."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from records import ORDER, Schemas

from trunkline.bus.deadletters import ORIGIN, REDRIVE, REDRIVES, DeadLetter, Failure, dead_letter_headers
from trunkline.bus.names import Names
from trunkline.bus.redrive.edits import Changes, Edit, input_editor
from trunkline.bus.redrive.jobs import Desired, Job, JobLog, JobState, Progress, RedriveOrder
from trunkline.bus.redrive.letters import compile_filter
from trunkline.bus.redrive.marks import Marks
from trunkline.bus.redrive.plan import Plan
from trunkline.bus.redrive.resend import RetryWay
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.registry.codec import Decoder


def letter(
    offset: int,
    first: int,
    *,
    topic: str = "orders",
    value: bytes = b"{}",
    again: int | None = None,
    partition: int = 1,
    topic_id: str = "id",
) -> DeadLetter:
    """At `offset` of the dead-letter topic, read first at `first`; with `again` it failed once more, there in the retry topic."""
    original = [("ce_id", b"1")]
    place = (topic, partition, first)
    if again is not None:
        original.append((ORIGIN, f"{topic}/{topic_id}/{partition}/{first}".encode()))
        original.append((REDRIVES, b"2"))
        place = ("out.retry", partition, again)
    failure = Failure("SINK", "sink.rejected", "no", attempts=4, first_failed_at=12.5)
    headers = dead_letter_headers(
        original,
        pipeline="out",
        task="w",
        topic=place[0],
        partition=place[1],
        offset=place[2],
        failure=failure,
        topic_id=topic_id if again is None else "retry",
    )
    return DeadLetter(partition, offset, b"k", value, headers, 0)


def planned(*letters: DeadLetter, limit: int | None = None, size: int = 100) -> list[tuple[int, list[int]]]:
    plan = Plan()
    for one in letters:
        plan.add(one)
    plan.settle(limit)
    chunks = list(plan.chunks(size))
    assert plan.total == sum(len(offsets) for _, offsets in chunks)
    return chunks


def test_letters_go_in_the_order_in_which_their_records_were_read_first() -> None:
    assert planned(letter(0, 5), letter(1, 9), letter(2, 7, again=0)) == [(1, [0, 2, 1])]


def test_letters_of_several_topics_stay_as_they_are_while_each_is_in_order() -> None:
    assert planned(letter(0, 5), letter(1, 2, topic="b"), letter(2, 6)) == [(1, [0, 1, 2])]


def test_a_letter_that_was_saved_twice_goes_once() -> None:
    assert planned(letter(0, 5), letter(1, 6), letter(2, 5), letter(3, 6), letter(4, 7)) == [(1, [0, 1, 4])]


def test_letters_from_topics_of_one_name_at_one_offset_are_two() -> None:
    assert planned(letter(0, 5), letter(1, 5, topic_id="the-one-after")) == [(1, [0, 1])]


def test_no_more_than_the_limit_are_planned_over_all_partitions_together() -> None:
    letters = [letter(0, 5, partition=2), letter(1, 6, partition=2), letter(0, 1), letter(1, 2)]
    assert planned(*letters, limit=3) == [(1, [0, 1]), (2, [0])]
    assert planned(*letters, limit=0) == []
    assert planned(*letters, size=1) == [(1, [0]), (1, [1]), (2, [0]), (2, [1])]


def test_a_mark_is_of_the_failure_and_not_of_the_letter() -> None:
    marks = Marks()
    marks.add(letter(0, 5))
    assert letter(9, 5) in marks
    assert letter(9, 6) not in marks
    assert letter(9, 5, again=0) not in marks


def test_a_record_that_goes_again_says_where_it_came_from_first_and_how_often_it_went() -> None:
    way = RetryWay(Names(), "out", 4, lambda topic: f"{topic}-id")
    (first,) = way.records(letter(0, 5), "run")
    assert first.headers[1:] == [(ORIGIN, b"orders/id/1/5"), (REDRIVE, b"run"), (REDRIVES, b"1")]
    (unnoted,) = way.records(letter(0, 5, topic_id=""), "run")
    assert unnoted.headers[1] == (ORIGIN, b"orders/orders-id/1/5")
    assert (first.topic, first.partition, first.key) == ("out.retry", 1, b"k")
    (second,) = way.records(letter(0, 5, again=3), "run")
    assert second.headers[1:] == [(ORIGIN, b"orders/id/1/5"), (REDRIVE, b"run"), (REDRIVES, b"3")]


# --- filters ---


def test_a_filter_that_can_not_be_evaluated_on_a_letter_is_not_true_of_it_and_says_why() -> None:
    schemas = Schemas()
    order = schemas.encoder(ORDER).encode({"id": 1, "customer": "c", "amount": 2})
    holds = compile_filter("meta.id == '1' && event.idd == 'x'", lambda _topic: Decoder(schemas))
    assert [holds(letter(offset, 5, value=order)) for offset in (3, 4)] == [False, False]
    assert holds.unjudged == 2
    assert re.fullmatch("1@3: .*idd.*", holds.first_unjudged)


def test_of_a_letter_whose_value_is_unreadable_that_is_the_reason() -> None:
    holds = compile_filter("event.id == 1", lambda _topic: Decoder(Schemas()))
    assert not holds(letter(3, 5, value=b"no Avro"))
    assert "0x6e" in holds.first_unjudged


def test_a_filter_that_is_false_is_no_trouble() -> None:
    holds = compile_filter("letter.stage == 'DECODE'", lambda _topic: Decoder(Schemas()))
    assert not holds(letter(3, 5))
    assert (holds.unjudged, holds.first_unjudged) == (0, "")


# --- edits ---


def test_every_assignment_sees_the_value_as_it_was_and_the_failure() -> None:
    value = {"a": 1, "b": {"c": 2}}
    Changes({"a": "event.b.c", "b.c": "event.a", "why": "letter.reason"}).apply(value, letter(0, 5))
    assert value == {"a": 2, "b": {"c": 1}, "why": "no"}


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [("a", "event.x + 1", "a: "), ("b.c", "1", "b.c: b is no record"), ("x.y.z", "1", "x.y")],
)
def test_an_assignment_that_can_not_be_names_its_field(path: str, text: str, reason: str) -> None:
    with pytest.raises(RejectedError) as refusal:
        Changes({path: text}).apply({"a": 1, "b": 2}, letter(0, 5))
    assert reason in refusal.value.message
    assert refusal.value.code == "edit.refused"


def test_a_wrong_expression_of_an_assignment_is_found_before_any_letter() -> None:
    with pytest.raises(ConfigurationError) as wrong:
        Changes({"a": "1 +"})
    assert wrong.value.where == "--set a"


@pytest.mark.parametrize("raw", [b"a,b,c", b"[1]", b"", b"\xff"])
def test_raw_input_that_is_no_json_object_must_be_given_by_hand(raw: bytes) -> None:
    with pytest.raises(RejectedError) as refusal:
        input_editor(Edit())(letter(0, 5, value=raw))
    assert "--edit" in str(refusal.value)
    assert input_editor(Edit({"a": 1}))(letter(0, 5, value=raw)) == {"a": 1}


def test_raw_json_is_taken_with_the_fields_that_are_set() -> None:
    assert input_editor(Edit(set={"b": "event.a + 1"}))(letter(0, 5, value=b'{"a": 1}')) == {"a": 1, "b": 2}


# --- jobs ---


@dataclass
class Written:
    """A record of the jobs topic."""

    place: int
    name: str
    content: dict[str, Any] | None

    def key(self) -> bytes:
        return self.name.encode()

    def value(self) -> bytes | None:
        return None if self.content is None else orjson.dumps({"v": 1, **self.content})

    def offset(self) -> int:
        return self.place


def log_of(*records: tuple[int, str, dict[str, Any] | None]) -> JobLog:
    log = JobLog()
    for record in records:
        log.take(Written(*record))  # type: ignore[arg-type]
    return log


ASKED = {"by": "ann", "at": 1.0, "order": {"rate": 5.0, "places": []}}


def test_a_job_is_put_together_from_its_latest_records_in_whatever_order_they_are_taken() -> None:
    log = log_of(
        (3, "out/j/progress", {"state": "RUNNING", "total": 10, "sent": 4, "rate": 2.0, "at": time.time()}),
        (0, "out/j/job", ASKED),
        (5, "out/j/wish", {"desired": "paused", "by": "bob", "at": 9.0}),
        (2, "out/j/progress", {"state": "RUNNING", "total": 10, "sent": 1}),
        (4, "out//redriven", {"count": 4}),
    )
    job = log.job("j")
    assert (job.progress.sent, job.left, job.seconds_left, job.wish.desired) == (4, 6, 3.0, Desired.PAUSED)
    assert job.runnable, "its executor has to note the pause"
    assert log.redriven == {"out": 4}


@pytest.mark.parametrize(
    ("state", "desired", "wish_last", "runnable"),
    [
        ("WAITING", "running", True, True),
        ("PAUSED", "paused", False, False),
        ("PAUSED", "running", True, True),
        ("PAUSED", "cancelled", True, True),
        ("FAILED", "running", False, False),
        ("FAILED", "running", True, True),
        ("DONE", "running", True, False),
        ("CANCELLED", "running", True, False),
    ],
)
def test_a_job_is_taken_up_where_something_is_to_be_done(
    state: str, desired: str, wish_last: bool, runnable: bool
) -> None:
    wish = (2 if wish_last else 1, "out/j/wish", {"desired": desired, "by": "bob", "at": 0.0})
    job = log_of((0, "out/j/job", ASKED), wish, (1 if wish_last else 2, "out/j/progress", {"state": state})).job("j")
    assert job.progress.state is JobState(state)
    assert job.runnable is runnable


def test_a_forgotten_job_is_gone_and_an_unknown_one_is_wrong_input() -> None:
    log = log_of((0, "out/j/job", ASKED), (1, "out/j/job", None))
    assert log.of() == []
    with pytest.raises(ConfigurationError) as unknown:
        log.job("j")
    assert unknown.value.code == "job.unknown"


def test_a_job_of_a_newer_version_is_not_guessed_at() -> None:
    with pytest.raises(ConfigurationError) as newer:
        log_of((0, "out/j/job", {**ASKED, "v": 99}))
    assert newer.value.code == "job.version"


def test_of_a_job_that_does_not_move_nobody_knows_its_rate_and_when_it_will_be_done() -> None:
    def job(silent: float, *, rate: float, state: JobState = JobState.RUNNING) -> Job:
        progress = Progress(state, total=100, sent=60, rate=rate, at=time.time() - silent)
        return Job("j", "out", "ada", time.time(), RedriveOrder(), progress=progress)

    assert (job(1, rate=8).rate, job(1, rate=8).seconds_left) == (8, 5)
    assert (job(15, rate=8).rate, job(15, rate=8).seconds_left) == (None, None)
    assert job(15, rate=0.1).seconds_left == 400, "at a letter each ten seconds that is no long silence"
    assert job(1, rate=8, state=JobState.PAUSED).seconds_left is None
