"""Reading the audit trail record by record: what of it holds, what was tampered with and where, and what the next seal would cover.

Every check goes on behind what it found: of a chain that is broken in one place only that place is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from trunkline.bus.accounting.audit.chain import (
    MARK,
    NOTHING,
    SEAL_KEY,
    Chained,
    Recorded,
    Seal,
    Unchained,
    UnreadableRecordError,
    hash_of,
    parse,
    record_digest,
    rolled,
)
from trunkline.bus.accounting.audit.entry import Entry
from trunkline.core.errors import ConfigurationError

MOST_TOLD: Final = 1000
"""How many findings are kept; all are counted."""
MOST_MARKS: Final = 2000
MOST_HEADS: Final = 1000
"""How many writers a seal names, of those that wrote last. It covers all: this is only for what stands behind its records."""
NEAR: Final = 64
"""How many records further on the end of a seal's records is looked for, where their number is not what it says."""
LEAST_HEAD: Final = 16
"""How many digits of a noted head are enough."""
Kind = Literal["changed", "missing", "inserted", "moved", "repeated", "unreadable", "head"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that nobody who only appends can have done. `entry` is the one at that place, without its details, where it can be read."""

    place: str
    kind: Kind
    what: str
    entry: Mapping[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The finding as data."""
        return {"place": self.place, "kind": self.kind, "what": self.what, "entry": self.entry}


class _Stood(NamedTuple):
    """A record that no seal has covered yet. Without a number it is no entry of a chain, and with the writer None it is a seal."""

    place: str
    offset: int
    digest: str
    entry: Mapping[str, Any] | None
    writer: str | None
    number: int


@dataclass(slots=True)
class _Writer:
    """A writer as far as it was read: its last entry, and those that no seal has named."""

    number: int
    hash: str
    place: str
    entry: Mapping[str, Any]
    sealed: int
    open: dict[int, tuple[str, str, Mapping[str, Any]]]


class Trail:
    """Takes the records of a topic in their order."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.found = 0
        """How many findings there are, also of those that were not kept."""
        self.records = 0
        self.entries = 0
        self.unchained = 0
        """Entries of a version without chains, which come first: behind the first chain nobody writes another one."""
        self.writers = 0
        self.seals = 0
        self.head = ""
        """The hash of the last seal; empty where there is none."""
        self.number = 0
        """The number of the last seal."""
        self.sealed_at: float | None = None
        self._covered = 0
        self._digest = NOTHING
        self._last: tuple[int, str] | None = None
        self._open: list[_Stood] = []
        self._known: dict[str, _Writer] = {}
        self._heads: list[str] = []
        self._resumed = False
        self._whole = True

    @classmethod
    def resumed(cls, seal: Seal, value: bytes) -> Trail:
        """A trail that goes on behind the records which a seal covers: given those from there on, that seal among them."""
        made = cls()
        made.head, made.number, made.sealed_at = hash_of(value), seal.number, seal.at
        made._covered = made.records = seal.records
        made._digest, made._last = seal.digest, seal.last
        made._resumed, made._whole = True, False
        return made

    def take(self, record: Recorded) -> None:
        """Takes the next record. Raises `ConfigurationError` (`audit.version`) for one of a newer version."""
        entry: Mapping[str, Any] | None = None
        writer: str | None = ""
        number = 0
        if record.partition != 0:
            self._tell(record.place, "inserted", "the trail has one partition, and this stands in another")
            return
        try:
            found = parse(record.value)
        except UnreadableRecordError as error:
            self._tell(record.place, "unreadable", f"this is neither an entry nor a seal: {error}")
        except ConfigurationError as error:
            raise ConfigurationError(error.message, where=record.place, hint=error.hint, code=error.code) from None
        else:
            if isinstance(found, Seal):
                writer = None
                self._take_seal(record, found)
            else:
                entry = _shown(found.entry)
                self.entries += 1
                if (record.key or b"") != found.entry.key:
                    self._tell(record.place, "changed", "its key is not that of what it says it is about", entry)
                if isinstance(found, Unchained):
                    self.unchained += 1
                    if self._known or self.seals or self._resumed:
                        reason = (
                            "it has no chain, as entries of an earlier version, and stands behind others that have one"
                        )
                        self._tell(record.place, "inserted", reason, entry)
                else:
                    writer, number = found.writer, found.number
                    self._take_link(record, found, entry)
        digest = record_digest(record.key, record.value)
        self._open.append(_Stood(record.place, record.offset, digest, entry, writer, number))
        self.records += 1

    @property
    def unsealed(self) -> int:
        """How many entries no seal covers yet."""
        return sum(1 for one in self._open if one.writer is not None and not self._named(one))

    @property
    def unsettled(self) -> int:
        """How many entries stand behind the records that the last seal covers, also where it names them as heads."""
        return sum(1 for one in self._open if one.writer is not None)

    def next_seal(self, who: str, own: Mapping[str, tuple[int, str]] | None = None) -> Seal:
        """The seal over everything that was taken. `own` is the head of the chain whose entries are written just before it."""
        digest = self._digest
        for one in self._open:
            digest = rolled(digest, one.digest)
        names = list(dict.fromkeys(one.writer for one in reversed(self._open) if one.writer))[:MOST_HEADS]
        heads = {name: (self._known[name].number, self._known[name].hash) for name in names if name in self._known}
        marks = [one.digest[:MARK] for one in self._open] if len(self._open) <= MOST_MARKS else []
        last = (self._open[-1].offset, self._open[-1].digest) if self._open else self._last
        return Seal(
            self.number + 1,
            self.head,
            self._covered + len(self._open),
            digest,
            last,
            {**heads, **(own or {})},
            marks,
            time.time(),
            who,
        )

    def has_head(self, head: str) -> bool:
        """Whether a noted head, or the beginning of one, is that of a seal of this trail."""
        return len(head) >= LEAST_HEAD and any(one.startswith(head.lower()) for one in self._heads)

    def expect_head(self, head: str, place: str) -> None:
        """Tells where a head that was noted earlier is not part of the trail."""
        if not self.has_head(head):
            what = (
                f"the noted head {head} is not the hash of any of its {self.seals} seals: the trail was cut, rewritten, "
                "or deleted and made anew after it was noted"
            )
            self._add(Finding(place, "head", what))

    # --- the chains of writers ---

    def _take_link(self, record: Recorded, found: Chained, entry: Mapping[str, Any]) -> None:
        known, place = self._known.get(found.writer), record.place
        if known is None:
            self.writers += 1
            if self._whole and (found.number != 1 or found.previous):
                what = f"of its writer {found.writer} the entries before number {found.number} are missing"
                self._tell(record.place, "missing", what, entry)
            self._known[found.writer] = known = _Writer(0, "", place, entry, 0, {})
        elif found.number <= known.number:
            what = (
                f"the entry {found.number} of its writer {found.writer} stands here again, behind number {known.number}"
            )
            self._tell(record.place, "repeated", what, entry)
            return
        elif found.number > known.number + 1:
            count = found.number - known.number - 1
            what = f"{count} entries of its writer {found.writer} are missing between this one and {known.place}"
            self._tell(record.place, "missing", what, entry)
        elif found.previous != known.hash:
            what = f"the next entry of its writer {found.writer}, {place}, follows another one: one of both was changed"
            self._tell(known.place, "changed", what, known.entry)
        known.number, known.hash = found.number, hash_of(record.value)
        known.place, known.entry = place, entry
        known.open[found.number] = (known.hash, place, entry)

    def _named(self, one: _Stood) -> bool:
        known = self._known.get(one.writer or "")
        return known is not None and one.number <= known.sealed

    # --- seals ---

    def _take_seal(self, record: Recorded, seal: Seal) -> None:
        own = hash_of(record.value)
        if self._resumed:
            if own == self.head:
                self._resumed = False
                self.seals += 1
                self._heads.append(own)
                self._take_heads(record, seal)
            return
        if record.key != SEAL_KEY:
            self._tell(record.place, "changed", f"the key of the seal {seal.number} is not that of a seal")
        self._check_place(record, seal)
        self._take_covered(record, seal)
        self._take_heads(record, seal)
        self.seals += 1
        self.number, self.head, self.sealed_at, self._last = seal.number, own, seal.at, seal.last
        self._heads.append(own)

    def _check_place(self, record: Recorded, seal: Seal) -> None:
        if seal.number > self.number + 1:
            first, last = self.number + 1, seal.number - 1
            what = f"the seal {first}" if first == last else f"the seals {first} to {last}"
            self._tell(record.place, "missing", f"{what} before this one, number {seal.number}, are missing")
        elif seal.number <= self.number:
            what = f"the seal {seal.number} stands behind number {self.number}"
            self._tell(record.place, "repeated" if seal.number > 0 else "changed", what)
        elif seal.previous != self.head:
            what = f"the seal {seal.number} does not follow the one before it: one of both was changed"
            self._tell(record.place, "changed", what)

    def _take_covered(self, record: Recorded, seal: Seal) -> None:
        """Compares what the seal covers since the one before it, and goes on behind that."""
        count = seal.records - self._covered
        digest = self._digest
        for one in self._open[: max(count, 0)]:
            digest = rolled(digest, one.digest)
        if not (0 <= count <= len(self._open) and digest == seal.digest):
            self._add(self._difference(record, seal, count))
            count = self._end_of(seal, count)
        del self._open[:count]
        self._covered, self._digest = seal.records, seal.digest

    def _end_of(self, seal: Seal, count: int) -> int:
        """How many open records the seal covers, where they are not what it says: they end with its last one, if that is there."""
        least = max(0, min(count, len(self._open)))
        if seal.last is not None:
            near = self._open[: least + NEAR]
            for index in reversed(range(len(near))):
                if near[index].digest == seal.last[1]:
                    return index + 1
        return least

    def _difference(self, record: Recorded, seal: Seal, count: int) -> Finding:
        name = f"the seal {seal.number} ({record.place})"
        if count < 0:
            return Finding(record.place, "changed", f"the seal {seal.number} covers less than the one before it")
        if count != len(seal.marks):
            covered = self._open[:count]
            reach = f"{covered[0].place} to {covered[-1].place}" if covered else "nothing"
            there = f", and {len(covered)} of {count} are there" if len(covered) < count else ""
            what = f"what {name} covers, {reach}, is not what was sealed{there}"
            return Finding(covered[0].place if covered else record.place, "changed", what)
        for index, mark in enumerate(seal.marks):
            if index >= len(self._open):
                what = f"{count - index} records that {name} covers are missing before it"
                return Finding(record.place, "missing", what)
            if not self._open[index].digest.startswith(mark):
                return self._first_unlike(index, seal.marks, name)
        what = f"the digest of the seal {seal.number} is not that of what it covers: it was changed, or what its marks are of"
        return Finding(record.place, "changed", what)

    def _first_unlike(self, index: int, marks: Sequence[str], name: str) -> Finding:
        """What became of the first open record that is not the one which was sealed in its place."""
        here = self._open[index]
        there = {one.digest[:MARK]: number for number, one in enumerate(self._open[index : len(marks) + NEAR])}
        expected = {mark: number for number, mark in reversed(list(enumerate(marks[index:])))}
        moved_away, sealed_later = marks[index] in there, expected.get(here.digest[:MARK])
        entry = here.entry
        if moved_away and sealed_later is not None:
            return Finding(
                here.place, "moved", f"from here on the records stand in another order than {name} covers", entry
            )
        if sealed_later is not None:
            what = f"{sealed_later} records that {name} covers are missing before this one"
            return Finding(here.place, "missing", what, entry)
        if moved_away:
            return Finding(here.place, "inserted", f"this record was not here when {name} was written", entry)
        return Finding(here.place, "changed", f"this record is not the one that {name} covers", entry)

    def _take_heads(self, record: Recorded, seal: Seal) -> None:
        for writer, (number, wanted) in seal.heads.items():
            known = self._known.get(writer)
            if known is None or number > known.number:
                if self._whole:
                    what = (
                        f"the entry {number} of the writer {writer}, which the seal {seal.number} covers, is not there"
                    )
                    self._tell(record.place, "missing", what)
                continue
            own = known.open.get(number)
            if own is not None and own[0] != wanted:
                what = f"the entry {number} of its writer {writer} is not the one that the seal {seal.number} covers ({record.place})"
                self._tell(own[1], "changed", what, own[2])
            known.sealed = max(known.sealed, number)
            for passed in [one for one in known.open if one <= number]:
                del known.open[passed]

    def _tell(self, place: str, kind: Kind, what: str, entry: Mapping[str, Any] | None = None) -> None:
        self._add(Finding(place, kind, what, entry))

    def _add(self, finding: Finding) -> None:
        self.found += 1
        if len(self.findings) < MOST_TOLD:
            self.findings.append(finding)


def _shown(entry: Entry) -> Mapping[str, Any]:
    """What tells an entry from others. Details may be large, and a trail is long."""
    return {
        "at": entry.at,
        "who": entry.who,
        "action": entry.action,
        "pipeline": entry.pipeline,
        "subject": entry.subject,
        "command": entry.command,
    }
