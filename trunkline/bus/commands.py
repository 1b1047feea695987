"""Commands: whoever changes what is applied, wanted or decided does it alike, and nobody's change is lost.

Nobody leads. All commands of a namespace share one transactional id, and each goes the same way:

1. It reads the topic and decides what to write.
2. `init_transactions` fences whoever else was about to write, and ends the transaction that a killed one left open.
3. It reads what was committed since; if anything was, it decides again.
4. It writes the new state and the audit entries in one transaction, and a seal over them and all that stand before.

A command that was fenced meanwhile begins again. So what is written follows from exactly the state that it replaces, and the
audit trail has every change, in the order in which they took effect (docs/adr/0024).
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Generic, TypeVar

from confluent_kafka import KafkaException, Message, Producer

from trunkline.bus.accounting import audit
from trunkline.bus.accounting.audit import Chain, Entry
from trunkline.bus.kafka import (
    KafkaSettings,
    end_offsets,
    headers_of,
    offset_of,
    produce,
    read_range,
    translate,
    watermarks,
)
from trunkline.bus.names import Names
from trunkline.bus.sealing import IDLE_FETCH_MS, STEP_SECONDS, commanding_producer, seal_own, tail_of
from trunkline.core.errors import ConflictError, RetriableError, TrunklineError

T = TypeVar("T")
ABSENT = -1
"""The version of what is not there."""
BY_HEADER = "trunkline.by"
"""Who wrote a record of state. A deletion has no value that could say it."""
PATIENCE_SECONDS = 30.0
"""How long a command begins again while others fence it or Kafka is away."""
LONGEST_PAUSE = 1.0
SETTLING_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Current:
    """The latest record of a key. `version` is its offset, `value` is None where the key was deleted, `at` is in Unix seconds."""

    value: bytes | None
    version: int
    by: str
    at: float


class Latest:
    """The latest record of each key of a topic."""

    def __init__(self) -> None:
        self._found: dict[str, Message] = {}

    def take(self, message: Message) -> None:
        """Takes a record, which must be newer than those of its key that were taken before."""
        key = (message.key() or b"").decode()
        self._found.pop(key, None)
        self._found[key] = message

    @property
    def messages(self) -> list[Message]:
        """The records, deletions among them, in the order in which they were taken."""
        return list(self._found.values())

    def last(self, key: str) -> Current | None:
        """The latest record of a key, also where that is its deletion."""
        message = self._found.get(key)
        if message is None:
            return None
        by = next((value for name, value in reversed(headers_of(message)) if name == BY_HEADER), b"")
        return Current(
            message.value(), offset_of(message), by.decode("utf-8", "replace"), message.timestamp()[1] / 1000
        )

    def get(self, key: str) -> Current | None:
        """The latest record of a key that is there."""
        found = self.last(key)
        return found if found is not None and found.value is not None else None

    def version(self, key: str) -> int:
        """The version of a key; ABSENT where it is not there."""
        found = self.get(key)
        return found.version if found is not None else ABSENT

    def items(self) -> Iterator[tuple[str, Current]]:
        """The keys that are there, with their records, in the order in which these were written."""
        for key in self._found:
            found = self.get(key)
            if found is not None:
                yield key, found

    def expect(self, seen: Mapping[str, int]) -> None:
        """Raises `ConflictError` where a key no longer has the version that the caller saw."""
        moved = {key: self.last(key) for key, version in seen.items() if self.version(key) != version}
        if moved:
            raise conflict({key: (found, ()) for key, found in moved.items()})


def read_latest(settings: KafkaSettings, topic: str) -> Latest:
    """A topic as it is now. Raises our error for Kafka's.

    What was committed just now may be seen a moment later: so long a transaction that is open is waited for, and no longer, since
    one that a killed command left is open until the next command ends it.
    """
    ends = end_offsets(settings, topic)
    deadline = time.monotonic() + SETTLING_SECONDS
    while time.monotonic() < deadline:
        committed = end_offsets(settings, topic, committed_only=True)
        if all(committed.get(partition, 0) >= end for partition, end in ends.items()):
            break
        time.sleep(0.02)
    reading = _Reading(settings, topic, None)
    try:
        reading.read_on(patient=False)
        return reading.latest
    finally:
        reading.close()


Difference = tuple[str, object, object]
"""A field, and what it was and is."""


def conflict(moved: Mapping[str, tuple[Current | None, Sequence[Difference]]]) -> ConflictError:
    """The error for what moved since the caller saw it: by key its latest record, and the fields in which it differs."""
    told = []
    for key, (found, fields) in moved.items():
        deed = "deleted" if found is None or found.value is None else "changed"
        who = f" by {found.by or 'somebody'} {max(0.0, time.time() - found.at):.0f} s ago" if found is not None else ""
        differences = "; ".join(f"{name}: {audit.brief(was)} → {audit.brief(now)}" for name, was, now in fields)
        told.append(f"{key} was {deed}{who}" + (f" ({differences})" if differences else ""))
    return ConflictError(
        f"what this change was made for has moved: {', '.join(told)}",
        hint="look at it as it is now, and ask again; nothing was changed",
        moved=[
            {
                "key": key,
                "deleted": found is None or found.value is None,
                "by": found.by if found is not None else None,
                "at": found.at if found is not None else None,
                "fields": [{"field": name, "old": was, "new": now} for name, was, now in fields],
            }
            for key, (found, fields) in moved.items()
        ],
    )


@dataclass(frozen=True, slots=True)
class Write:
    """A record to write; a value of None deletes the key."""

    topic: str
    key: bytes
    value: bytes | None
    partition: int = -1


@dataclass(frozen=True, slots=True)
class Effect(Generic[T]):
    """What a command comes to: records and audit entries, written together, and what the caller gets.

    `within` adds what is no record, such as offsets, to the open transaction; what it raises undoes all of it. An effect of nothing
    is not written.
    """

    answer: T
    records: Sequence[Write] = ()
    entries: Sequence[Entry] = ()
    within: Callable[[Producer], None] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing follows from it."""
        return not (self.records or self.entries or self.within)


