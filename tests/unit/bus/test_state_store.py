"""The state store: what it keeps, what it hides until the commit, and which stores it does not trust."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from itertools import count
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from rocksdict import Options, Rdict
from structlog.testing import capture_logs

from trunkline.bus.state import Changes, Entry, Identity, StateStore
from trunkline.bus.state import store as store_module
from trunkline.bus.state.entry import Record
from trunkline.core.errors import RetriableError

IDENTITY = Identity("pipeline.changelog", "Tid", 3)

keys = st.binary(max_size=3) | st.sampled_from([b"", b"\x00", b"\xff", b"\xff\xff", b"a", b"ab", b"b"])
headers = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=3)
entries = st.builds(Entry, st.binary(max_size=20), headers)


@given(entries)
def test_an_entry_comes_back_as_it_was_packed(entry: Entry) -> None:
    assert Entry.unpack(entry.pack()) == entry


class StoreMachine(RuleBasedStateMachine):
    """A store beside a changelog of the test and a dict, through commits, aborts and crashes at each point between."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.numbers = count()
        self.log: list[Record] = []
        self.committed: dict[bytes, Entry] = {}
        self.seen: dict[bytes, Entry] = {}
        self._open(self.root / str(next(self.numbers)))

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.root)

    def _open(self, folder: Path) -> None:
        self.folder = folder
        self.store = StateStore.open(folder, IDENTITY)
        self.store.write(self.log[self.store.offset :], len(self.log))
        self.changes = Changes(self.store)
        self.seen = dict(self.committed)

    def _in_changelog(self) -> int:
        self.log += self.changes.records()
        self.committed = dict(self.seen)
        return len(self.log)

    def _killed(self) -> None:
        # What a killed process leaves is what its files have at that moment.
        left = self.root / str(next(self.numbers))
        while True:
            try:
                shutil.copytree(self.folder, left)
                break
            except shutil.Error:  # RocksDB deleted files of a compaction meanwhile
                shutil.rmtree(left)
        self.store.close()
        self._open(left)

    @rule(key=keys, entry=entries)
    def put(self, key: bytes, entry: Entry) -> None:
        self.changes.put(key, entry)
        self.seen[key] = entry

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        self.changes.delete(key)
        self.seen.pop(key, None)

    @rule()
    def commit(self) -> None:
        self.changes.apply(self._in_changelog())

    @rule()
    def abort(self) -> None:
        self.changes.discard()
        self.seen = dict(self.committed)

    @rule()
    def die_before_the_commit(self) -> None:
        self._killed()

    @rule()
    def die_between_commit_and_apply(self) -> None:
        self._in_changelog()
        self._killed()

    @rule()
    def die_after_the_apply(self) -> None:
        self.changes.apply(self._in_changelog())
        self._killed()

    @rule()
    def close_and_open(self) -> None:
        self.store.close()
        self._open(self.folder)

    @rule()
    def lose_the_disk(self) -> None:
        self.store.close()
        self._open(self.root / str(next(self.numbers)))

    @rule()
    def do_not_know_whether_it_committed(self) -> None:
        self._in_changelog()
        self.changes.discard()
        self.store.write(self.log[self.store.offset :], len(self.log))

    @precondition(lambda self: self.seen)
    @rule(prefix=keys)
    def read_by_prefix(self, prefix: bytes) -> None:
        expected = sorted((key, entry) for key, entry in self.seen.items() if key.startswith(prefix))
        assert [(key, entry) for key, entry in self.changes.items(prefix)] == expected

    @rule(key=keys)
    def read_one(self, key: bytes) -> None:
        assert self.changes.get(key) == self.seen.get(key)
        assert self.store.get(key) == self.committed.get(key)

    @invariant()
    def the_store_has_exactly_what_is_committed_in_order(self) -> None:
        assert list(self.store.items()) == sorted(self.committed.items())
        assert self.store.offset == len(self.log)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


def test_many_keys_are_read_in_order_and_while_they_are_deleted(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "0", IDENTITY)
    names = [b"%05d" % number for number in range(1000)]
    store.write([(name, Entry(b"v")) for name in names], 1000)
    found = []
    for key, entry in store.items():
        found.append(key)
        assert entry == Entry(b"v")
        store.write([(key, None)], 1000)
    assert found == names
    assert list(store.items()) == []
    store.close()


