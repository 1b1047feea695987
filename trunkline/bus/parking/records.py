"""A parked record: the original, byte for byte, with where it came from and why it waits. This is the one place that spells its headers."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, field, replace
from typing import cast

from trunkline.bus.deadletters import MAX_REASON, Failure
from trunkline.bus.ledger import Outcome
from trunkline.bus.state import Entry
from trunkline.core.envelope import Headers
from trunkline.core.errors import ConfigurationError
from trunkline.core.event import Event

VERSION = 1
PREFIX = "trunkline.parked."
FORMAT = PREFIX + "version"
KEY = PREFIX + "key"
ORIGIN = PREFIX + "origin"
"""Where the record was read, as `topic/topic id/partition/offset`."""
TIMESTAMP = PREFIX + "timestamp"
"""The timestamp of the record that was read, in milliseconds."""
AT = PREFIX + "at"
REASON = PREFIX + "reason"
FIRST_REASON = PREFIX + "first.reason"
CODE = PREFIX + "code"
ATTEMPTS = PREFIX + "attempts"
FIRST_FAILED = PREFIX + "first.failed.at"
LAST_FAILED = PREFIX + "last.failed.at"
EDITED_BY = PREFIX + "edited.by"
BEHIND = "parked.behind"
"""The code of a record that did not fail itself: one of its key before it waits."""

_RECORD = b"k"
_MARK = b"s"
_LENGTH = struct.Struct(">I")
_SEQUENCE = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record was read. The topic's id tells a topic of the same name that was made anew."""

    topic: str
    topic_id: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.topic_id}/{self.partition}/{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Origin:
        """The origin in a header."""
        topic, topic_id, partition, offset = text.split("/")
        return cls(topic, topic_id, int(partition), int(offset))

    @property
    def place(self) -> str:
        """For messages: `flights.delayed[2]@1042`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A record that waits. `sequence` orders the records of a partition as they were parked; times are Unix seconds.

    `reason` and `code` are those of its last try, `first_reason` is why it was parked; `attempts` counts every try. A record stays
    equal to itself however often it is tried.
    """

    key: bytes
    sequence: int
    value: bytes
    headers: Headers
    origin: Origin
    at: float
    reason: str = field(compare=False)
    code: str = field(compare=False)
    attempts: int = field(compare=False)
    timestamp: int
    first_failed_at: float | None = None
    edited_by: str = ""
    first_reason: str = ""
    last_failed_at: float | None = field(default=None, compare=False)

    @classmethod
    def parked(cls, event: Event, sequence: int, headers: Headers, failure: Failure) -> ParkedRecord:
        """The record of an event that is parked now; `headers` are those it was read with."""
        assert event.raw is not None
        assert event.raw_key is not None
        now, reason = time.time(), failure.reason[:MAX_REASON]
        return cls(
            event.raw_key,
            sequence,
            event.raw,
            headers,
            Origin(event.topic, event.topic_id, event.partition, event.offset),
            now,
            reason,
            failure.code,
            failure.attempts,
            event.timestamp,
            failure.first_failed_at,
            first_reason=reason,
            last_failed_at=now if failure.attempts else None,
        )

    def failed_again(self, failure: Failure) -> ParkedRecord:
        """The same record after one more try; `failure` has the attempts in all."""
        return replace(
            self,
            reason=failure.reason[:MAX_REASON],
            code=failure.code,
            attempts=failure.attempts,
            first_failed_at=self.first_failed_at or failure.first_failed_at,
            last_failed_at=time.time(),
        )

    def edited(self, value: bytes, by: str) -> ParkedRecord:
        """The same record with a value that a person gave it."""
        return replace(self, value=value, edited_by=by)

    @property
    def store_key(self) -> bytes:
        """Its key in the store and in the topic: records of one event key lie together, in the order they were parked."""
        return prefix_of(self.key) + _SEQUENCE.pack(self.sequence)

    def entry(self) -> Entry:
        """The record as it lies in store and topic."""
        own: dict[str, str | bytes] = {
            FORMAT: str(VERSION),
            KEY: self.key,
            ORIGIN: str(self.origin),
            TIMESTAMP: str(self.timestamp),
            AT: str(int(self.at * 1000)),
            REASON: self.reason,
            FIRST_REASON: self.first_reason,
            CODE: self.code,
            ATTEMPTS: str(self.attempts),
        }
        if self.first_failed_at is not None:
            own[FIRST_FAILED] = str(int(self.first_failed_at * 1000))
        if self.last_failed_at is not None:
            own[LAST_FAILED] = str(int(self.last_failed_at * 1000))
        if self.edited_by:
            own[EDITED_BY] = self.edited_by
        added = [(name, text if isinstance(text, bytes) else text.encode()) for name, text in own.items()]
        return Entry(self.value, [*self.headers, *added])

    @classmethod
    def of(cls, store_key: bytes, entry: Entry) -> ParkedRecord:
        """The record in an entry. Raises `ConfigurationError` for one of a newer version."""
        own = {name: content for name, content in entry.headers if name.startswith(PREFIX)}
        if int(own[FORMAT]) > VERSION:
            raise ConfigurationError(
                f"a parked record has version {own[FORMAT].decode()}, this Trunkline reads up to {VERSION}",
                hint="run a newer Trunkline",
                code="parked.version",
            )
        failed, again = own.get(FIRST_FAILED), own.get(LAST_FAILED)
        return cls(
            own[KEY],
            _SEQUENCE.unpack(store_key[-_SEQUENCE.size :])[0],
            entry.value,
            [pair for pair in entry.headers if not pair[0].startswith(PREFIX)],
            Origin.parse(own[ORIGIN].decode()),
            int(own[AT]) / 1000,
            own[REASON].decode("utf-8", "replace"),
            own[CODE].decode(),
            int(own[ATTEMPTS]),
            int(own[TIMESTAMP]),
            int(failed) / 1000 if failed is not None else None,
            own.get(EDITED_BY, b"").decode("utf-8", "replace"),
            own[FIRST_REASON].decode("utf-8", "replace"),
            int(again) / 1000 if again is not None else None,
        )

    def event(self) -> Event:
        """The event as it was read, not decoded yet."""
        origin = self.origin
        return Event(
            None,
            raw=self.value,
            raw_key=self.key,
            headers=list(self.headers),
            topic=origin.topic,
            topic_id=origin.topic_id,
            partition=origin.partition,
            offset=origin.offset,
            timestamp=self.timestamp,
        )


def prefix_of(key: bytes) -> bytes:
    """How the store's keys of an event key's records begin."""
    return _RECORD + _LENGTH.pack(len(key)) + key


def is_record(store_key: bytes) -> bool:
    """Whether a key of the store is that of a parked record."""
    return store_key.startswith(_RECORD)


def mark_key(origin: Origin) -> bytes:
    """The key of the mark that says: this input was parked and settled, although no commit has passed it yet."""
    return _MARK + str(origin).encode()


def mark(outcome: Outcome) -> Entry:
    """The mark itself: how the record ended."""
    return Entry(outcome.encode())


def outcome_of(entry: Entry) -> Outcome:
    """How the record of a mark ended."""
    return cast("Outcome", entry.value.decode())


def marked(store_key: bytes) -> Origin | None:
    """The origin that a mark names; None for the key of anything else."""
    return Origin.parse(store_key[1:].decode()) if store_key.startswith(_MARK) else None