Decide = Callable[[Latest], Effect[T]]
"""What follows from a topic as it is now. May be asked several times, and raise: then nothing is written."""


def carry_out(
    settings: KafkaSettings,
    names: Names,
    topic: str,
    decide: Decide[T],
    *,
    by: str,
    what: str,
    partitions: Iterable[int] | None = None,
) -> T:
    """Carries out a command on a compacted topic, or on some partitions of it, and returns its answer. Blocks for some 0.1 s.

    `by` is who asks; `what` begins the messages of errors, such as "the wish can't be written". Raises what `decide` raises,
    our error for Kafka's, and `RetriableError`: `command.contended` where others fenced it all the time, `command.unknown`
    where Kafka went away at a moment when nobody knows whether it was written.
    """
    reading = _Reading(settings, topic, partitions)
    try:
        return _Command(settings, names, reading, decide, by, what).run()
    finally:
        reading.close()


class _Reading:
    """A topic that is read on, again and again, up to the ends that it has by then."""

    def __init__(self, settings: KafkaSettings, topic: str, partitions: Iterable[int] | None) -> None:
        self._settings = settings
        self._topic = topic
        self._wanted = None if partitions is None else set(partitions)
        self.reader = settings.reader(eof=True, idle_fetch_ms=IDLE_FETCH_MS)
        self._next: dict[int, int] = {}
        self.latest = Latest()

    def read_on(self, *, patient: bool) -> bool:
        """Reads what came. Returns whether anything did. `patient` waits for the end of transactions that are open."""
        came = False
        for partition, end in end_offsets(self._settings, self._topic, committed_only=not patient).items():
            if self._wanted is not None and partition not in self._wanted:
                continue
            first = self._next.get(partition)
            if first is None:
                first = watermarks(self.reader, self._topic, partition)[0]
            for message in read_range(self.reader, self._topic, partition, first, end):
                self.latest.take(message)
                came = True
            self._next[partition] = max(first, end)
        return came

    def close(self) -> None:
        self.reader.close()