def _filled(folder: Path, identity: Identity = IDENTITY) -> None:
    store = StateStore.open(folder, identity)
    store.write([(b"k", Entry(b"v"))], 7)
    store.close()


def _opened(folder: Path) -> tuple[int, list[tuple[bytes, Entry]]]:
    store = StateStore.open(folder, IDENTITY)
    try:
        return store.offset, list(store.items())
    finally:
        store.close()


def test_a_store_remembers_its_changelog_offset(tmp_path: Path) -> None:
    _filled(tmp_path / "0")
    assert _opened(tmp_path / "0") == (7, [(b"k", Entry(b"v"))])


@pytest.mark.parametrize(
    "identity", [Identity("pipeline.changelog", "Other", 3), Identity("pipeline.changelog", "Tid", 4)]
)
def test_a_copy_of_another_topic_or_partition_is_thrown_away_and_the_log_says_so(
    tmp_path: Path, identity: Identity
) -> None:
    _filled(tmp_path / "0", identity)
    with capture_logs() as logged:
        assert _opened(tmp_path / "0") == (0, [])
    assert [one["reason"] for one in logged] == ["it is a copy of another topic"]


@pytest.mark.parametrize(
    ("checkpoint", "reason"),
    [
        ({"v": 2, "topic_id": "Tid", "partition": 3, "offset": 7, "at": 1.0}, "it has format 2"),
        ({"v": 1, "topic_id": "Tid", "partition": 3}, "its checkpoint can't be read"),
    ],
)
def test_a_store_of_a_newer_format_or_without_a_readable_checkpoint_is_thrown_away(
    tmp_path: Path, checkpoint: dict[str, object], reason: str
) -> None:
    _filled(tmp_path / "0")
    database = Rdict(str(tmp_path / "0"), Options(raw_mode=True))
    database[store_module._CHECKPOINT] = orjson.dumps(checkpoint)
    database.close()
    with capture_logs() as logged:
        assert _opened(tmp_path / "0") == (0, [])
    assert logged[0]["reason"].startswith(reason)


@pytest.mark.parametrize("pattern", ["MANIFEST-*", "CURRENT"])
def test_a_damaged_store_is_thrown_away_and_the_log_says_so(tmp_path: Path, pattern: str) -> None:
    _filled(tmp_path / "0")
    for file in (tmp_path / "0").glob(pattern):
        file.write_bytes(b"garbage" * 10)
    with capture_logs() as logged:
        assert _opened(tmp_path / "0") == (0, [])
    assert [one["event"] for one in logged] == ["a local state store is thrown away and built anew"]


def test_damage_that_is_found_while_reading_fails_the_reader_and_the_next_opening_begins_anew(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "0", IDENTITY)
    store.write([(b"%05d" % number, Entry(hashlib.sha256(b"%d" % number).digest())) for number in range(5000)], 7)
    store.close()
    (file,) = (tmp_path / "0").glob("*.sst")
    content = bytearray(file.read_bytes())
    middle = len(content) // 2  # where entries are: neither the checkpoint nor the index
    content[middle : middle + 100] = b"x" * 100
    file.write_bytes(content)
    store = StateStore.open(tmp_path / "0", IDENTITY)
    with pytest.raises(RetriableError) as raised:
        list(store.items())
    assert raised.value.code == "state.damaged"
    store.close()
    assert _opened(tmp_path / "0") == (0, [])


def test_a_store_that_somebody_else_has_open_is_not_touched(tmp_path: Path) -> None:
    _filled(tmp_path / "0")
    holder = StateStore.open(tmp_path / "0", IDENTITY)
    with pytest.raises(RetriableError) as raised:
        StateStore.open(tmp_path / "0", IDENTITY)
    assert raised.value.code == "state.locked"
    assert holder.get(b"k") == Entry(b"v")
    holder.close()
    assert _opened(tmp_path / "0")[0] == 7


def test_an_offset_that_is_too_low_does_not_take_the_store_back(tmp_path: Path) -> None:
    _filled(tmp_path / "0")
    store = StateStore.open(tmp_path / "0", IDENTITY)
    changes = Changes(store)
    changes.put(b"l", Entry(b"w"))
    changes.apply(3)
    assert store.offset == 7
    store.close()
