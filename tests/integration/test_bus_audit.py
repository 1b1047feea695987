"""The audit trail on a real cluster: decisions stay in their order, stand or fall with their transaction, and are sealed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import orjson
import pytest
from conftest import KafkaUnderTest

from tests.chaos.faults.audit_trails import judged
from trunkline.bus import sealing
from trunkline.bus.accounting.audit import PARTITION, Chain, Entry, Trail, append, entries, hash_of, records, write
from trunkline.bus.accounting.notedheads import NotedHead, NotedHeads
from trunkline.bus.kafka import KafkaSettings, produce_and_wait
from trunkline.bus.names import Names
from trunkline.bus.sealing import seal, sealed_by_now
from trunkline.bus.states import Desired
from trunkline.bus.topics import ensure_topics, internal_topics, remove_topic, topic_states
from trunkline.bus.worker.wishes import want
from trunkline.control.registryserver import serving_registry
from trunkline.core.errors import RetriableError, TrunklineError
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema

pytestmark = pytest.mark.kafka


class Archive:
    """The trail of a namespace of its own."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self.settings, self.names = settings, names
        self.make()

    def make(self) -> None:
        wanted = {self.names.audit, self.names.control}
        ensure_topics(self.settings, [plan for plan in internal_topics(self.names) if plan.name in wanted])

    def entry(self, who: str = "ada", at: float = 5.0) -> Entry:
        return Entry(at, who, "parked.drop", "slack", {"key": "c1"})

    def pause(self, who: str = "ada", desired: Desired = Desired.PAUSED) -> None:
        want(self.settings, self.names, ["out"], by=who, desired=desired)

    def old(self, who: str = "zoe") -> None:
        """An entry of the version without chains."""
        value = orjson.dumps({"v": 1, **self.entry(who).as_dict()})
        produce_and_wait(self.settings.producer(), self.names.audit, value, b"slack", partition=PARTITION)

    def trail(self, head: str | None = None) -> Trail:
        return judged(list(records(self.settings, self.names)), head)

    def who(self, pipeline: str | None = None) -> Sequence[str]:
        return [one.who for one in entries(self.settings, self.names, pipeline)]


@pytest.fixture
def archive(kafka: KafkaUnderTest, namespace: str) -> Archive:
    return Archive(KafkaSettings(kafka.bootstrap), Names(namespace))


def test_the_trail_gives_decisions_back_in_their_order_whole_and_of_one_pipeline(archive: Archive) -> None:
    archive.old()
    append(archive.settings, archive.names, archive.entry())
    append(archive.settings, archive.names, replace(archive.entry("bob"), pipeline="sheets", details={}))
    archive.pause("cyd")
    found = list(entries(archive.settings, archive.names))
    assert [(one.who, one.action, one.pipeline) for one in found] == [
        ("zoe", "parked.drop", "slack"),
        ("ada", "parked.drop", "slack"),
        ("bob", "parked.drop", "sheets"),
        ("cyd", "pipeline.pause", "out"),
    ]
    assert (found[1].at, found[1].details) == (5.0, {"key": "c1"})
    assert archive.who("sheets") == ["bob"]


def test_a_decision_in_a_transaction_that_aborts_never_was_and_leaves_no_gap(archive: Archive) -> None:
    producer = archive.settings.producer(transactional_id=archive.names.transactional_id("slack", "test"))
    producer.init_transactions(30)
    for who, ends in (("ada", producer.commit_transaction), ("bob", producer.abort_transaction)):
        producer.begin_transaction()
        write(producer, archive.names, Chain(), archive.entry(who))
        ends(30)
    assert seal(archive.settings, archive.names, who="w")
    assert archive.who() == ["ada"]
    assert archive.trail().findings == []


def test_the_trail_never_expires(archive: Archive) -> None:
    config = topic_states(archive.settings, [archive.names.audit])[archive.names.audit].config
    assert (config["cleanup.policy"], config["retention.ms"], config["retention.bytes"]) == ("delete", "-1", "-1")


def test_a_command_seals_its_entries_and_all_before_in_its_own_transaction(archive: Archive) -> None:
    archive.old()
    append(archive.settings, archive.names, archive.entry())
    archive.pause()
    first = archive.trail()
    archive.pause(desired=Desired.STOPPED)
    second = archive.trail(head=first.head)
    assert (first.findings, first.unsealed, first.seals) == ([], 0, 1)
    assert (second.findings, second.unsealed, second.seals, second.unchained) == ([], 0, 2, 1)


