"""The park of one partition number during one assignment: its store, and what must be known when its inputs are read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from trunkline.bus.deadletters import Failure
from trunkline.bus.intake import Partition
from trunkline.bus.ledger import Outcome
from trunkline.bus.parking.orders import Tenure
from trunkline.bus.parking.records import (
    Origin,
    ParkedRecord,
    is_record,
    mark,
    mark_key,
    marked,
    outcome_of,
    prefix_of,
)
from trunkline.bus.state import Changelog, Changes, Entry, StateStore


class Lot:
    """One partition number. A lot that nothing was ever parked in has no store until something is."""

    def __init__(self, number: int, changelog: Changelog, topic_ids: Mapping[str, str]) -> None:
        self.number = number
        self.tenure = Tenure()
        self.known: dict[Partition, dict[int, Outcome]] = {}
        """Offsets of each input that will be read again although they were parked, since no commit passed them; and what they became."""
        self._changelog = changelog
        self._topic_ids = topic_ids
        self._store: StateStore | None = None
        self._changes: Changes | None = None
        self._marks: dict[bytes, Origin] = {}
        self._sequence = 0
        self._next = 0

    # --- its life ---

    def open(self) -> None:
        """Opens the store and brings it up to the stable end of its topic."""
        if self._store is None:
            self._store = self._changelog.open([self.number])[self.number]
            self._changes = Changes(self._store)
        else:
            self._changelog.catch_up(self._store)

    def take_stock(self, positions: Mapping[Partition, int]) -> tuple[Counter[bytes], dict[bytes, Failure]]:
        """How many records of each key are parked, and why the first of each waits.

        What was read from its position on and is known here is noted.
        """
        counts: Counter[bytes] = Counter()
        heads: dict[bytes, Failure] = {}
        if self._store is None:
            return counts, heads
        for store_key, entry in self._store.items():
            if is_record(store_key):
                record = ParkedRecord.of(store_key, entry)
                counts[record.key] += 1
                if record.key not in heads:
                    heads[record.key] = Failure(
                        "SINK", record.code, record.reason, record.attempts, record.first_failed_at or record.at
                    )
                self._sequence = max(self._sequence, record.sequence)
                self._note(record.origin, "parked", positions)
            elif (origin := marked(store_key)) is not None:
                self._marks[store_key] = origin
                self._note(origin, outcome_of(entry), positions)
        self._next = self._sequence
        return counts, heads

    def _note(self, origin: Origin, outcome: Outcome, positions: Mapping[Partition, int]) -> None:
        partition = (origin.topic, origin.partition)
        if origin.topic_id == self._topic_ids.get(origin.topic) and origin.offset >= positions.get(
            partition, origin.offset + 1
        ):
            self.known.setdefault(partition, {})[origin.offset] = outcome

    def close(self) -> None:
        """The partition went away: what was not committed never was."""
        self.tenure.current = self.tenure.stays = False
        if self._store is not None:
            self._store.close()
            self._store = self._changes = None

    # --- one transaction ---

    def next_sequence(self) -> int:
        """The place of a record that is parked now, behind all others."""
        self._next += 1
        return self._next

    def put(self, record: ParkedRecord) -> None:
        """Parks a record, or changes a parked one."""
        self._open_changes().put(record.store_key, record.entry())

    def settle(self, record: ParkedRecord, outcome: Outcome, passed: Mapping[Partition, int]) -> None:
        """A parked record ended so. Where no commit has passed its input yet a mark that says so stays, until one has.

        Without the mark a crash would have it read again and delivered, although it was dropped, or delivered in another form.
        """
        changes = self._open_changes()
        changes.delete(record.store_key)
        origin = record.origin
        position = passed.get((origin.topic, origin.partition))
        if position is not None and origin.offset >= position and origin.topic_id == self._topic_ids.get(origin.topic):
            changes.put(mark_key(origin), mark(outcome))

    def remove_passed_marks(self, passed: Mapping[Partition, int]) -> None:
        """Removes the marks that commits have passed."""
        for store_key, origin in self._marks.items():
            if self._is_passed(origin, passed):
                self._open_changes().delete(store_key)

    def has_passed_marks(self, passed: Mapping[Partition, int]) -> bool:
        """Whether there is a mark to remove."""
        return any(self._is_passed(origin, passed) for origin in self._marks.values())

    def _is_passed(self, origin: Origin, passed: Mapping[Partition, int]) -> bool:
        """Whether a mark says nothing any more: it is behind the commit, or of a topic that there is another one of now."""
        topic_id = self._topic_ids.get(origin.topic, origin.topic_id)
        return topic_id != origin.topic_id or origin.offset < passed.get((origin.topic, origin.partition), -1)

    def changed(self) -> list[tuple[bytes, Entry | None]]:
        """What the changes add to the changelog."""
        return self._changes.records() if self._changes is not None else []

    def apply(self, offset: int | None) -> None:
        """The transaction committed; `offset` is the changelog's after it, None where that is not known."""
        if self._store is None or self._changes is None or not len(self._changes):
            return
        for store_key, entry in self._changes.records():
            origin = marked(store_key)
            if origin is not None and entry is not None:
                self._marks[store_key] = origin
                known = self.known.get((origin.topic, origin.partition), {})
                if origin.offset in known:
                    known[origin.offset] = outcome_of(entry)
            else:
                self._marks.pop(store_key, None)
        self._changes.apply(offset if offset is not None else self._store.offset)
        self._sequence = self._next

    def discard(self) -> None:
        """The transaction was aborted."""
        self._next = self._sequence
        if self._changes is not None:
            self._changes.discard()

    def _open_changes(self) -> Changes:
        if self._changes is None:
            self.open()
        assert self._changes is not None
        return self._changes

    # --- reading ---

    def first(self, key: bytes, most: int | None = None) -> list[ParkedRecord]:
        """The first records of a key in their order, changes of the open transaction included."""
        return list(islice(self._records(key), most))

    def _records(self, key: bytes) -> Iterator[ParkedRecord]:
        if self._changes is None:
            return
        for store_key, entry in self._changes.items(prefix_of(key)):
            yield ParkedRecord.of(store_key, entry)
