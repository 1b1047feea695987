"""Lag as Kafka has it: in records, in seconds since the first that waits, what expired unread, and what can't be known."""

from __future__ import annotations

import time
from typing import Any, ClassVar

import pytest
from confluent_kafka import Producer, TopicPartition

from trunkline.bus.accounting import backlog
from trunkline.bus.accounting.commits import Commits, all_committed
from trunkline.bus.accounting.inputs import Inputs, inputs_of
from trunkline.bus.accounting.lag import PartitionLag, Unknown, summed
from trunkline.bus.accounting.lagreader import LagReader
from trunkline.bus.kafka import KafkaSettings, end_offsets
from trunkline.bus.knownoffsets import Reached
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics, topic_identities

pytestmark = pytest.mark.kafka
WIDE = 200


@pytest.fixture
def settings(kafka: Any) -> KafkaSettings:
    return KafkaSettings(kafka.bootstrap)


@pytest.fixture
def names(namespace: str) -> Names:
    return Names(namespace)


@pytest.fixture
def transaction(settings: KafkaSettings, names: Names) -> Producer:
    """A producer in a transaction."""
    producer = settings.producer(transactional_id=f"{names.namespace}.writer")
    producer.init_transactions(30)
    producer.begin_transaction()
    return producer


def topic(settings: KafkaSettings, names: Names, partitions: int = 1, name: str = "lagging") -> str:
    name = f"{names.namespace}.{name}"
    ensure_topics(settings, [TopicPlan(name, partitions)])
    return name


def write(settings: KafkaSettings, name: str, partition: int, stamps: list[float]) -> None:
    producer = settings.producer()
    for stamp in stamps:
        producer.produce(name, b"x", partition=partition, timestamp=int(stamp * 1000))
    assert producer.flush(30) == 0


def write_each_in_a_transaction(settings: KafkaSettings, names: Names, name: str, records: int) -> None:
    producer = settings.producer(transactional_id=f"{names.namespace}.each")
    producer.init_transactions(30)
    for _ in range(records):
        producer.begin_transaction()
        producer.produce(name, b"x", partition=0)
        producer.commit_transaction(30)
    until_stable(settings, name)


def until_stable(settings: KafkaSettings, name: str) -> None:
    """Waits for the markers of transactions that ended: a coordinator writes them after it said that they did."""
    deadline = time.monotonic() + 120
    while end_offsets(settings, name, committed_only=True) != end_offsets(settings, name):
        assert time.monotonic() < deadline, "a transaction has not ended"
        time.sleep(0.02)


def commit(settings: KafkaSettings, names: Names, pipeline: str, offsets: dict[tuple[str, int], int]) -> None:
    consumer = settings.consumer(names.group(pipeline))
    try:
        parts = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        consumer.commit(offsets=parts, asynchronous=False)
    finally:
        consumer.close()


def at(offsets: dict[tuple[str, int], int]) -> Commits:
    return {place: (offset, Ledger(first=offset)) for place, offset in offsets.items()}


def measured(settings: KafkaSettings, names: Names, pipelines: list[str]) -> list[PartitionLag]:
    return LagReader(settings).measure(all_committed(settings, names, pipelines))


def by_partition(found: list[PartitionLag]) -> dict[int, PartitionLag]:
    return {one.partition: one for one in found}


class Counting(KafkaSettings):
    """Settings that note each reader they make."""

    readers: ClassVar[list[object]] = []

    def reader(self, **options: Any) -> Any:
        self.readers.append(options)
        return super().reader(**options)


@pytest.fixture
def counting(settings: KafkaSettings) -> Counting:
    Counting.readers.clear()
    return Counting(settings.bootstrap)


