"""Lag as Kafka has it: in offsets, in seconds since the first record that waits, and what expired unread."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from trunkline.bus.accounting.commits import positions
from trunkline.bus.accounting.lag import LagMetrics, LagReader, PartitionLag
from trunkline.bus.embedded import EmbeddedKafka
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.core.metrics import gauge

pytestmark = pytest.mark.kafka
WIDE = 200


@pytest.fixture
def settings(kafka: Any) -> KafkaSettings:
    return KafkaSettings(kafka.bootstrap)


@pytest.fixture
def names(namespace: str) -> Names:
    return Names(namespace)


def topic(settings: KafkaSettings, names: Names, partitions: int = 1) -> str:
    name = f"{names.namespace}.lagging"
    ensure_topics(settings, [TopicPlan(name, partitions)])
    return name


def write(settings: KafkaSettings, name: str, partition: int, stamps: list[float]) -> None:
    producer = settings.producer()
    for stamp in stamps:
        producer.produce(name, b"x", partition=partition, timestamp=int(stamp * 1000))
    assert producer.flush(30) == 0


def commit(settings: KafkaSettings, names: Names, pipeline: str, offsets: dict[tuple[str, int], int]) -> None:
    consumer = settings.consumer(names.group(pipeline))
    try:
        parts = [TopicPartition(*place, offset) for place, offset in offsets.items()]
        consumer.commit(offsets=parts, asynchronous=False)
    finally:
        consumer.close()


def measured(settings: KafkaSettings, names: Names, pipelines: list[str]) -> list[PartitionLag]:
    return LagReader(settings).measure(positions(settings, names, pipelines))


def by_partition(found: list[PartitionLag]) -> dict[int, PartitionLag]:
    return {one.partition: one for one in found}


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


def test_pipelines_at_different_offsets_of_one_partition_have_each_their_own_age(
    settings: KafkaSettings, names: Names
) -> None:
    name, now = topic(settings, names), time.time()
    write(settings, name, 0, [now - 7000, now - 3000, now - 500])
    for pipeline, offset in (("first", 0), ("second", 1), ("third", 2)):
        commit(settings, names, pipeline, {(name, 0): offset})
    found = {one.pipeline: one for one in measured(settings, names, ["first", "second", "third"])}
    assert {pipeline: round(one.seconds or 0, -2) for pipeline, one in found.items()} == {
        "first": 7000,
        "second": 3000,
        "third": 500,
    }


def test_where_only_a_marker_of_a_transaction_follows_the_commit_nothing_lags(
    settings: KafkaSettings, names: Names
) -> None:
    name = topic(settings, names)
    producer = settings.producer(transactional_id=f"{names.namespace}.writer")
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(name, b"x", partition=0)
    producer.commit_transaction(30)
    commit(settings, names, "done", {(name, 0): 1})
    [found] = measured(settings, names, ["done"])
    assert (found.end - found.committed, found.records, found.seconds) == (1, 0, 0.0)


def test_records_that_expired_unread_are_counted_as_lost_and_the_age_is_that_of_the_first_one_left(
    settings: KafkaSettings, names: Names
) -> None:
    name, now = topic(settings, names), time.time()
    write(settings, name, 0, [now - 9000, now - 8000, now - 400, now])
    commit(settings, names, "slow", {(name, 0): 0})
    admin = settings.admin()
    [deleted] = admin.delete_records([TopicPartition(name, 0, 2)]).values()
    assert deleted.result(20).low_watermark == 2
    [found] = measured(settings, names, ["slow"])
    assert (found.committed, found.end, found.lost, found.records) == (0, 4, 2, 4)
    assert round(found.seconds or 0, -2) == 400


def test_of_many_partitions_that_are_all_behind_one_measurement_finds_every_age_and_the_next_one_reads_none(
    settings: KafkaSettings, names: Names
) -> None:
    name, now = topic(settings, names, WIDE), time.time()
    producer = settings.producer()
    for partition in range(WIDE):
        producer.produce(name, b"x", partition=partition, timestamp=int((now - 1000 - partition) * 1000))
    assert producer.flush(30) == 0
    commit(settings, names, "wide", {(name, partition): 0 for partition in range(WIDE)})
    readers: list[object] = []

    class Counting(KafkaSettings):
        def reader(self, **options: Any) -> Any:
            readers.append(options)
            return super().reader(**options)

    lag = LagReader(Counting(settings.bootstrap))
    committed = positions(settings, names, ["wide"])
    found = by_partition(lag.measure(committed))
    assert sum(one.seconds is not None and one.seconds >= 1000 + one.partition - 1 for one in found.values()) == WIDE
    before = len(readers)
    assert len(lag.measure(committed)) == WIDE
    assert (before, len(readers)) == (1, 1)


def test_the_metrics_say_records_seconds_and_the_largest_age_of_the_group(
    settings: KafkaSettings, names: Names
) -> None:
    name, now = topic(settings, names, 2), time.time()
    write(settings, name, 0, [now - 800])
    write(settings, name, 1, [now - 4000])
    commit(settings, names, "late", {(name, 0): 0, (name, 1): 0})
    LagMetrics(settings, names).update({}, ["late"])
    group = names.group("late")
    records = gauge("kafka_consumergroup_lag").labels(group, name, "1")._value.get()
    largest = gauge("kafka_consumergroup_group_max_lag_seconds").labels(group)._value.get()
    assert (records, round(largest, -2)) == (1, 4000)


def test_lag_is_measured_again_as_soon_as_the_broker_is_back(tmp_path: Path, names: Names) -> None:
    broker = EmbeddedKafka(tmp_path)
    settings = KafkaSettings(broker.start().bootstrap)
    try:
        name = topic(settings, names)
        write(settings, name, 0, [time.time()])
        reader = LagReader(settings)
        assert [one.end for one in reader.measure({"late": {(name, 0): 0}})] == [1]
        broker.stop()
        broker.start()
        # The leader has another epoch now: the client that asked before has to learn of it.
        assert [one.end for one in reader.measure({"late": {(name, 0): 0}})] == [1]
    finally:
        broker.stop()
