"""The audit trail as records: nothing that was done to what is sealed goes unseen, and nothing that happens by itself is taken for it."""

from __future__ import annotations

import random

import orjson
import pytest

from tests.chaos.faults.audit_trails import BY_HEAD, BY_ITSELF, AuditedBus, Records, edit_a_field, judged, recorded
from trunkline.bus.accounting.audit import SEAL_KEY, Chain, Entry, Seal, Trail, UnreadableRecordError, hash_of, parse
from trunkline.bus.accounting.audit.chain import Chained
from trunkline.core.errors import ConfigurationError


def _trail(seed: int, steps: int = 60, **more: int) -> Records:
    bus = AuditedBus(random.Random(seed))
    bus.live(steps, **more)
    return bus.records()


@pytest.mark.parametrize("old", [0, 5], ids=["new", "upgraded"])
def test_trails_of_writers_that_abort_are_killed_and_write_at_once_are_sound(old: int) -> None:
    aborted = killed = seals = 0
    for seed in range(30):
        bus = AuditedBus(random.Random(seed))
        bus.live(60, old=old)
        trail = judged(bus.records())
        assert (trail.findings, trail.unsealed, trail.unchained) == ([], 0, old)
        aborted, killed, seals = aborted + bus.aborted, killed + bus.killed, seals + bus.seals
    assert min(aborted, killed, seals) > 30


@pytest.mark.parametrize("how", sorted(BY_ITSELF))
def test_what_is_done_to_sealed_records_is_seen(how: str) -> None:
    for seed in range(12):
        chance, records = random.Random(seed), _trail(seed, 40)
        made = BY_ITSELF[how](chance, records[:-1])
        if made == records[:-1]:
            continue
        assert judged([*made, records[-1]]).found, (how, seed)


def test_an_entry_without_a_chain_behind_everything_is_seen_though_no_seal_covers_it() -> None:
    records = _trail(3, old=2)
    forged = Entry(1e9, "eve", "pipeline.stop", "orders")
    trail = judged([*records, recorded(len(records), forged.key, orjson.dumps({"v": 1, **forged.as_dict()}))])
    assert [finding.kind for finding in trail.findings] == ["inserted"]


@pytest.mark.parametrize("how", sorted(BY_HEAD))
def test_what_leaves_a_sound_topic_is_seen_by_a_head_that_was_noted(how: str) -> None:
    for seed in range(12):
        chance, records = random.Random(seed), _trail(seed, 40)
        head = judged(records).head
        made = BY_HEAD[how](chance, records)
        trail = judged(made, head)
        assert trail.findings[-1].kind == "head", (how, seed)


def test_a_head_that_was_noted_earlier_is_part_of_a_trail_that_went_on() -> None:
    bus = AuditedBus(random.Random(5))
    bus.live(30)
    noted = judged(bus.records()).head
    bus.live(30)
    assert judged(bus.records(), noted).findings == []
    assert judged(bus.records(), noted[:20]).findings == []
    assert judged(bus.records(), noted[:4]).found


@pytest.mark.parametrize("seed", range(20))
def test_of_an_entry_that_says_another_thing_the_place_is_told(seed: int) -> None:
    records = _trail(seed)
    made = edit_a_field(random.Random(seed), records)
    (changed,) = [new for old, new in zip(records, made, strict=True) if old.value != new.value]
    found = judged(made).findings
    told = [one for one in found if one.place == changed.place]
    assert told
    assert {one.kind for one in told} == {"changed"}
    assert told[0].entry is not None
    # Of one change only what it touches is told: the entry, its neighbour in the chain, and the seal that covers it.
    assert len(found) <= 3


def test_of_a_record_that_is_missing_the_place_is_told() -> None:
    records = _trail(1)
    at = next(at for at, one in enumerate(records) if one.key != SEAL_KEY)
    found = judged([*records[:at], *records[at + 1 :]]).findings
    assert any(one.kind == "missing" and one.place == records[at + 1].place for one in found)


def test_the_trail_in_a_mirrored_cluster_is_as_sound_though_all_offsets_are_others() -> None:
    records = [recorded(at, one.key, one.value) for at, one in enumerate(_trail(3))]
    assert judged(records).findings == []


def test_what_is_not_sealed_yet_is_counted_and_no_finding() -> None:
    records, chain = _trail(4), Chain()
    entry = Entry(1.0, "ada", "pipeline.stop", "orders")
    end = records[-1].offset
    more = [recorded(end + at, entry.key, chain.value(entry)) for at in (1, 2)]
    trail = judged([*records, *more])
    assert (trail.findings, trail.unsealed) == ([], 2)


def _unsealed() -> Records:
    """A trail whose last three entries, of one writer, no seal covers."""
    records, chain = _trail(4), Chain()
    entries = [Entry(float(at), "ada", "pipeline.stop", "orders") for at in range(3)]
    end = records[-1].offset
    return [*records, *(recorded(end + at, one.key, chain.value(one)) for at, one in enumerate(entries, 1))]


