"""Setting offsets: what it says before it does anything, what it leaves alone, and that nobody reads meanwhile."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from conftest import KafkaUnderTest, MakeTopic
from typer.testing import CliRunner

from trunkline.bus.accounting import audit
from trunkline.bus.accounting.commits import committed
from trunkline.bus.accounting.moves import Target
from trunkline.bus.kafka import KafkaSettings, patiently, transactional_producer
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.topics import TopicPlan, ensure_topics, internal_topics, topic_identities
from trunkline.bus.worker import unattended
from trunkline.bus.worker.board import Board, Report
from trunkline.cli.main import app
from trunkline.control import offsets
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, ConflictError

pytestmark = pytest.mark.kafka


class Stopped:
    """A stopped pipeline `out` that read six of ten records of partition 0, three of those of partition 1, and the four of a redrive."""

    def __init__(self, kafka: KafkaUnderTest, namespace: str, make_topic: MakeTopic) -> None:
        self.settings, self.names = KafkaSettings(kafka.bootstrap), Names(namespace)
        ensure_topics(self.settings, internal_topics(self.names))
        self.topic, self.retry = make_topic("orders", partitions=2), self.names.retry("out")
        ensure_topics(self.settings, [TopicPlan(self.retry, 2)])
        self.ids = {name: found.id for name, found in topic_identities(self.settings, [self.topic, self.retry]).items()}
        self.write(self.topic, 0, 10)
        self.write(self.topic, 1, 10)
        self.write(self.retry, 0, 4)
        self.commit({(self.topic, 0): 6, (self.topic, 1): 3, (self.retry, 0): 4, (self.retry, 1): 0})
        self.report({})

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.settings, self.names, "somebody", lambda: nullcontext(None))  # type: ignore[arg-type]

    def write(self, topic: str, partition: int, count: int) -> None:
        producer = self.settings.producer()
        for number in range(count):
            producer.produce(topic, str(number).encode(), partition=partition)
        assert producer.flush(20) == 0

    def commit(self, places: dict[tuple[str, int], int], **ids: str) -> None:
        """Commits offsets, of the topics as they are unless other ids are given."""
        parts = [
            TopicPartition(*place, offset, Ledger(topic_id=ids.get("topic_id", self.ids[place[0]])).to_metadata())
            for place, offset in places.items()
        ]
        consumer = self.settings.consumer(self.names.group("out"))
        patiently(lambda: consumer.commit(offsets=parts, asynchronous=False), "the commit is refused", 30)
        consumer.close()

    def report(self, positions: dict[str, int], topic_ids: dict[str, str] | None = None) -> None:
        now = time.time()
        board = Board(self.settings, self.names)
        board.report(
            Report("out", "Sink", "w", State.STOPPED, now, now, positions=positions, topic_ids=topic_ids or {})
        )
        board.flush()

    def delete_before(self, partition: int, offset: int) -> None:
        admin = self.settings.admin()
        (done,) = admin.delete_records([TopicPartition(self.topic, partition, offset)]).values()
        done.result(20)

    def positions(self) -> dict[tuple[str, int], int]:
        return {place: offset for place, (offset, _) in committed(self.settings, self.names, "out").items()}

    def plan(self, target: Target, **chosen: Any) -> offsets.OffsetsPlan:
        return offsets.plan(self.cluster, "out", target, **chosen)


@pytest.fixture
def stopped(kafka: KafkaUnderTest, namespace: str, make_topic: MakeTopic) -> Stopped:
    return Stopped(kafka, namespace, make_topic)


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    """Whoever sets offsets, as a worker may for years, leaves no thread behind."""
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("offsets-") and thread.name.endswith("-set"):
            thread.join(10)
            assert not thread.is_alive()


def test_a_plan_says_of_each_partition_what_is_read_again_and_what_is_skipped(stopped: Stopped) -> None:
    def numbers(target: Target, **chosen: Any) -> list[tuple[int, int, int, int]]:
        planned = stopped.plan(target, **chosen)
        assert planned.exact
        return [(one.partition, one.offset, one.again, one.skipped) for one in planned.moves]

    assert numbers("earliest") == [(0, 0, 6, 0), (1, 0, 3, 0)]
    assert numbers("latest") == [(0, 10, 0, 4), (1, 10, 0, 7)]
    assert numbers("earliest", partitions=[1]) == [(1, 0, 3, 0)]
    assert numbers(8, partitions=[1]) == [(1, 8, 0, 5)]
    assert stopped.positions()[stopped.topic, 0] == 6, "a plan changed something"


def test_what_a_redrive_sent_is_read_again_only_where_the_retry_topic_is_named(stopped: Stopped) -> None:
    planned = stopped.plan("earliest")
    assert {one.topic for one in planned.moves} == {stopped.topic}
    assert (planned.redriven, planned.left) == (False, ((stopped.retry, 0),))
    named = stopped.plan("earliest", topics=[stopped.retry])
    assert [(one.topic, one.partition, one.again) for one in named.moves] == [(stopped.retry, 0, 4)]
    assert named.redriven


def test_records_are_counted_and_not_the_markers_of_transactions(stopped: Stopped) -> None:
    producer = transactional_producer(stopped.settings, stopped.names.transactional_id("writer"))
    for number in range(5):
        producer.begin_transaction()
        producer.produce(stopped.topic, str(number).encode(), partition=0)
        producer.commit_transaction(20)
    (moved,) = stopped.plan("latest", partitions=[0]).moves
    assert (moved.end - moved.first, moved.skipped) == (20, 4 + 5)


def test_after_the_gap_only_what_was_deleted_unread_is_passed_over(stopped: Stopped) -> None:
    with pytest.raises(ConfigurationError) as nothing:
        stopped.plan("after-gap")
    assert nothing.value.code == "offsets.none"
    stopped.delete_before(0, 2)  # that was read
    stopped.delete_before(1, 5)
    (shown,) = [one for one in offsets.of_pipeline(stopped.cluster, "out") if one.fault]
    assert (shown.partition, shown.fault) == (1, "2 were deleted unread: the first is 5 now")
    planned = stopped.plan("after-gap")
    assert [(one.partition, one.offset, one.lost, one.again, one.skipped) for one in planned.moves] == [(1, 5, 2, 0, 0)]
    offsets.carry_out(stopped.cluster, planned)
    assert stopped.positions() == {
        (stopped.topic, 0): 6,
        (stopped.topic, 1): 5,
        (stopped.retry, 0): 4,
        (stopped.retry, 1): 0,
    }
    ledger = committed(stopped.settings, stopped.names, "out")[stopped.topic, 1][1]
    assert (ledger.first, ledger.epoch, ledger.topic_id) == (5, 2, stopped.ids[stopped.topic])
    (entry,) = audit.entries(stopped.settings, stopped.names, "out")
    assert (entry.action, entry.who, entry.details["partitions"][0]["lost"]) == ("offsets.set", "somebody", 2)


def test_only_a_commit_that_is_gone_is_restored_and_never_from_another_topic(stopped: Stopped) -> None:
    for partition in (0, 1):
        stopped.write(stopped.topic, partition, 1)
    admin = stopped.settings.admin()
    admin.delete_consumer_groups([stopped.names.group("out")])[stopped.names.group("out")].result(20)
    stopped.commit({(stopped.topic, 0): 6})
    positions = {f"{stopped.topic}/0": 4, f"{stopped.topic}/1": 2}
    stopped.report(positions, {stopped.topic: "the-one-before"})
    with pytest.raises(ConfigurationError) as nothing:
        stopped.plan("saved")
    assert nothing.value.code == "offsets.none"
    stopped.report(positions, {stopped.topic: stopped.ids[stopped.topic]})
    assert [(one.partition, one.offset, one.again) for one in stopped.plan("saved").moves] == [(1, 2, 0)]


def test_adopting_keeps_the_offset_and_says_what_of_the_new_topic_is_not_read(stopped: Stopped) -> None:
    stopped.commit({(stopped.topic, 0): 6, (stopped.topic, 1): 10}, topic_id="the-one-before")
    assert all("made anew" in one.fault for one in offsets.of_pipeline(stopped.cluster, "out")[:2])
    planned = stopped.plan("adopt")
    assert [(one.offset, one.again, one.skipped) for one in planned.moves] == [(6, 0, 6), (10, 0, 10)]
    offsets.carry_out(stopped.cluster, planned)
    adopted = committed(stopped.settings, stopped.names, "out")[stopped.topic, 0]
    assert (adopted[0], adopted[1].topic_id, adopted[1].read) == (6, stopped.ids[stopped.topic], 0)
    stopped.commit({(stopped.topic, 0): 60}, topic_id="the-one-before")
    with pytest.raises(ConfigurationError) as beyond:
        stopped.plan("adopt")
    assert beyond.value.code == "offsets.out_of_range"


def test_offsets_that_moved_since_they_were_shown_are_not_set(stopped: Stopped) -> None:
    planned = stopped.plan("earliest")
    stopped.commit({(stopped.topic, 0): 7})
    with pytest.raises(ConflictError) as moved:
        offsets.carry_out(stopped.cluster, planned)
    assert f"{stopped.topic}[0] was 6, is 7" in moved.value.message
    assert stopped.positions()[stopped.topic, 1] == 3


def test_nothing_is_set_under_a_member_of_the_group(stopped: Stopped) -> None:
    planned = stopped.plan("earliest")
    member = stopped.settings.consumer(stopped.names.group("out"))
    try:
        member.subscribe([stopped.topic])
        deadline = time.monotonic() + 30
        while not member.assignment() and time.monotonic() < deadline:
            member.consume(1, 0.1)
        assert member.assignment()
        with pytest.raises(ConfigurationError) as running:
            offsets.carry_out(stopped.cluster, planned)
        assert running.value.code == "offsets.in_use"
    finally:
        member.close()
    assert stopped.positions()[stopped.topic, 0] == 6
    assert not list(audit.entries(stopped.settings, stopped.names, "out"))


@pytest.fixture
def asked_meanwhile(stopped: Stopped, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Somebody who asks for the group's offset right after it was seen to have no member."""
    answers: list[int] = []
    member = stopped.settings.consumer(stopped.names.group("out"))

    def ask() -> None:
        answers.append(member.committed([TopicPartition(stopped.topic, 0)], timeout=30)[0].offset)

    threads: list[threading.Thread] = []
    seen = unattended.refuse_attended

    def then_ask(*arguments: Any) -> None:
        seen(*arguments)
        if len(threads) < 2:
            threads.append(threading.Thread(target=ask if threads else lambda: None))
            threads[-1].start()

    monkeypatch.setattr(unattended, "refuse_attended", then_ask)
    yield answers
    for thread in threads:
        thread.join(30)
    member.close()


