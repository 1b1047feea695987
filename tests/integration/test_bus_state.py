"""State in Kafka: a store is what the committed changelog says, whatever happened between the two."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer
from conftest import KafkaUnderTest
from structlog.testing import capture_logs

from tests.remaking import make_anew
from trunkline.bus.kafka import KafkaSettings, produce
from trunkline.bus.state import Changelog, Changes, Entry, StateStore, changelog, changelog_config
from trunkline.bus.topics import TopicPlan, ensure_topics, remove_topic, topic_states
from trunkline.core.errors import RetriableError

pytestmark = pytest.mark.kafka


@dataclass
class Remembering:
    """A changelog of two partitions, a producer of its transactions, and folders for stores."""

    settings: KafkaSettings
    topic: str
    home: Path
    producer: Producer

    def changelog(self, folder: str = "a") -> Changelog:
        state = topic_states(self.settings, [self.topic])[self.topic]
        return Changelog(self.settings, "remembering", self.topic, state.id, self.home / folder)

    def open(self, folder: str = "a", partition: int = 0) -> StateStore:
        return self.changelog(folder).open([partition])[partition]

    def begin(self, changes: Changes, partition: int = 0) -> list[int]:
        """An open transaction with the changes; the list is given the offset of each record that is acknowledged."""
        offsets: list[int] = []
        self.producer.begin_transaction()
        for key, entry in changes.records():
            value, headers = (entry.value, entry.headers) if entry is not None else (None, [])
            produce(self.producer, self.topic, value, key, headers, partition=partition,
                    on_delivery=lambda _error, message: offsets.append(message.offset() or 0))  # fmt: skip
        self.producer.flush(20)
        return offsets

    def commit(self, changes: Changes, partition: int = 0) -> None:
        """A whole transaction, and the store after it."""
        offsets = self.begin(changes, partition)
        self.producer.commit_transaction(20)
        changes.apply(max(offsets) + 1)


@pytest.fixture
def remembering(kafka: KafkaUnderTest, namespace: str, tmp_path: Path) -> Remembering:
    settings = KafkaSettings(kafka.bootstrap)
    topic = f"{namespace}.remembering"
    ensure_topics(settings, [TopicPlan(topic, 2, config=changelog_config(2**20))])
    producer = settings.producer(transactional_id=topic)
    producer.init_transactions(30)
    return Remembering(settings, topic, tmp_path, producer)


def _changed(store: StateStore, **entries: str | None) -> Changes:
    changes = Changes(store)
    for key, value in entries.items():
        if value is None:
            changes.delete(key.encode())
        else:
            changes.put(key.encode(), Entry(value.encode(), [("by", b"test")]))
    return changes


def _content(store: StateStore) -> dict[str, str]:
    return {key.decode(): entry.value.decode() for key, entry in store.items()}


def test_a_store_killed_between_commit_and_apply_has_the_batch_when_it_is_opened_again(
    remembering: Remembering,
) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1", b="1", c="1"))
    remembering.begin(_changed(store, a=None, b="2"))
    remembering.producer.commit_transaction(20)
    store.close()
    again = remembering.open()
    assert _content(again) == {"b": "2", "c": "1"}
    assert again.get(b"b") == Entry(b"2", [("by", b"test")])
    again.close()


def test_what_an_aborted_transaction_wrote_is_never_in_a_store(remembering: Remembering) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1"))
    changes = _changed(store, a="2", b="2")
    remembering.begin(changes)
    remembering.producer.abort_transaction(20)
    changes.discard()
    assert _content(store) == {"a": "1"}
    remembering.changelog().catch_up(store)
    assert _content(store) == {"a": "1"}
    store.close()
    for folder in ("a", "from scratch"):
        again = remembering.open(folder)
        assert _content(again) == {"a": "1"}
        again.close()


def test_after_an_unknown_outcome_the_store_is_what_the_changelog_says(remembering: Remembering) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1"))
    changes = _changed(store, a="2")
    remembering.begin(changes)
    remembering.producer.commit_transaction(20)  # and nobody heard of it
    changes.discard()
    remembering.changelog().catch_up(store)
    assert _content(store) == {"a": "2"}
    store.close()


def test_a_store_from_its_checkpoint_and_one_from_scratch_are_equal_and_the_first_reads_only_what_is_new(
    remembering: Remembering,
) -> None:
    store = remembering.open()
    for number in range(20):
        remembering.commit(_changed(store, **{f"k{number % 7}": str(number), "last": str(number), "gone": None}))
    shutil.copytree(remembering.home / "a", remembering.home / "killed")  # what a kill leaves now
    remembering.commit(_changed(store, k0=None, last="end"))
    store.close()
    with capture_logs() as logged:
        killed, scratch = remembering.open("killed"), remembering.open("scratch")
    assert list(killed.items()) == list(scratch.items())
    assert _content(killed)["last"] == "end"
    assert [(one["records"], one["from_offset"] > 0) for one in logged if one["event"] == "state restored"] == [
        (2, True),
        (62, False),
    ]
    killed.close()
    scratch.close()


def test_partitions_do_not_mix(remembering: Remembering) -> None:
    stores = remembering.changelog().open([0, 1])
    remembering.commit(_changed(stores[0], a="0"), 0)
    remembering.commit(_changed(stores[1], a="1"), 1)
    for store in stores.values():
        store.close()
    again = remembering.changelog("scratch").open([0, 1])
    assert [_content(again[partition]) for partition in (0, 1)] == [{"a": "0"}, {"a": "1"}]
    for store in again.values():
        store.close()


def test_what_the_copy_of_a_changelog_that_was_deleted_and_made_anew_has_is_put_back(remembering: Remembering) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1"))
    store.close()
    make_anew(remembering.settings, [TopicPlan(remembering.topic, 2, config=changelog_config(2**20))])
    again = remembering.open()
    assert _content(again) == {"a": "1"}
    again.close()
    # It is in the changelog too: a worker without the copy has it.
    anew = remembering.open("b")
    assert _content(anew) == {"a": "1"}
    anew.close()


def test_the_copy_of_a_changelog_that_is_deleted_or_made_anew_meanwhile_is_not_thrown_away(
    remembering: Remembering,
) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1"))
    store.close()
    former = remembering.changelog()  # what a worker looked at just before
    make_anew(remembering.settings, [TopicPlan(remembering.topic, 2, config=changelog_config(2**20))])
    with pytest.raises(RetriableError, match="was made anew while its stores were opened"):
        former.open([0])
    again = remembering.open()
    assert _content(again) == {"a": "1"}
    again.close()
    deleted = remembering.changelog()
    remove_topic(remembering.settings, remembering.topic)
    with pytest.raises(RetriableError, match="was deleted while its stores were opened"):
        deleted.open([0])
    assert (remembering.home / "a" / "0").exists()


def test_a_checkpoint_that_stands_beyond_the_changelogs_end_is_thrown_away(remembering: Remembering) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1"))
    store.write([(b"b", Entry(b"of a changelog that lost its end"))], 1000)
    store.close()
    with capture_logs() as logged:
        again = remembering.open()
    assert _content(again) == {"a": "1"}
    assert [one["reason"] for one in logged if "thrown away" in one["event"]] == [
        "it stands at offset 1000, the changelog ends at 2"
    ]
    again.close()


def test_a_checkpoint_so_old_that_deletions_may_be_compacted_away_is_not_trusted(
    remembering: Remembering, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = remembering.open()
    remembering.commit(_changed(store, a="1"))
    store.close()
    monkeypatch.setattr(changelog, "CHECKPOINT_LIFE", -1.0)
    with capture_logs() as logged:
        again = remembering.open()
    assert _content(again) == {"a": "1"}
    assert any("is older than" in one.get("reason", "") for one in logged)
    again.close()


def test_a_changelog_is_compacted_soon_and_never_expires(remembering: Remembering) -> None:
    config = topic_states(remembering.settings, [remembering.topic])[remembering.topic].config
    assert config["cleanup.policy"] == "compact"
    assert (config["segment.bytes"], config["segment.ms"]) == (str(16 * 2**20), "3600000")
    assert (config["min.cleanable.dirty.ratio"], config["retention.ms"]) == ("0.1", "-1")