def test_what_others_appended_is_sealed_once_by_whoever_of_several_is_there_first(archive: Archive) -> None:
    for number in range(3):
        append(archive.settings, archive.names, archive.entry(at=float(number)))
    with ThreadPoolExecutor(3) as threads:
        done = list(
            threads.map(
                lambda who: sealed_by_now(archive.settings, archive.names, who=who, patience=60.0), ("a", "b", "c")
            )
        )
    trail = archive.trail()
    assert done == [True, True, True]
    assert (trail.findings, trail.unsealed, trail.seals) == ([], 0, 1)
    assert not seal(archive.settings, archive.names, who="d")


def test_of_very_many_entries_the_last_seal_is_found_from_the_end(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer, chain = archive.settings.producer(), Chain()
    for desired in (Desired.PAUSED, Desired.STOPPED):
        archive.pause(desired=desired)
    *_, sealed, _seal = records(archive.settings, archive.names)
    for number in range(300):
        write(producer, archive.names, chain, archive.entry(at=float(number)))
    producer.flush(30)
    whole = archive.trail()
    taken: list[int] = []
    take = Trail.take
    monkeypatch.setattr(Trail, "take", lambda self, record: (taken.append(record.offset), take(self, record))[1])
    assert seal(archive.settings, archive.names, who="w")
    assert seal(archive.settings, archive.names, who="w") is False
    monkeypatch.undo()
    assert min(taken) == sealed.offset  # what the last seal covers is not read again
    assert (archive.trail().findings, archive.trail().unsealed, whole.unsealed) == ([], 0, 300)


def test_while_a_transaction_is_open_nothing_is_sealed_and_no_command_waits_for_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealing, "PATIENCE_SECONDS", 0.1)
    producer, chain = (
        archive.settings.producer(transactional_id=archive.names.transactional_id("slack", "test")),
        Chain(),
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    write(producer, archive.names, chain, archive.entry())
    producer.flush(30)
    archive.pause("bob")
    with pytest.raises(RetriableError) as raised:
        seal(archive.settings, archive.names, who="w")
    assert raised.value.code == "audit.unsettled"
    producer.commit_transaction(30)
    before = archive.trail()
    assert seal(archive.settings, archive.names, who="w")
    assert (before.findings, before.unsealed, before.seals) == ([], 2, 0)
    assert (archive.trail().findings, archive.trail().unsealed, archive.who()) == ([], 0, ["ada", "bob"])


def test_what_a_registry_for_one_command_writes_is_noted_in_the_name_of_who_asked(archive: Archive) -> None:
    with serving_registry(archive.settings, archive.names, "ada") as url:
        client = RegistryClient(url)
        client.register("orders-value", Schema('"string"'))
        client.close()
        other = RegistryClient(url.rpartition("/")[0])
        try:
            with pytest.raises(TrunklineError):
                other.register("orders-value", Schema('"long"'))
        finally:
            other.close()
    assert list(archive.who()) == ["ada"]


def test_a_trail_that_was_mirrored_goes_on_there(archive: Archive) -> None:
    archive.old()
    archive.pause()
    archive.pause(desired=Desired.STOPPED)
    mirror = Archive(archive.settings, Names(f"{archive.names.namespace}-m"))
    before = list(records(archive.settings, archive.names))
    producer = mirror.settings.producer()
    for one in before:
        produce_and_wait(producer, mirror.names.audit, one.value, one.key, partition=PARTITION)
    assert [one.offset for one in records(mirror.settings, mirror.names)] != [one.offset for one in before]
    mirror.pause(desired=Desired.RUNNING)
    append(mirror.settings, mirror.names, mirror.entry())
    assert seal(mirror.settings, mirror.names, who="w")
    trail = mirror.trail(head=judged(before).head)
    assert (trail.findings, trail.unsealed, trail.seals) == ([], 0, 4)


def test_a_record_that_is_no_entry_hinders_nobody_and_is_found(archive: Archive) -> None:
    archive.pause()
    produce_and_wait(archive.settings.producer(), archive.names.audit, b"\xff no entry", b"\xff", partition=PARTITION)
    archive.pause("bob")
    assert archive.who() == ["ada", "bob"]
    assert [one.kind for one in archive.trail().findings] == ["unreadable"]


def test_a_noted_head_tells_a_trail_that_was_made_anew_and_one_that_was_cut_from_one_that_went_on(
    archive: Archive, tmp_path: Path
) -> None:
    archive.pause()
    *_, last = records(archive.settings, archive.names)
    heads = NotedHeads(tmp_path, archive.settings, archive.names)
    assert heads.read() is None
    heads.note(NotedHead(hash_of(last.value), 1, last.offset, time.time()))
    archive.pause(desired=Desired.STOPPED)
    noted = NotedHeads(tmp_path, archive.settings, archive.names).read()
    assert noted is not None
    assert heads.broken(noted) is None
    assert "was cut or rewritten" in (heads.broken(replace(noted, head="0" * 64)) or "")
    remove_topic(archive.settings, archive.names.audit)
    archive.make()
    assert "was deleted and made anew" in (heads.broken(noted) or "")
