"""An administrator's client asks for offsets only where it knows the leaders: librdkafka's own search for them can end the process."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from tests.conftest import KafkaUnderTest, MakeTopic
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, end_offsets, offset_of_each, offsets_of
from trunkline.core.errors import TrunklineError
from trunkline.kafkaclient import AdminClient

pytestmark = pytest.mark.kafka


class Searches:
    """What a client logs of its searches for leaders."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.lines = 0

    def log(self, _level: int, _form: str, *parts: object) -> None:
        self.lines += 1
        if "query partition leaders" in str(parts[-1]):
            self.seen.append(str(parts[-1]))


@pytest.fixture
def searches() -> Searches:
    return Searches()


@pytest.fixture
def new_client(kafka: KafkaUnderTest, searches: Searches) -> AdminClient:
    """A client that has heard of no topic yet."""
    return AdminClient(kafka.client_config(debug="metadata"), logger=searches)


@pytest.fixture
def settled_topic(kafka: KafkaUnderTest, make_topic: MakeTopic) -> Callable[[int], str]:
    """A new topic that its leaders know of: right after its creation they refuse it."""

    def make(partitions: int) -> str:
        topic = make_topic(partitions=partitions)
        places = [(topic, number) for number in range(partitions)]
        offsets_of(KafkaSettings(kafka.bootstrap), places, [LATEST], "the new topic can't be asked for")
        return topic

    return make


def _code(future: object) -> int:
    error = future.exception(20)  # type: ignore[attr-defined]
    assert isinstance(error, KafkaException)
    return int(error.args[0].code())


def test_a_new_client_asks_for_offsets_without_a_search_for_leaders(
    new_client: AdminClient, settled_topic: Callable[[int], str], searches: Searches
) -> None:
    topic, other = settled_topic(2), settled_topic(1)
    asked = {TopicPartition(topic, 0): LATEST, TopicPartition(topic, 1): EARLIEST, TopicPartition(other, 0): LATEST}
    answers = [
        new_client.list_offsets(asked, isolation_level=level, request_timeout=20)
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    ]
    assert [future.result(20).offset for each in answers for future in each.values()] == [0] * 6
    new_client.poll(0)
    assert searches.lines
    assert searches.seen == []


def test_of_what_is_not_there_the_reason_is_told_without_a_search_for_leaders(
    new_client: AdminClient, settled_topic: Callable[[int], str], namespace: str, searches: Searches
) -> None:
    topic = settled_topic(1)
    there, beyond, nowhere = TopicPartition(topic, 0), TopicPartition(topic, 7), TopicPartition(f"{namespace}.none", 0)
    answers = new_client.list_offsets({part: OffsetSpec.latest() for part in (there, beyond, nowhere)})
    assert answers[there].result(20).offset == 0
    assert _code(answers[beyond]) == KafkaError._UNKNOWN_PARTITION
    assert _code(answers[nowhere]) == KafkaError.UNKNOWN_TOPIC_OR_PART
    assert _code(new_client.list_offsets({nowhere: LATEST})[nowhere]) == KafkaError.UNKNOWN_TOPIC_OR_PART
    new_client.poll(0)
    assert searches.seen == []


def test_a_new_client_deletes_records_without_a_search_for_leaders(
    new_client: AdminClient, settled_topic: Callable[[int], str], namespace: str, searches: Searches
) -> None:
    there, nowhere = TopicPartition(settled_topic(1), 0, 0), TopicPartition(f"{namespace}.none", 0, 0)
    answers = new_client.delete_records([there, nowhere])
    assert answers[there].result(20).low_watermark == 0
    assert _code(answers[nowhere]) == KafkaError.UNKNOWN_TOPIC_OR_PART
    new_client.poll(0)
    assert searches.seen == []


def test_no_question_of_the_bus_is_asked_of_a_client_that_must_search(
    kafka: KafkaUnderTest, settled_topic: Callable[[int], str], namespace: str, searches: Searches
) -> None:
    """Each with a client of its own, as a command has that asks one question."""

    def settings() -> tuple[KafkaSettings, AdminClient]:
        made = KafkaSettings(kafka.bootstrap, {"client.rack": f"r{len(kept)}"})
        client = AdminClient(kafka.client_config(debug="metadata"), logger=searches)
        kept.append(client)
        return made, client

    kept: list[AdminClient] = []
    topic = settled_topic(2)
    places = [(topic, 0), (topic, 1)]
    for ask in (
        lambda one: end_offsets(one, topic),
        lambda one: offsets_of(one, places, [EARLIEST, LATEST], "it can't be asked for"),
        lambda one: offset_of_each(one, [*places, (f"{namespace}.none", 0)], LATEST),
    ):
        made, client = settings()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(KafkaSettings, "admin", lambda _self, client=client: client)
            ask(made)
        client.poll(0)
    assert searches.lines
    assert searches.seen == []


def test_a_partition_that_is_not_there_is_an_error_beside_the_offsets_of_the_others(
    kafka: KafkaUnderTest, settled_topic: Callable[[int], str], namespace: str
) -> None:
    topic = settled_topic(1)
    settings = KafkaSettings(kafka.bootstrap)
    found, refused = offset_of_each(settings, [(topic, 0), (topic, 7), (f"{namespace}.none", 0)], LATEST)
    assert found == {(topic, 0): 0}
    assert {place: error.code() for place, error in refused.items()} == {
        (topic, 7): KafkaError._UNKNOWN_PARTITION,
        (f"{namespace}.none", 0): KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
    with pytest.raises(TrunklineError, match="can't be asked for"):
        offsets_of(settings, [(topic, 7)], [LATEST], "it can't be asked for", timeout=0.2)
