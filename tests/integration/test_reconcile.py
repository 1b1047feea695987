"""Reconcile names what does not agree, calls unverifiable what expired, and a worker notices by itself."""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from conftest import KafkaUnderTest, MakeTopic

from trunkline.bus.accounting import settledoffsets
from trunkline.bus.accounting.ledgerchecks import LedgerChecks
from trunkline.bus.accounting.reconcile import PartitionCheck, parked_now, reconcile
from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.kafka import KafkaSettings, patiently
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.topics import COMPACTED, TopicPlan, ensure_topics, internal_topics

pytestmark = pytest.mark.kafka


class Account:
    """The input of a pipeline `out`, its commits and its trace, as a test wants them."""

    def __init__(self, kafka: KafkaUnderTest, namespace: str, make_topic: MakeTopic) -> None:
        self.settings, self.names = KafkaSettings(kafka.bootstrap), Names(namespace)
        ensure_topics(self.settings, internal_topics(self.names))
        self.topic = make_topic("orders")
        self.ledger = Ledger()

    def write(self, count: int) -> None:
        producer = self.settings.producer()
        for number in range(count):
            producer.produce(self.topic, str(number).encode(), partition=0)
        assert producer.flush(20) == 0

    def settle(self, offsets: Sequence[int]) -> None:
        """These were delivered, says the commit."""
        self.ledger.add(array("q", offsets), delivered=len(offsets))
        self.commit([TopicPartition(self.topic, 0, offsets[-1] + 1, self.ledger.to_metadata())])

    def commit(self, places: list[TopicPartition]) -> None:
        consumer = self.settings.consumer(self.names.group("out"))
        # A broker that just started may have no coordinator for a moment.
        patiently(lambda: consumer.commit(offsets=places, asynchronous=False), "the commit is refused", 30)
        consumer.close()

    def trace(self, offsets: Sequence[int], pipeline: str = "out") -> None:
        batch = TraceBatch(pipeline, "sink", "w")
        for offset in offsets:
            batch.add(self.topic, 0, offset, "correlation", "delivered")
        producer = self.settings.producer()
        for record in batch.drain():
            producer.produce(self.names.trace, record)
        assert producer.flush(20) == 0

    def check(self, **options: Any) -> PartitionCheck:
        (found,) = reconcile(self.settings, self.names, "out", **options)
        return found

    def expire(self, offset: int) -> None:
        admin = self.settings.admin()
        (done,) = admin.delete_records([TopicPartition(self.topic, 0, offset)]).values()
        done.result(20)


@pytest.fixture
def account(kafka: KafkaUnderTest, namespace: str, make_topic: MakeTopic) -> Account:
    return Account(kafka, namespace, make_topic)


def test_the_records_that_no_hop_settled_are_named_and_those_that_no_record_has(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settledoffsets, "WINDOW", 16)
    account.write(50)
    account.trace([offset for offset in range(50) if offset not in {7, 33}])
    account.trace([7, 33], pipeline="another")
    account.settle([offset for offset in range(50) if offset not in {7, 33}])
    seen: list[tuple[int, int]] = []
    check = account.check(on_progress=lambda _topic, _partition, done, total: seen.append((done, total)))
    assert (check.closes, check.missing, check.extra) == (False, (7, 33), ())
    assert "50 records" in (check.problem or "")
    assert seen == [(0, 50)]


def test_a_ledger_that_accounts_for_other_offsets_of_the_same_number_does_not_close(account: Account) -> None:
    account.write(4)
    account.settle([0, 1, 1, 3])
    check = account.check()
    assert (check.closes, check.read, check.present) == (False, 4, 4)
    assert check.missing == (0, 1, 2, 3), "nothing is in the trace"


def test_what_expired_can_not_be_verified_and_is_no_error(account: Account) -> None:
    account.write(20)
    account.settle(range(20))
    account.expire(15)
    check = account.check()
    assert (check.closes, check.unverifiable, check.expired, check.present) == (True, True, 15, 5)


def test_a_range_is_summed_up_in_chunks_as_it_would_be_at_once(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.bus.accounting.reconcile.CHUNK", 7)
    account.write(30)
    account.settle(range(30))
    assert account.ledger.checksum == zlib.crc32(array("q", range(30)).tobytes())
    assert account.check().closes


def test_a_worker_notices_a_ledger_that_does_not_close_until_its_epoch_ends(account: Account) -> None:
    checks = LedgerChecks(account.settings, account.names)

    def mismatch() -> int:
        return checks.update({"out": {(account.topic, 0): -1}})["out"]

    account.write(30)
    account.settle(range(5))
    assert mismatch() == 0
    account.settle(range(5, 12))
    assert mismatch() == 0
    account.settle([12, 14])  # 13 was passed by
    assert mismatch() == 1
    account.settle(range(15, 20))
    assert mismatch() == 1, "what follows is right, and the ledger still does not close"
    account.ledger = Ledger(first=20, epoch=2)
    account.settle(range(20, 22))
    assert mismatch() == 0


def test_of_a_busy_partition_a_short_stretch_is_looked_at(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.bus.accounting.ledgerchecks.RANGE", 10)
    checks = LedgerChecks(account.settings, account.names)
    account.write(60)
    account.settle(range(5))
    checks.update({"out": {(account.topic, 0): -1}})
    account.settle(range(5, 40))
    monkeypatch.setattr("trunkline.bus.accounting.ledgerchecks.time.sleep", lambda _seconds: account.settle([40, 42]))
    assert checks.update({"out": {(account.topic, 0): -1}}) == {"out": 1}


def test_parked_records_are_those_without_a_tombstone(account: Account) -> None:
    topic = account.names.parked("out")
    assert parked_now(account.settings, topic) == 0
    ensure_topics(account.settings, [TopicPlan(topic, 2, config=COMPACTED)])
    producer = account.settings.producer()
    for key, value in ((b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"b", None)):
        producer.produce(topic, value, key)
    assert producer.flush(20) == 0
    assert parked_now(account.settings, topic) == 2
