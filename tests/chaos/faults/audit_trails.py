"""Audit trails as several writers and sealers leave them in a topic, and what somebody with write access to the topic could do to one.

The topic is imitated: transactions commit, abort, or are left open by a writer that was killed, and a reader sees what is committed.
Entries, chains and seals are the product's own.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from trunkline.bus.accounting.audit import Chain, Entry, Recorded, Seal, Trail, hash_of, parse
from trunkline.bus.accounting.audit.chain import SEAL_KEY, Chained

TOPIC = "_trunkline.audit"
Records = list[Recorded]
PEOPLE = ("ada", "bob", "cyd")


def recorded(offset: int, key: bytes | None, value: bytes | None) -> Recorded:
    """A record as it stands in the topic."""
    return Recorded(f"{TOPIC}[0]@{offset}", offset, key, value)


def judged(records: Sequence[Recorded], head: str | None = None) -> Trail:
    """What verification finds, with a head that was noted earlier."""
    trail = Trail()
    for one in records:
        trail.take(one)
    if head is not None:
        trail.expect_head(head, TOPIC)
    return trail


@dataclass
class _Writer:
    chain: Chain = field(default_factory=Chain)
    open: list[int] | None = None
    """The records of its open transaction."""


class AuditedBus:
    """A topic, and everybody who writes to it at the same time."""

    def __init__(self, chance: random.Random, writers: int = 4) -> None:
        self._chance = chance
        self._log: list[tuple[bytes, bytes] | None] = []
        """None is a record of an aborted transaction, or a marker."""
        self._writers = [_Writer() for _ in range(writers)]
        self._pending: set[int] = set()
        self.aborted = self.killed = self.seals = 0

    def live(self, steps: int, *, old: int = 0) -> None:
        """Lets so many things happen, after `old` entries of a version without chains. In the end everything is sealed."""
        for number in range(old):
            entry = dataclasses.replace(self._entry(number), details={})
            self._log.append((entry.key, orjson.dumps({"v": 1, **entry.as_dict()})))
        for number in range(steps):
            what = self._chance.choices(
                (self._append, self._commit, self._abort, self._kill, self._command, self._seal), (6, 6, 1, 1, 4, 2)
            )[0]
            what(number)
        for writer in self._writers:
            self._end(writer)
        for last in range(2):
            entry = self._entry(last)
            self._log.append((entry.key, Chain().value(entry)))
            self._seal(last, alone=True)

    def records(self) -> Records:
        """What a reader of committed records is given."""
        ready = min(self._pending, default=len(self._log))
        return [recorded(at, *one) for at, one in enumerate(self._log[:ready]) if one is not None]

    def _entry(self, number: int) -> Entry:
        who, name = self._chance.choice(PEOPLE), self._chance.choice(("orders", "flights", ""))
        details = {
            "number": number,
            "before": self._chance.randrange(10),
            "after": {"text": "é" * self._chance.randrange(9)},
        }
        return Entry(
            1e9 + number, who, f"pipeline.{self._chance.choice(('pause', 'stop'))}", name, details, subject="Topic/x"
        )

    def _append(self, number: int) -> None:
        writer = self._chance.choice(self._writers)
        entry = self._entry(number)
        if writer.open is None and self._chance.random() < 0.3:
            self._log.append((entry.key, writer.chain.value(entry)))  # without a transaction
            return
        if writer.open is None:
            writer.open = []
        writer.open.append(len(self._log))
        self._pending.add(len(self._log))
        self._log.append((entry.key, writer.chain.value(entry)))

    def _commit(self, _number: int) -> None:
        self._end(self._chance.choice(self._writers))

    def _end(self, writer: _Writer) -> None:
        if writer.open is not None:
            self._pending.difference_update(writer.open)
            writer.open = None
            self._log.append(None)

    def _abort(self, _number: int) -> None:
        writer = self._chance.choice(self._writers)
        if writer.open is not None:
            for at in writer.open:
                self._log[at] = None
            self.aborted += len(writer.open)
            self._end(writer)
            writer.chain = Chain()

    def _kill(self, _number: int) -> None:
        """Who is killed may have committed, or the next owner of the id ends what was left open."""
        writer = self._chance.choice(self._writers)
        if self._chance.random() < 0.5:
            self._end(writer)
        else:
            self._abort_open(writer)
        self.killed += 1
        self._writers[self._writers.index(writer)] = _Writer()

    def _abort_open(self, writer: _Writer) -> None:
        for at in writer.open or ():
            self._log[at] = None
        self._end(writer)

    def _command(self, number: int) -> None:
        chain, tail = Chain(), None if self._pending else self._tail()
        made = [self._entry(number) for _ in range(self._chance.randrange(1, 4))]
        self._meanwhile(number)
        self._log += [(entry.key, chain.value(entry)) for entry in made]
        if tail is not None:
            self._log.append((SEAL_KEY, tail.next_seal("ada", chain.head).to_value()))
            self.seals += 1
        self._log.append(None)

    def _seal(self, number: int, *, alone: bool = False) -> None:
        if self._pending:
            return
        tail = self._tail()
        if tail.unsettled:
            if not alone:
                self._meanwhile(number)
            self._log += [(SEAL_KEY, tail.next_seal("w1").to_value()), None]
            self.seals += 1

    def _meanwhile(self, number: int) -> None:
        """Between the reading of the end and the seal others go on."""
        while self._chance.random() < 0.3:
            self._append(number)

    def _tail(self) -> Trail:
        """The end of the trail as a sealer reads it: all of it, or from the last seal on."""
        records = self.records()
        sealed = [one for one in records if one.key == SEAL_KEY]
        if not sealed or self._chance.random() < 0.3:
            return judged(records)
        seal, value = parse(sealed[-1].value), sealed[-1].value
        assert isinstance(seal, Seal)
        assert value is not None
        tail = Trail.resumed(seal, value)
        for one in records:
            if seal.last is None or one.offset > seal.last[0]:
                tail.take(one)
        return tail


# --- manipulations ---


def _numbered(contents: Sequence[tuple[bytes | None, bytes | None]]) -> Records:
    """A topic that was written anew with these records."""
    return [recorded(at, key, value) for at, (key, value) in enumerate(contents)]


def _contents(records: Sequence[Recorded]) -> list[tuple[bytes | None, bytes | None]]:
    return [(one.key, one.value) for one in records]


def _data(value: bytes | None) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(value or b"")
    return found


def _entries(records: Sequence[Recorded]) -> list[int]:
    return [at for at, one in enumerate(records) if isinstance(parse(one.value), Chained)]


def _edited(chance: random.Random, value: bytes | None) -> bytes:
    """Another thing said, in an entry that is otherwise as before."""
    data = _data(value)
    name = chance.choice(("who", "action", "at", "details"))
    data[name] = {"who": "eve", "action": "pipeline.resume", "at": data["at"] + 1, "details": {}}[name]
    return orjson.dumps(data)


def edit_a_byte(chance: random.Random, records: Records) -> Records:
    """One byte of a record is another."""
    made = _contents(records)
    at = chance.randrange(len(made))
    key, value = made[at]
    assert value is not None
    where = chance.randrange(len(value))
    made[at] = (key, value[:where] + bytes([value[where] ^ (1 << chance.randrange(8))]) + value[where + 1 :])
    return _numbered(made)


def edit_a_field(chance: random.Random, records: Records) -> Records:
    """An entry says another thing."""
    made, at = _contents(records), chance.choice(_entries(records))
    made[at] = (made[at][0], _edited(chance, made[at][1]))
    return _numbered(made)


def edit_a_key(chance: random.Random, records: Records) -> Records:
    """The key of a record is another."""
    made, at = _contents(records), chance.randrange(len(records))
    made[at] = (b"elsewhere", made[at][1])
    return _numbered(made)


def delete_some(chance: random.Random, records: Records) -> Records:
    """Records are missing that stood beside each other."""
    made = _contents(records)
    at = chance.randrange(len(made))
    del made[at : at + chance.choice((1, 1, 2, 5))]
    return _numbered(made)


def empty_a_value(chance: random.Random, records: Records) -> Records:
    """A record has no value any more."""
    made, at = _contents(records), chance.randrange(len(records))
    made[at] = (made[at][0], None)
    return _numbered(made)


def duplicate_one(chance: random.Random, records: Records) -> Records:
    """A record stands twice."""
    made = _contents(records)
    made.insert(chance.randrange(len(made)), made[chance.randrange(len(made))])
    return _numbered(made)


def reorder(chance: random.Random, records: Records) -> Records:
    """Two records stand in each other's place."""
    made = _contents(records)
    first, second = chance.sample(range(len(made)), 2)
    made[first], made[second] = made[second], made[first]
    return _numbered(made)