@dataclass(slots=True)
class _Command(Generic[T]):
    settings: KafkaSettings
    names: Names
    reading: _Reading
    decide: Decide[T]
    by: str
    what: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])
    audit_end: int | None = None
    in_doubt: bool = False
    """Whether a commit ended so that only the next owner of the transactional id can tell what became of it."""

    def run(self) -> T:
        effect = self._foreseen()
        deadline = time.monotonic() + PATIENCE_SECONDS
        for attempt in count(1):
            try:
                producer = self._own()
                if self.in_doubt and effect is not None and self._was_written():
                    return effect.answer
                self.in_doubt = False
                moved = self.reading.read_on(patient=True)
            except (KafkaException, RetriableError) as error:
                self._pass_over(error, deadline, attempt)
                continue
            if moved or effect is None:
                effect = self.decide(self.reading.latest)
            if effect.empty:
                return effect.answer
            try:
                self._write(producer, effect)
            except (KafkaException, RetriableError) as error:
                self._pass_over(error, deadline, attempt)
                continue
            return effect.answer
        raise AssertionError("unreachable")

    def _foreseen(self) -> Effect[T] | None:
        """What it will come to if nobody else changes anything: decided while nobody is fenced yet.

        What speaks against it is asked of the newest state. A transaction that is open here may be one that a killed command
        left, which ends when this one becomes the owner.
        """
        try:
            self.reading.read_on(patient=False)
            return self.decide(self.reading.latest)
        except TrunklineError:
            return None

    def _own(self) -> Producer:
        # I30: who else was about to write is fenced before the rest is read, so that what is written replaces what was read.
        producer = commanding_producer(self.settings, self.names, self.what)
        if self.audit_end is None:
            self.audit_end = end_offsets(self.settings, self.names.audit).get(0, 0)
        return producer

    def _write(self, producer: Producer, effect: Effect[T]) -> None:
        by, chain = [(BY_HEADER, self.by.encode())], Chain()
        tail = tail_of(self.settings, self.names, self.reading.reader) if effect.entries else None
        try:
            producer.begin_transaction()
            for one in effect.records:
                produce(producer, one.topic, one.value, one.key, by, partition=one.partition)
            for entry in effect.entries:
                audit.write(producer, self.names, chain, replace(entry, command=self.id))
            seal_own(producer, self.names, tail, chain, self.by)
            if effect.within is not None:
                self._add(producer, effect.within)
            self.in_doubt = True
            commit(producer)
        except BaseException:
            producer.purge()
            raise

    @staticmethod
    def _add(producer: Producer, within: Callable[[Producer], None]) -> None:
        try:
            within(producer)
        except TrunklineError:
            # At once: what is pending of it holds others up.
            with contextlib.suppress(KafkaException):
                producer.abort_transaction(STEP_SECONDS)
            raise

    def _was_written(self) -> bool:
        """Whether the last attempt did commit after all. Who owns the transactional id has settled what was open."""
        entries = audit.entries(self.settings, self.names, start=self.audit_end)
        return any(entry.command == self.id for entry in entries)

    def _pass_over(self, cause: KafkaException | RetriableError, deadline: float, attempt: int) -> None:
        """Waits a little where it may be tried again, and raises otherwise."""
        error = cause if isinstance(cause, RetriableError) else translate(cause, self.what)
        if not isinstance(error, RetriableError):
            raise error from cause
        if time.monotonic() < deadline:
            # Several at once would fence each other in step.
            time.sleep(random.uniform(0.2, 1.0) * min(0.05 * 2**attempt, LONGEST_PAUSE))  # noqa: S311
        elif self.in_doubt:
            raise RetriableError(
                f"{self.what}, or it was and Kafka could not say so: {error.message}",
                hint="look at `trunkline audit ls` when Kafka answers again",
                code="command.unknown",
            ) from cause
        elif error.code == "kafka.fenced":
            raise RetriableError(
                f"{self.what}: others changed something all the time; tried {attempt} times",
                hint="ask again when less is changed at once",
                code="command.contended",
            ) from cause
        else:
            raise error from cause


def commit(producer: Producer) -> None:
    """Commits a command's transaction. Raises KafkaException."""
    producer.commit_transaction(STEP_SECONDS)