def test_who_comes_while_offsets_are_set_begins_at_the_new_ones(stopped: Stopped, asked_meanwhile: list[int]) -> None:
    offsets.carry_out(stopped.cluster, stopped.plan("earliest"))
    deadline = time.monotonic() + 30
    while not asked_meanwhile and time.monotonic() < deadline:
        time.sleep(0.02)
    assert asked_meanwhile == [0]


def test_the_command_shows_asks_and_leaves_alone_what_it_is_not_told(
    stopped: Stopped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*arguments: str) -> Any:
        shared = ["--bootstrap", stopped.settings.bootstrap, "--namespace", stopped.names.namespace]
        return CliRunner().invoke(app, [*shared, "--home", str(tmp_path / "home"), *arguments])

    monkeypatch.delenv("TRUNKLINE_REGISTRY_URL", raising=False)
    to_partition = ["offsets", "set", "out", "--to", "earliest", "--topic", stopped.topic, "--partition", "1"]
    unasked = run(*to_partition)
    assert (unasked.exit_code, "offsets.unconfirmed" in unasked.stderr) == (2, True)
    dry = run("-o", "json", "offsets", "set", "out", "--to", "earliest", "--dry-run")
    assert dry.exit_code == 0, dry.stderr
    assert {name: json.loads(dry.stdout)[name] for name in ("again", "skipped", "redriven")} == {
        "again": 9,
        "skipped": 0,
        "redriven": False,
    }
    done = run(*to_partition, "--yes")
    assert done.exit_code == 0, done.stderr
    assert "3 records will be read again, 0 will be skipped" in done.stderr
    assert stopped.positions()[stopped.topic, 0] == 6
    assert stopped.positions()[stopped.topic, 1] == 0
    wrong = run("offsets", "set", "out", "--to", "earliest", "--topic", "ordres", "--dry-run")
    assert (wrong.exit_code, "offsets.topic" in wrong.stderr) == (2, True)