def test_before_they_are_sealed_the_chain_of_a_writer_shows_what_was_done_to_its_entries() -> None:
    *before, first, second, third = _unsealed()
    assert second.value is not None
    assert third.value is not None
    edited = second._replace(value=second.value.replace(b"ada", b"eve"))
    other = third._replace(value=third.value.replace(b'"n":3', b'"n":4'))
    for tampered, kind, place in (
        ([first, edited, third], "changed", edited.place),
        ([first, third], "missing", third.place),
        ([second, third], "missing", second.place),
        ([first, second, second, third], "repeated", second.place),
        ([first, third, second], "repeated", second.place),
        ([first, second, other], "missing", other.place),
        ([first, second._replace(key=b"flights"), third], "changed", second.place),
    ):
        assert (kind, place) in [(one.kind, one.place) for one in judged([*before, *tampered]).findings]


def test_a_command_covers_its_own_entries_by_their_head() -> None:
    *before, entry = _unsealed()[:-2]
    assert entry.value is not None
    chain = parse(entry.value)
    assert isinstance(chain, Chained)
    seal = judged(before).next_seal("ada", {chain.writer: (1, hash_of(entry.value))})
    end = recorded(entry.offset + 1, SEAL_KEY, seal.to_value())
    assert (judged([*before, entry, end]).findings, judged([*before, entry, end]).unsealed) == ([], 0)
    edited = entry._replace(value=entry.value.replace(b"ada", b"eve"))
    (changed,) = judged([*before, edited, end]).findings
    (gone,) = judged([*before, end]).findings
    assert (changed.kind, changed.place, gone.kind, gone.place) == ("changed", entry.place, "missing", end.place)
    assert judged([*before, end, entry]).findings[0].place == end.place  # behind its seal it is not where it was


def test_of_a_seal_that_was_changed_the_next_one_tells() -> None:
    records = _trail(2)
    at = [at for at, one in enumerate(records) if one.key == SEAL_KEY][-2]
    value = records[at].value
    assert value is not None
    records[at] = records[at]._replace(value=value.replace(b'"who":"', b'"who":"x'))
    assert any("does not follow the one before it" in one.what for one in judged(records).findings)


def test_one_seal_over_very_many_records_has_no_marks_and_covers_them_all_the_same() -> None:
    chain, entry = Chain(), Entry(1.0, "ada", "pipeline.stop", "orders")
    records = [recorded(at, entry.key, chain.value(entry)) for at in range(2500)]
    seal = judged(records).next_seal("w1")
    assert (seal.marks, seal.records) == ([], 2500)
    end = recorded(2500, SEAL_KEY, seal.to_value())
    assert judged([*records, end]).findings == []
    changed = [*records[:7], recorded(7, entry.key, records[7].value[:-1] + b" "), *records[8:], end]  # type: ignore[index]
    assert judged(changed).found


def test_a_seal_that_somebody_forged_hides_nothing_and_breaks_nothing_behind_it() -> None:
    records = _trail(6)
    forged = Seal(10**9, "", 3, "0" * 64, (2, "0" * 64), {"nobody": (4, "0" * 64)}, [], 1.0, "eve")
    before = [*records, recorded(records[-1].offset + 1, SEAL_KEY, forged.to_value())]
    found = judged(before)
    assert found.found >= 2
    after = found.next_seal("w1")
    assert judged([*before, recorded(before[-1].offset + 1, SEAL_KEY, after.to_value())]).found == found.found


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"v": true}',
        b'{"v": 1}',
        b'{"v": 2, "at": 1, "who": "a", "action": "b", "pipeline": ""}',
        b'{"v": 2, "at": "1", "who": "a", "action": "b", "pipeline": "", "writer": "w", "n": 1, "previous": ""}',
        b'{"v": 2, "seal": 1}',
        b'{"v": 2, "seal": 1, "previous": "", "records": 1, "digest": "x", "last": null, "heads": {}, "marks": [], "at": 1, "who": ""}',
        b"[" * 100_000,
    ],
)
def test_what_is_neither_an_entry_nor_a_seal_is_a_finding_and_never_a_crash(value: bytes | None) -> None:
    with pytest.raises(UnreadableRecordError):
        parse(value)
    assert [one.kind for one in judged([recorded(0, b"k", value)]).findings] == ["unreadable"]


def test_an_entry_of_a_newer_version_is_not_judged() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Trail().take(recorded(3, b"k", orjson.dumps({"v": 99})))
    assert (raised.value.code, raised.value.where) == ("audit.version", "_trunkline.audit[0]@3")


def test_findings_are_counted_and_not_all_kept() -> None:
    trail = judged([recorded(at, b"k", b"x") for at in range(1500)])
    assert (trail.found, len(trail.findings)) == (1500, 1000)
