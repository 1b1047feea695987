"""Followers of internal topics hear of what is written whatever becomes of the topic meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import NewTopic

from tests.conftest import KafkaUnderTest, MakeTopic
from trunkline.bus.following import Following
from trunkline.bus.kafka import KafkaSettings, produce_and_wait
from trunkline.kafkaclient import AdminClient

pytestmark = pytest.mark.kafka


class Ear:
    """A follower of one topic, and what it was given."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self.settings, self.topic = settings, topic
        self.heard: list[bytes] = []
        self._stop = threading.Event()
        self.failed = threading.Event()
        following = Following(settings, {topic: 0}, self._take, failed=self.failed.set)
        self._thread = threading.Thread(target=following.run, args=(self._stop,))
        self._thread.start()

    def _take(self, message: Message) -> None:
        value = message.value() or b""
        if value == b"nonsense":
            raise ValueError("this can't be read")
        self.heard.append(value)

    def write(self, value: bytes) -> None:
        """Writes to the topic."""
        produce_and_wait(self.settings.producer(), self.topic, value, b"key")

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for a condition."""
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come to be; heard {self.heard}"
            time.sleep(0.05)

    def close(self) -> None:
        """Ends following."""
        self._stop.set()
        self._thread.join(10)


@pytest.fixture
def ear(kafka: KafkaUnderTest, make_topic: MakeTopic) -> Iterator[Ear]:
    made = Ear(KafkaSettings(kafka.bootstrap), make_topic())
    yield made
    made.close()


def test_a_record_that_can_not_be_taken_is_not_the_last_that_is_heard(ear: Ear) -> None:
    for value in (b"first", b"nonsense", b"second"):
        ear.write(value)

    ear.until(lambda: ear.heard == [b"first", b"second"], "the second record")


def test_records_that_were_deleted_before_they_were_read_are_passed(
    kafka_admin: AdminClient, kafka: KafkaUnderTest, make_topic: MakeTopic
) -> None:
    topic = make_topic("cut")
    settings = KafkaSettings(kafka.bootstrap)
    for value in (b"gone", b"gone too", b"kept"):
        produce_and_wait(settings.producer(), topic, value, b"key")
    kafka_admin.delete_records([TopicPartition(topic, 0, 2)])[TopicPartition(topic, 0, 2)].result(20)

    late = Ear(settings, topic)
    try:
        late.until(lambda: late.heard == [b"kept"], "the record that is kept")
        late.write(b"new")
        late.until(lambda: late.heard == [b"kept", b"new"], "a new record")
    finally:
        late.close()


@pytest.mark.parametrize("noticed", [False, True], ids=["at once", "after it was seen to be gone"])
def test_a_topic_that_was_deleted_and_made_anew_is_followed_from_its_beginning(
    ear: Ear, kafka_admin: AdminClient, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    monkeypatch.setattr("trunkline.bus.following.CHECK_SECONDS", 1.0)
    ear.write(b"before")
    ear.until(lambda: ear.heard == [b"before"], "a record")
    kafka_admin.delete_topics([ear.topic], operation_timeout=20)[ear.topic].result(20)
    if noticed:
        ear.until(ear.failed.is_set, "that the topic is gone")
    kafka_admin.create_topics([NewTopic(ear.topic, 1, 1)], operation_timeout=20)[ear.topic].result(20)

    ear.write(b"after")

    ear.until(lambda: ear.heard == [b"before", b"after"], "what is in the new topic")