def cut_the_tail(chance: random.Random, records: Records) -> Records:
    """The end is missing."""
    return _numbered(_contents(records)[: -chance.randrange(1, len(records))])


def cut_the_beginning(chance: random.Random, records: Records) -> Records:
    """The beginning is missing."""
    return _numbered(_contents(records)[chance.randrange(1, len(records)) :])


def insert_a_forged_entry(chance: random.Random, records: Records) -> Records:
    """An entry of a writer of its own, whose chain is sound, stands before the last seal."""
    made, chain = _contents(records), Chain()
    entry = Entry(1e9, "eve", "pipeline.stop", "orders")
    made.insert(chance.randrange(len(made) - 1), (entry.key, chain.value(entry)))
    return _numbered(made)


def insert_without_a_chain(chance: random.Random, records: Records) -> Records:
    """A forged entry passes for one of an earlier version, before the last seal or behind everything."""
    made, entry = _contents(records), Entry(1e9, "eve", "pipeline.stop", "orders")
    at = chance.choice([len(made), chance.randrange(max(1, len(made) // 2), len(made))])
    made.insert(at, (entry.key, orjson.dumps({"v": 1, **entry.as_dict()})))
    return _numbered(made)


def continue_a_writer(chance: random.Random, records: Records) -> Records:
    """A forged entry continues a writer's chain where that had ended."""
    made = _contents(records)
    last = {found.writer: at for at in _entries(records) if isinstance(found := parse(records[at].value), Chained)}
    at = chance.choice(sorted(one for one in last.values() if one < len(records) - 2))
    found = parse(records[at].value)
    assert isinstance(found, Chained)
    chain = Chain()
    chain.writer, chain.number, chain.hash = found.writer, found.number, hash_of(records[at].value)
    entry = Entry(1e9, "eve", "pipeline.stop", "orders")
    made.insert(chance.randrange(at + 1, len(made) - 1), (entry.key, chain.value(entry)))
    return _numbered(made)


def rewrite_a_writer(chance: random.Random, records: Records) -> Records:
    """A writer's entry says another thing, and all that follow in its chain follow that one."""
    made = _contents(records)
    at = chance.choice(_entries(records))
    made[at] = (made[at][0], _edited(chance, made[at][1]))
    _relink(made)
    return _numbered(made)


def move_between_writers(chance: random.Random, records: Records) -> Records:
    """An entry is another writer's, and the chains of both are sound."""
    made, entries = _contents(records), _entries(records)
    at = chance.choice(entries)
    data = _data(made[at][1])
    others = sorted({_data(made[one][1])["writer"] for one in entries} - {data["writer"]})
    data["writer"] = chance.choice(others)
    made[at] = (made[at][0], orjson.dumps(data))
    _relink(made)
    return _numbered(made)


def _relink(contents: list[tuple[bytes | None, bytes | None]]) -> None:
    """Writes all chains of entries anew, each of them sound. What was not touched stays as it is."""
    chains: dict[str, tuple[int, str]] = {}
    for at, (key, value) in enumerate(contents):
        if not isinstance(parse(value), Chained):
            continue
        data = _data(value)
        number, previous = chains.get(data["writer"], (0, ""))
        if (data["n"], data["previous"]) != (number + 1, previous):
            data |= {"n": number + 1, "previous": previous}
            value = orjson.dumps(data)  # noqa: PLW2901
            contents[at] = (key, value)
        chains[data["writer"]] = (number + 1, hash_of(value))


def strip_a_link(chance: random.Random, records: Records) -> Records:
    """An entry passes for one of the version that had no chains."""
    made, at = _contents(records), chance.choice(_entries(records))
    kept = {name: content for name, content in _data(made[at][1]).items() if name not in {"writer", "n", "previous"}}
    made[at] = (made[at][0], orjson.dumps({**kept, "v": 1}))
    return _numbered(made)


def rewrite_the_seals(chance: random.Random, records: Records) -> Records:
    """An entry says another thing, and all chains and seals behind it are made anew: the topic is sound by itself."""
    made = _contents(rewrite_a_writer(chance, records))
    return _numbered(_sealed_anew(made))


def drop_and_seal_anew(chance: random.Random, records: Records) -> Records:
    """An entry is missing, and all chains and seals behind it are made anew: the topic is sound by itself."""
    made = _contents(records)
    del made[chance.choice(_entries(records))]
    _relink(made)
    return _numbered(_sealed_anew(made))


def _sealed_anew(contents: Sequence[tuple[bytes | None, bytes | None]]) -> list[tuple[bytes | None, bytes | None]]:
    made: list[tuple[bytes | None, bytes | None]] = []
    trail = Trail()
    for key, value in contents:
        own = trail.next_seal("ada").to_value() if isinstance(parse(value), Seal) else value
        trail.take(recorded(len(made), key, own))
        made.append((key, own))
    return made


def edit_a_seal(chance: random.Random, records: Records) -> Records:
    """A seal says that it covers something else."""
    made = _contents(records)
    at = chance.choice([one for one, record in enumerate(records) if record.key == SEAL_KEY])
    data = _data(made[at][1])
    name = chance.choice(("digest", "records", "seal", "previous", "at"))
    data[name] = {"digest": hash_of(b"x"), "previous": hash_of(b"x")}.get(name) or data[name] + chance.choice((-1, 1))
    made[at] = (made[at][0], orjson.dumps(data))
    return _numbered(made)


def delete_a_seal(chance: random.Random, records: Records) -> Records:
    """A seal is missing."""
    made = _contents(records)
    del made[chance.choice([one for one, record in enumerate(records) if record.key == SEAL_KEY])]
    return _numbered(made)


Manipulation = Callable[[random.Random, Records], Records]
BY_ITSELF: Mapping[str, Manipulation] = {
    made.__name__: made
    for made in (
        edit_a_byte,
        edit_a_field,
        edit_a_key,
        empty_a_value,
        delete_some,
        duplicate_one,
        reorder,
        cut_the_beginning,
        insert_a_forged_entry,
        insert_without_a_chain,
        continue_a_writer,
        rewrite_a_writer,
        move_between_writers,
        strip_a_link,
        edit_a_seal,
        delete_a_seal,
    )
}
"""What the topic itself shows, unless it was done to its very end."""
BY_HEAD: Mapping[str, Manipulation] = {
    made.__name__: made for made in (cut_the_tail, rewrite_the_seals, drop_and_seal_anew)
}
"""What leaves a topic that is sound by itself: only a head that was noted elsewhere shows it."""
MANIPULATIONS: Mapping[str, Manipulation] = {**BY_ITSELF, **BY_HEAD}
