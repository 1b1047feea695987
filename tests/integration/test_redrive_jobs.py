"""Redrives as jobs: each letter once whoever is killed, in order, filtered, edited, capped, paused, and where they came from."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bus_harness import ORDER, Registry, order, unframed
from conftest import KafkaUnderTest

from tests.chaos.faults.warm import WarmProcess
from tests.remaking import make_anew
from trunkline.bus.accounting import audit
from trunkline.bus.deadletters import ORIGIN, REDRIVES, TOPIC_ID, DeadLetter, Failure, dead_letter_headers
from trunkline.bus.kafka import KafkaSettings, end_offsets, produce, read_all
from trunkline.bus.names import Names
from trunkline.bus.redrive.edits import Edit
from trunkline.bus.redrive.job import RedriveExecution, Surroundings, plan_of
from trunkline.bus.redrive.jobs import Desired, Job, JobLog, JobRecords, JobState, Progress, RedriveOrder, Wish
from trunkline.bus.redrive.marks import id_of_letters
from trunkline.bus.redrive.runner import JobRunner, has_runner
from trunkline.bus.redrive.transactions import Redrive, Sender, retry_way
from trunkline.bus.topics import TopicPlan, ensure_topics, internal_topics
from trunkline.control.cluster import Cluster
from trunkline.control.redrives import Happening, follow
from trunkline.core.envelope import Headers
from trunkline.core.errors import ConfigurationError, RetriableError
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = pytest.mark.kafka
PARTITIONS = 2
KEYS = 6
MANY = 2000
"""Letters that no job of a test comes to the end of: at 8/s they take longer than a test may."""
NOWHERE = "http://127.0.0.1:9"


class Desk:
    """The dead letters of a sink `out`, and who sends them again."""

    def __init__(self, bootstrap: str, namespace: str, registry_url: str = NOWHERE) -> None:
        self.settings, self.names = KafkaSettings(bootstrap), Names(namespace)
        self.registry = RegistryClient(registry_url)
        self.topic = f"{namespace}.orders"
        plans = [TopicPlan(name("out"), PARTITIONS) for name in (self.names.dead_letters, self.names.retry)]
        ensure_topics(self.settings, [*internal_topics(self.names), *plans])

    def around(self, executor: str = "a test") -> Surroundings:
        return Surroundings(self.settings, self.names, self.registry, lambda _pipeline: None, executor)

    def fail(
        self,
        numbers: Sequence[int],
        *,
        code: str = "sink.rejected",
        value: Callable[[int], bytes] = lambda number: str(number).encode(),
        headers: Headers | None = None,
        topic_id: str = "first",
    ) -> None:
        """Records that fail, each at the offset of its number in the partition of its key."""
        producer = self.settings.producer()
        for number in numbers:
            partition = number % KEYS % PARTITIONS
            own = dead_letter_headers(
                [("ce_id", str(number).encode()), ("ce_source", b"/test"), *(headers or [])],
                pipeline="out",
                task="w",
                topic=self.topic,
                partition=partition,
                offset=number,
                failure=Failure("SINK", code, f"no {number}", attempts=3),
                topic_id=topic_id,
            )
            key = f"k{number % KEYS}".encode()
            produce(producer, self.names.dead_letters("out"), value(number), key, own, partition=partition)
        assert producer.flush(20) == 0

    def make_letters_anew(self) -> None:
        make_anew(self.settings, [TopicPlan(self.names.dead_letters("out"), PARTITIONS)])

    def order(self, **asked: Any) -> RedriveOrder:
        ends = end_offsets(self.settings, self.names.dead_letters("out"))
        letters = id_of_letters(self.settings, self.names, "out")
        return RedriveOrder(**asked, ends={str(partition): end for partition, end in ends.items()}, letters=letters)

    def ask(self, **asked: Any) -> Job:
        job = Job(uuid.uuid4().hex[:12], "out", "ann", time.time(), self.order(**asked))
        JobRecords(self.names).create(self.settings, job, 0)
        return job

    def execute(self, job: Job, wish: Callable[[], Wish] = Wish) -> Progress:
        return RedriveExecution(self.around(), job, wish=wish).run()

    def job(self, identity: str) -> Job:
        return JobLog.read(self.settings, self.names).job(identity)

    def want(self, job: Job, desired: Desired) -> None:
        JobRecords(self.names).wish(self.settings, job, desired, "bob")

    def retried(self) -> list[DeadLetter]:
        return [DeadLetter.from_message(message) for message in read_all(self.settings, self.names.retry("out"))]

    def numbers(self) -> list[int]:
        return [int(one.header("ce_id")) for one in self.retried()]

    def until(self, condition: Callable[[], Any], what: str, seconds: float = 120.0) -> Any:
        deadline = time.monotonic() + seconds
        asked = time.monotonic()
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not come to be"
            time.sleep(max(0.05, 2 * (time.monotonic() - asked)))  # what takes long is asked less often
            asked = time.monotonic()
        return found


@pytest.fixture
def desk(kafka: KafkaUnderTest, namespace: str) -> Iterator[Desk]:
    made = Desk(kafka.bootstrap, namespace)
    yield made
    made.registry.close()


def by_key(numbers: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for number in numbers:
        found.setdefault(number % KEYS, []).append(number)
    return found


# --- crashes ---


SHORT = [("produced", 3), ("committed", 2), ("fetched", 2)]
LONG = [("opened", 1), *((step, number) for number in (1, 2, 3) for step in ("fetched", "produced", "committed"))]


@pytest.mark.parametrize(
    ("count", "steps"),
    [pytest.param(60, SHORT, id="short"), pytest.param(150, [*SHORT, *LONG], id="long", marks=pytest.mark.slow)],
)
def test_an_executor_that_is_killed_at_any_step_loses_no_letter_and_sends_none_twice(
    desk: Desk, tmp_path: Path, count: int, steps: list[tuple[str, int]]
) -> None:
    desk.fail(range(count))
    job = desk.ask()
    sent = []
    for step, number in steps:
        arguments = [desk.settings.bootstrap, desk.names.namespace, "out", job.id, step, str(number)]
        victim = WarmProcess(
            "tests.integration.redrive_victim", arguments, log=tmp_path / "victim.log", environment=os.environ
        )
        assert victim.wait(180) == -signal.SIGKILL, (tmp_path / "victim.log").read_text()
        sent.append(JobLog.read(desk.settings, desk.names, patient=False).job(job.id).progress.sent)
    assert sent == sorted(sent)
    assert 0 < sent[-1] < count
    progress = desk.execute(job)
    assert (progress.state, progress.sent, progress.total) == (JobState.DONE, count, count)
    assert sorted(desk.numbers()) == list(range(count))
    assert all(numbers == sorted(numbers) for numbers in by_key(desk.numbers()).values())
    assert JobLog.read(desk.settings, desk.names).redriven == {"out": count}
    assert Redrive(desk.settings, desk.names, "out").waiting() == []


def test_of_two_executors_the_former_one_is_fenced_before_the_latter_reads_what_was_sent(desk: Desk) -> None:
    desk.fail(range(4))
    first, second = Sender(desk.settings, desk.names, "out"), Sender(desk.settings, desk.names, "out")
    way = retry_way(desk.settings, desk.names, "out")
    letters = [(letter, way.records(letter, "x")) for letter in Redrive(desk.settings, desk.names, "out").waiting()]
    first.open()
    first.send(letters[:1], run="x", by="ann")
    assert second.open().redriven == {"out": 1}
    with pytest.raises(RetriableError) as refusal:
        first.send(letters[1:], run="x", by="ann")
    assert refusal.value.code == "kafka.fenced"
    second.send(letters[1:2], run="y", by="bob")
    assert len(desk.numbers()) == 2


def test_what_fails_after_a_redrive_was_asked_for_is_not_of_it(desk: Desk) -> None:
    desk.fail([0, 1])
    job = desk.ask()
    desk.fail([2, 3])
    assert desk.execute(job).sent == 2
    assert sorted(desk.numbers()) == [0, 1]


def test_a_record_that_fails_anew_after_offsets_were_set_back_waits_again(desk: Desk) -> None:
    desk.fail([0, 1, 0])  # saved twice around a crash
    assert desk.execute(desk.ask()).sent == 2
    assert Redrive(desk.settings, desk.names, "out").waiting() == []
    desk.fail([0])
    assert [one.header("ce_id") for one in Redrive(desk.settings, desk.names, "out").waiting()] == ["0"]
    assert desk.execute(desk.ask()).sent == 1
    assert Redrive(desk.settings, desk.names, "out").waiting() == []


def test_letters_of_topics_that_were_made_anew_are_other_letters(desk: Desk) -> None:
    desk.fail([0, 1], topic_id="before")
    first = desk.ask()
    assert desk.execute(first).sent == 2
    desk.make_letters_anew()
    # The input was made anew too: other records failed at the same offsets, and so did the same ones once more.
    desk.fail([0, 1], topic_id="after")
    desk.fail([0], topic_id="before")
    waiting = Redrive(desk.settings, desk.names, "out").waiting()
    assert sorted(one.header(TOPIC_ID) for one in waiting) == ["after", "after", "before"]
    assert desk.execute(desk.ask()).sent == 3
    assert sorted(desk.numbers()) == [0, 0, 0, 1, 1]
    origins = [one.header(ORIGIN).split("/")[1] for one in desk.retried()]
    assert sorted(origins) == ["after", "after", "before", "before", "before"]


def test_a_job_for_letters_that_are_gone_sends_none_of_those_that_took_their_places(desk: Desk) -> None:
    desk.fail([0, 1, 2])
    job = desk.ask()
    desk.make_letters_anew()
    desk.fail([6, 7, 8])
    progress = desk.execute(job)
    assert (progress.state, progress.code, progress.sent) == (JobState.FAILED, "topic.made_anew", 0)
    assert desk.numbers() == []


# --- order, filter, cap ---


def test_a_record_that_failed_again_goes_before_later_ones_of_its_key(desk: Desk) -> None:
    desk.fail([0, 6, 12])
    first = desk.ask(limit=1)
    assert desk.execute(first).sent == 1
    (again,) = desk.retried()
    producer = desk.settings.producer()
    own = dead_letter_headers(
        again.original_headers(),
        pipeline="out",
        task="w",
        topic=desk.names.retry("out"),
        partition=again.partition,
        offset=again.offset,
        failure=Failure("SINK", "sink.rejected", "no again"),
    )
    produce(producer, desk.names.dead_letters("out"), again.value, again.key, own, partition=again.partition)
    assert producer.flush(20) == 0
    assert desk.execute(desk.ask()).sent == 3
    assert desk.numbers() == [0, 0, 6, 12]
    assert [one.redrives for one in desk.retried()] == [1, 2, 1, 1]


def test_letters_are_chosen_by_what_the_failure_was(desk: Desk) -> None:
    desk.fail([0, 1, 2])
    desk.fail([3, 4], code="record.undecodable", headers=[(REDRIVES, b"2")])

    def chosen(where: str) -> int:
        order = desk.order(where=where)
        return plan_of(desk.around(), "out", order, retry_way(desk.settings, desk.names, "out")).total

    assert chosen("letter.code == 'sink.rejected'") == 3
    assert chosen("letter.reason.endsWith('3') && letter.stage == 'SINK'") == 1
    assert chosen("letter.attempts == 3 && letter.redrives == 2") == 2
    assert chosen("letter.first_failed_at > timestamp('2020-01-01T00:00:00Z') && key == 'k1'") == 1
    with pytest.raises(ConfigurationError) as wrong:
        chosen("letter.kode == 'x'")
    assert "code" in str(wrong.value)


def test_an_event_that_was_sent_again_too_often_is_skipped_and_counted(desk: Desk) -> None:
    desk.fail([0, 1])
    desk.fail([2, 3, 4], headers=[(REDRIVES, b"3")])
    progress = desk.execute(desk.ask(cap=3))
    assert (progress.sent, progress.capped) == (2, 3)
    assert sorted(desk.numbers()) == [0, 1]
    assert len(Redrive(desk.settings, desk.names, "out").waiting()) == 3
    assert desk.execute(desk.ask(cap=4)).sent == 3


# --- pause, resume, cancel, rate: by a worker's runner ---


def test_a_job_is_paused_resumed_and_cancelled_while_a_worker_runs_it(desk: Desk) -> None:
    desk.fail(range(MANY))
    runner = JobRunner(desk.around("worker 1"))
    runner.start()
    try:
        job = desk.ask(rate=8)
        desk.until(lambda: desk.job(job.id).progress.sent > 0, "the first sent")
        assert has_runner(desk.settings, desk.names)
        desk.want(job, Desired.PAUSED)
        desk.until(lambda: desk.job(job.id).progress.state is JobState.PAUSED, "paused")
        paused = desk.job(job.id).progress
        assert paused.sent == len(desk.numbers())
        assert paused.executor == "worker 1"
        other = desk.ask(limit=1)  # a paused job holds up no other one
        desk.until(lambda: desk.job(other.id).ended, "the other one")
        desk.want(job, Desired.RUNNING)
        desk.until(lambda: desk.job(job.id).progress.sent > paused.sent, "more sent")
        desk.want(job, Desired.CANCELLED)
        desk.until(lambda: desk.job(job.id).ended, "cancelled")
    finally:
        runner.stop()
    ended = desk.job(job.id).progress
    assert ended.state is JobState.CANCELLED
    sent = desk.numbers()
    assert len(sent) == len(set(sent)) == ended.sent + 1
    assert len(Redrive(desk.settings, desk.names, "out").waiting()) == MANY - len(sent)
    said = [(entry.who, entry.action) for entry in audit.entries(desk.settings, desk.names, "out")]
    mine = [one for one in said if one[1] != "redrive.done"]
    assert mine == [
        ("ann", "redrive.start"),
        ("bob", "redrive.pause"),
        ("ann", "redrive.start"),
        ("bob", "redrive.resume"),
        ("bob", "redrive.cancel"),
        ("ann", "redrive.cancelled"),
    ]


def test_without_a_worker_a_job_is_executed_by_its_follower_which_may_leave_it_or_cancel_it(desk: Desk) -> None:
    desk.fail(range(MANY))
    cluster = Cluster(desk.settings, desk.names, "ann", lambda: nullcontext(desk.registry))
    job, interrupted = desk.ask(rate=8), threading.Event()
    with closing(follow(cluster, desk.around("ann's"), job, interrupted)) as events:
        now = next(event.job for event in events if event.job.progress.sent > 0)
        assert now.progress.executor == "ann's"
    left = desk.job(job.id)
    assert left.runnable, "leaving it does not end it"
    assert len(desk.numbers()) == left.progress.sent, "nothing is sent after that"

    seen = []
    for event in follow(cluster, desk.around("ann's"), job, interrupted):
        seen.append(event)
        if event.job.progress.sent > left.progress.sent:
            interrupted.set()
    assert {event.happening for event in seen} == {Happening.SEEN}
    assert seen[-1].job.progress.state is JobState.CANCELLED
    assert len(desk.numbers()) == seen[-1].job.progress.sent


@pytest.mark.slow
def test_at_no_moment_more_were_sent_than_the_rate_allows_and_another_worker_goes_on(desk: Desk) -> None:
    desk.fail(range(MANY))
    first, second = JobRunner(desk.around("worker 1")), JobRunner(desk.around("worker 2"))
    first.start()
    try:
        begun = time.time()
        job = desk.ask(rate=12)
        desk.until(lambda: desk.job(job.id).progress.sent >= 6, "some sent")
    finally:
        first.stop()
    left = desk.job(job.id)
    assert not left.ended
    second.start()
    try:
        desk.until(lambda: desk.job(job.id).progress.sent >= left.progress.sent + 12, "more sent")
        desk.want(job, Desired.CANCELLED)
        desk.until(lambda: desk.job(job.id).ended, "cancelled")
    finally:
        second.stop()
    ended = desk.job(job.id).progress
    assert ended.executor == "worker 2"
    sent = desk.numbers()
    assert len(sent) == len(set(sent)) == ended.sent
    assert all(numbers == sorted(numbers) for numbers in by_key(sent).values())
    stamps = sorted(one.timestamp for one in desk.retried())
    # Each of the two runs began with a batch of six at once.
    assert all(stamp / 1000 >= begun + (place - 11) / 12 for place, stamp in enumerate(stamps))


def test_a_job_that_failed_goes_on_when_somebody_resumes_it(desk: Desk) -> None:
    desk.fail([0])
    job = desk.ask(where="letter.nothing == 1")
    failed = desk.execute(job)
    assert (failed.state, failed.code) == (JobState.FAILED, "expression.unknown_field")
    assert not desk.job(job.id).runnable
    desk.want(job, Desired.RUNNING)
    assert desk.job(job.id).runnable
    desk.want(job, Desired.CANCELLED)
    assert desk.execute(job, lambda: Wish(Desired.CANCELLED)).state is JobState.CANCELLED


def test_what_somebody_cancelled_nobody_resumes_by_having_looked_before(desk: Desk) -> None:
    desk.fail([0])
    job = desk.ask()
    desk.want(job, Desired.CANCELLED)
    with pytest.raises(ConfigurationError, match="was cancelled by bob and can't be resumed") as raised:
        desk.want(job, Desired.RUNNING)
    assert raised.value.code == "job.ended"
    desk.want(job, Desired.CANCELLED)
    assert desk.execute(job, lambda: Wish(Desired.CANCELLED)).state is JobState.CANCELLED
    desk.want(job, Desired.CANCELLED)  # has ended: there is nothing to write
    trail = [one for one in audit.entries(desk.settings, desk.names, "out") if one.action == "redrive.cancel"]
    assert [(one.details["before"], one.details["after"]) for one in trail] == [
        ("running", "cancelled"),
        ("cancelled", "cancelled"),
    ]


def test_letters_of_a_pipeline_that_was_deleted_since_they_were_asked_for_stay_where_they_are(desk: Desk) -> None:
    desk.fail([0])
    job = desk.ask()
    around = replace(desk.around(), attended=lambda _pipeline: False)
    failed = RedriveExecution(around, job, wish=Wish).run()
    assert (failed.state, failed.code) == (JobState.FAILED, "redrive.unattended")
    assert desk.numbers() == []
    desk.want(job, Desired.RUNNING)  # once somebody applied it again
    assert desk.execute(job).state is JobState.DONE
    assert desk.numbers() == [0]


def test_a_job_that_ended_long_ago_is_forgotten(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fail([0])
    job, open_one = desk.ask(), desk.ask(rate=0.001)
    assert desk.execute(job).state is JobState.DONE
    desk.want(open_one, Desired.PAUSED)
    monkeypatch.setattr("trunkline.bus.redrive.runner.KEPT_SECONDS", 0.0)
    runner = JobRunner(desk.around("worker 1"))
    runner.start()
    try:
        desk.until(lambda: job.id not in JobLog.read(desk.settings, desk.names).jobs, "the old one forgotten")
    finally:
        runner.stop()
    assert not desk.job(open_one.id).ended
    assert JobLog.read(desk.settings, desk.names).redriven == {"out": 1}


# --- edits ---


@pytest.fixture
async def editing(kafka: KafkaUnderTest, namespace: str) -> Any:
    registry = Registry()
    await registry.start()
    made = Desk(kafka.bootstrap, namespace, registry.url)
    yield made
    made.registry.close()
    await registry.stop()


def encoded(desk: Desk, schema: Any = ORDER) -> Callable[[int], bytes]:
    encoder = Encoder(desk.registry.register(f"{desk.topic}-value", Schema(schema)))
    return lambda number: encoder.encode(order(number, amount=number * 10))


def edit(document: Mapping[str, Any] | None = None, **changes: str) -> dict[str, Any]:
    return Edit(document, changes).as_dict()


async def test_an_edit_that_does_not_fit_the_schema_is_refused_with_field_and_reason_before_anything_is_sent(
    editing: Desk,
) -> None:
    def run() -> tuple[Progress, list[DeadLetter]]:
        editing.fail([0, 1, 2], value=encoded(editing))
        editing.fail([3], value=lambda _number: b"no avro")
        job = editing.ask(edit=edit(amount="event.id > 1 ? dyn('many') : dyn(1)"))
        return editing.execute(job), editing.retried()

    progress, sent = await asyncio.to_thread(run)
    assert (progress.state, progress.code, progress.sent, sent) == (JobState.FAILED, "edit.refused", 0, [])
    assert "amount" in (progress.reason or "")
    assert "0@" in (progress.reason or "")


async def test_edited_values_are_encoded_with_the_newest_schema_of_their_topic_and_keep_their_headers(
    editing: Desk,
) -> None:
    newer = {**ORDER, "fields": [*ORDER["fields"], {"name": "channel", "type": "string", "default": "web"}]}

    def run() -> list[DeadLetter]:
        editing.fail([0, 2], value=encoded(editing))
        editing.fail([4], value=lambda _number: b"no avro")
        encoded(editing, newer)
        changes = edit(amount="event.amount + 1", note="letter.reason")
        assert editing.execute(editing.ask(where="event.id >= 0", edit=changes)).sent == 2
        (broken,) = Redrive(editing.settings, editing.names, "out").waiting()
        refused = editing.execute(editing.ask(places=(broken.place,), edit=edit({"id": 4, "customer": "c"})))
        assert (refused.code, refused.sent) == ("edit.refused", 0)
        assert "amount" in (refused.reason or "")
        mended = edit({"id": 4, "customer": "c", "amount": 7})
        assert editing.execute(editing.ask(places=(broken.place,), edit=mended)).sent == 1
        return editing.retried()

    sent = await asyncio.to_thread(run)
    assert [unframed(one.value or b"", newer) for one in sent] == [
        {"id": 0, "customer": "c0", "amount": 1, "note": "no 0", "channel": "web"},
        {"id": 2, "customer": "c0", "amount": 21, "note": "no 2", "channel": "web"},
        {"id": 4, "customer": "c", "amount": 7, "note": "", "channel": "web"},
    ]
    assert [one.header("ce_id") for one in sent] == ["0", "2", "4"]
    assert [offset_of_first(one) for one in sent] == [0, 2, 4]


def offset_of_first(letter: DeadLetter) -> int:
    return letter.first_origin[2]