def test_lag_in_seconds_is_the_age_of_the_first_record_that_is_not_committed(
    settings: KafkaSettings, names: Names
) -> None:
    name, now = topic(settings, names, 3), time.time()
    for partition, age in enumerate((5000, 900, 60)):
        write(settings, name, partition, [now - 9000, now - age, now])
    commit(settings, names, "late", {(name, 0): 1, (name, 1): 1, (name, 2): 3})
    found = by_partition(measured(settings, names, ["late"]))
    assert {partition: one.records for partition, one in found.items()} == {0: 2, 1: 2, 2: 0}
    assert [round(found[partition].seconds or 0, -2) for partition in (0, 1, 2)] == [5000, 900, 0]
    assert found[2].seconds == 0.0
    assert [one.unknown for one in found.values()] == [None, None, None]


def test_pipelines_at_different_offsets_of_one_partition_have_each_their_own_lag(
    settings: KafkaSettings, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, now = topic(settings, names), time.time()
    write(settings, name, 0, [now - 7000, now - 3000, now - 500])
    committed = {pipeline: at({(name, 0): offset}) for pipeline, offset in (("a", 0), ("b", 1), ("c", 2))}

    def found() -> dict[str, tuple[int | None, float]]:
        lags = LagReader(settings).measure(committed)
        return {one.pipeline: (one.records, round(one.seconds or 0, -2)) for one in lags}

    whole = {"a": (3, 7000), "b": (2, 3000), "c": (1, 500)}
    assert found() == whole
    monkeypatch.setattr(backlog, "COUNTED_OFFSETS", 1)  # of the first two only the first record is read
    assert found() == whole


def test_a_record_that_comes_behind_a_marker_is_lag_although_nothing_lagged_before(
    settings: KafkaSettings, names: Names
) -> None:
    name = topic(settings, names)
    write_each_in_a_transaction(settings, names, name, 1)
    reader, committed = LagReader(settings), {"done": at({(name, 0): 1})}
    [before] = reader.measure(committed)
    assert (before.end, before.records, before.seconds) == (2, 0, 0.0)
    write(settings, name, 0, [time.time() - 300])
    [after] = reader.measure(committed)
    assert (after.records, round(after.seconds or 0, -2)) == (1, 300)


def test_lag_counts_records_and_not_the_markers_of_transactions_nor_what_they_undid(
    settings: KafkaSettings, names: Names
) -> None:
    name = topic(settings, names)
    write_each_in_a_transaction(settings, names, name, 4)
    producer = settings.producer(transactional_id=f"{names.namespace}.undone")
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(name, b"x", partition=0)
    producer.flush(30)
    producer.abort_transaction(30)
    until_stable(settings, name)
    [found] = LagReader(settings).measure({"late": at({(name, 0): 0})})
    assert ((found.end or 0) - (found.committed or 0), found.records, found.exact) == (10, 4, True)


def test_what_came_since_the_last_measurement_is_read_and_nothing_twice(counting: Counting, names: Names) -> None:
    name = topic(counting, names)
    write_each_in_a_transaction(counting, names, name, 3)
    reader, committed = LagReader(counting), {"late": at({(name, 0): 0})}
    assert [one.records for one in reader.measure(committed)] == [3]
    assert [one.records for one in reader.measure(committed)] == [3]
    assert len(counting.readers) == 1
    write(counting, name, 0, [time.time()] * 2)
    assert [one.records for one in reader.measure(committed)] == [5]
    assert [one.records for one in reader.measure({"late": at({(name, 0): 2})})] == [4]


def test_of_much_that_waits_the_number_is_an_estimate_by_what_was_read_before_and_says_so(
    settings: KafkaSettings, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "COUNTED_OFFSETS", 10)
    name, now = topic(settings, names), time.time()
    write(settings, name, 0, [now - 5000] * 200)
    ledger = Ledger(first=0, read=60)  # of the 120 offsets before the commit
    [found] = LagReader(settings).measure({"late": {(name, 0): (120, ledger)}})
    assert (found.records, found.exact, round(found.seconds or 0, -2)) == (
        1 + 40,
        False,
        5000,
    )  # 1 that was read, of 79 half
    [unread] = LagReader(settings).measure({"late": at({(name, 0): 120})})
    assert (unread.records, unread.exact) == (80, False)


def test_records_that_expired_unread_are_counted_as_lost_and_the_lag_is_what_is_left(
    settings: KafkaSettings, names: Names
) -> None:
    name, now = topic(settings, names), time.time()
    write(settings, name, 0, [now - 9000, now - 8000, now - 400, now])
    admin = settings.admin()
    [deleted] = admin.delete_records([TopicPartition(name, 0, 2)]).values()
    assert deleted.result(20).low_watermark == 2
    [found] = LagReader(settings).measure({"slow": at({(name, 0): 0})})
    assert (found.committed, found.end, found.lost, found.records) == (0, 4, 2, 2)
    assert round(found.seconds or 0, -2) == 400


def test_of_many_partitions_that_are_all_behind_one_measurement_finds_every_age_and_the_next_one_reads_none(
    counting: Counting, names: Names
) -> None:
    name, now = topic(counting, names, WIDE), time.time()
    producer = counting.producer()
    for partition in range(WIDE):
        producer.produce(name, b"x", partition=partition, timestamp=int((now - 1000 - partition) * 1000))
    assert producer.flush(30) == 0
    lag, committed = LagReader(counting), {"wide": at({(name, partition): 0 for partition in range(WIDE)})}
    found = by_partition(lag.measure(committed))
    assert sum(one.seconds is not None and one.seconds >= 1000 + one.partition - 1 for one in found.values()) == WIDE
    before = len(counting.readers)
    assert len(lag.measure(committed)) == WIDE
    assert (before, len(counting.readers)) == (1, 1)


def test_a_topic_that_is_gone_is_named_and_hides_no_other(settings: KafkaSettings, names: Names) -> None:
    name = topic(settings, names)
    write(settings, name, 0, [time.time()])
    gone = f"{names.namespace}.gone"
    found = LagReader(settings).measure({"late": at({(name, 0): 0, (gone, 0): 5})})
    assert [(one.topic, one.records, one.unknown) for one in found] == [
        (gone, None, Unknown.TOPIC_GONE),
        (name, 1, None),
    ]
    together = summed("late", found)
    assert (together.records, together.unknown) == (1, (Unknown.TOPIC_GONE,))


def test_a_commit_beyond_the_end_is_that_of_a_former_topic_and_no_lag_of_0(
    settings: KafkaSettings, names: Names
) -> None:
    name = topic(settings, names)
    write(settings, name, 0, [time.time()])
    found = LagReader(settings).measure({"late": at({(name, 0): 7})})
    assert [(one.records, one.seconds, one.unknown) for one in found] == [(None, None, Unknown.TOPIC_REPLACED)]
    assert summed("late", found).records is None


def test_a_topic_that_was_made_anew_is_named_also_where_it_has_come_further_than_the_former_one(
    settings: KafkaSettings, names: Names
) -> None:
    name = topic(settings, names)
    write(settings, name, 0, [time.time()])
    former = topic_identities(settings, [name])[name].id
    admin = settings.admin()
    admin.delete_topics([name], operation_timeout=20)[name].result(20)
    deadline = time.monotonic() + 120
    while topic_identities(settings, [name]):
        assert time.monotonic() < deadline, "the topic is still there"
    topic(settings, names)
    write(settings, name, 0, [time.time()] * 3)
    committed: dict[str, Commits] = {"late": {(name, 0): (1, Ledger(topic_id=former))}}
    [found] = LagReader(settings).measure(committed)
    assert (found.records, found.seconds, found.unknown) == (None, None, Unknown.TOPIC_REPLACED)
    # Kafka deletes the commits with the topic: what workers reported tells.
    place = (name, 0)
    inputs = {"late": Inputs(frozenset({place}))}
    for topic_id, expected in ((former, Unknown.TOPIC_REPLACED), ("", Unknown.COMMIT_GONE)):
        [without] = LagReader(settings).measure({}, inputs, {"late": {place: {topic_id: Reached(1, 1)}}})
        assert (without.records, without.unknown) == (None, expected)


def test_what_nobody_committed_yet_is_unknown(settings: KafkaSettings, names: Names) -> None:
    name = topic(settings, names, 2)
    found = LagReader(settings).measure({"new": at({(name, 0): 0})}, {"new": Inputs(frozenset({(name, 0), (name, 1)}))})
    assert [(one.partition, one.records, one.unknown) for one in found] == [
        (0, 0, None),
        (1, None, Unknown.NOT_COMMITTED),
    ]
    together = summed("new", found)
    assert (together.records, together.seconds, together.unknown) == (None, None, (Unknown.NOT_COMMITTED,))
    assert summed("newer", []).unknown == (Unknown.NOT_COMMITTED,)


def test_a_timestamp_in_the_future_says_nothing_of_an_age_and_is_named(settings: KafkaSettings, names: Names) -> None:
    name = topic(settings, names)
    write(settings, name, 0, [time.time() + 600])
    [found] = LagReader(settings).measure({"late": at({(name, 0): 0})})
    assert (found.records, found.seconds, found.unknown) == (1, None, Unknown.NO_TIMESTAMP)


def test_a_transaction_that_does_not_end_is_named_with_what_it_holds_back(
    settings: KafkaSettings, names: Names, transaction: Producer
) -> None:
    name, now = topic(settings, names), time.time()
    write(settings, name, 0, [now - 900])
    transaction.produce(name, b"x", partition=0, timestamp=int((now - 600) * 1000))
    transaction.flush(30)
    write(settings, name, 0, [now - 300] * 3)
    reader = LagReader(settings)
    [before] = reader.measure({"late": at({(name, 0): 0})})
    assert (before.records, before.unknown) == (1, None)
    [found] = reader.measure({"late": at({(name, 0): 1})})
    assert (found.records, found.held, found.unknown) == (0, 4, Unknown.OPEN_TRANSACTION)
    assert round(now - (found.held_since or 0)) == 600
    assert summed("late", [found]).unknown == (Unknown.OPEN_TRANSACTION,)
    transaction.commit_transaction(30)
    until_stable(settings, name)
    [after] = reader.measure({"late": at({(name, 0): 1})})
    assert (after.records, after.unknown) == (4, None)


def test_a_transaction_that_is_young_is_not_worth_a_word(
    settings: KafkaSettings, names: Names, transaction: Producer
) -> None:
    name = topic(settings, names)
    transaction.produce(name, b"x", partition=0)
    transaction.flush(30)
    [found] = LagReader(settings).measure({"late": at({(name, 0): 0})})
    assert (found.records, found.held, found.unknown) == (0, 0, None)
    transaction.abort_transaction(30)


def test_the_inputs_of_a_pipeline_are_those_that_exist_and_those_that_are_missing_have_a_name(
    settings: KafkaSettings, names: Names
) -> None:
    name, retry = topic(settings, names, 2), topic(settings, names, 1, "out.retry")
    family, gone = f"{names.namespace}.*", f"{names.namespace}.gone"
    found = inputs_of(settings, names, {"out": [name, gone], "all": [family]})
    assert found["out"] == Inputs(frozenset({(name, 0), (name, 1), (retry, 0)}), (gone,))
    assert found["all"] == Inputs(frozenset({(name, 0), (name, 1), (retry, 0)}))
    lags = LagReader(settings).measure({}, {"out": found["out"]})
    assert [one.unknown for one in lags] == [*[Unknown.NOT_COMMITTED] * 3, Unknown.TOPIC_GONE]
    assert summed("out", lags).unknown == (Unknown.NOT_COMMITTED, Unknown.TOPIC_GONE)
