"""Dead letters: the original record, byte for byte, with what went wrong in headers.

The header names are Kafka Connect's (`DeadLetterQueueReporter` in Apache Kafka), so that tools which know them work, and a
few of ours. This is the one place that spells them.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Message

from trunkline.bus.kafka import wire_headers_of
from trunkline.core.envelope import CE_ID, CE_SOURCE, WireHeaders, foreign_event_id
from trunkline.core.event import Event
from trunkline.core.redaction import redact

CONNECT = "__connect.errors."
TOPIC = CONNECT + "topic"
PARTITION = CONNECT + "partition"
OFFSET = CONNECT + "offset"
CONNECTOR = CONNECT + "connector.name"
TASK = CONNECT + "task.id"
STAGE = CONNECT + "stage"
CLASS = CONNECT + "class.name"
EXCEPTION = CONNECT + "exception.class.name"
MESSAGE = CONNECT + "exception.message"
ATTEMPTS = "trunkline.attempts"
FAILED_AT = "trunkline.first.failed.at"
FINGERPRINT = "trunkline.fingerprint"
PLACE = "trunkline.place"
TOPIC_ID = "trunkline.topic.id"
"""Kafka's id of the topic that the record was read from: another topic of the name has other records at the same offsets."""
ORIGIN = "trunkline.origin"
"""Where a redriven record was read first, as `topic/topic id/partition/offset`: its idempotency key stays the same."""
REDRIVE = "trunkline.redrive"
"""The id of the redrive that sent a record again."""
REDRIVES = "trunkline.redrives"
"""How often a record was sent again: what fails each time is not sent for ever."""
SENT_AGAIN = frozenset({ORIGIN, REDRIVE, REDRIVES})
"""What only a record in a retry topic carries."""

MAX_REASON = 2000
_QUOTED = r"'[^']*'|\"[^\"]*\""
_NAMED = rf"\b(?:field|column) (?:{_QUOTED})"
"""The name of a field belongs to the cause; an index in it (`items[3].id`) does not."""
_VARIABLE = re.compile(rf"(?P<named>{_NAMED})|0x[0-9a-f]+|\d+|{_QUOTED}")
_INDEX = re.compile(r"\[\d+\]")
_PLACE_FORM = re.compile(r"([^/]+)/([^/]*)/([0-9]{1,9})/([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a record can't go on: the stage (`DECODE`, `STEP filter`, `ROUTE`, `ENCODE`, `SINK`, `SOURCE`), the code and the reason.

    Secrets in what it says are blanked: it goes into dead letters, parked records and the trace.
    """

    stage: str
    code: str
    reason: str
    attempts: int = 1
    first_failed_at: float | None = None
    """Unix seconds."""
    place: str | None = None
    last: tuple[str, str] | None = None
    """Code and reason of the last attempt, where the attempts are used up."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))
        if self.place is not None:
            object.__setattr__(self, "place", redact(self.place))
        if self.last is not None:
            object.__setattr__(self, "last", (self.last[0], redact(self.last[1])))

    @classmethod
    def exhausted(cls, attempts: int, last: tuple[str, str], first_failed_at: float | None) -> Failure:
        """That a delivery was tried so often; `last` is code and reason of the last attempt."""
        reason = f"{attempts} attempts failed; the last: {last[1]}"
        return cls("SINK", "sink.exhausted", reason, attempts, first_failed_at, last=last)

    @property
    def told(self) -> str:
        """As the trace has it: the code that a cause of its pipeline has too, which is that of the last attempt, and the reason."""
        return f"{self.last[0] if self.last is not None else self.code}: {self.reason}"


def dead_letter_headers(
    original: WireHeaders,
    *,
    pipeline: str,
    task: str,
    topic: str,
    partition: int,
    offset: int,
    failure: Failure,
    topic_id: str = "",
) -> list[tuple[str, bytes | None]]:
    """The headers of a dead letter: the original's, without those of an earlier failure, and this failure's."""
    reason = failure.reason[:MAX_REASON]
    failed_at = failure.first_failed_at if failure.first_failed_at is not None else time.time()
    headers: list[tuple[str, bytes | None]] = [pair for pair in original if not is_error_header(pair[0])]
    found: dict[str, Any] = {
        TOPIC: topic,
        PARTITION: partition,
        OFFSET: offset,
        CONNECTOR: pipeline,
        TASK: task,
        STAGE: failure.stage,
        EXCEPTION: failure.code,
        MESSAGE: reason,
        ATTEMPTS: failure.attempts,
        FAILED_AT: int(failed_at * 1000),
        FINGERPRINT: fingerprint(pipeline, failure.stage, failure.code, reason),
    }
    if topic_id:
        found[TOPIC_ID] = topic_id
    if failure.place is not None:
        found[PLACE] = failure.place
    headers += [(name, str(value).encode()) for name, value in found.items()]
    return headers


def is_error_header(name: str) -> bool:
    """Whether a header tells of a failure, and so does not belong to the event."""
    return name.startswith(CONNECT) or name in {ATTEMPTS, FAILED_AT, FINGERPRINT, PLACE, TOPIC_ID}


def fingerprint(pipeline: str, stage: str, code: str, reason: str) -> str:
    """What failures of one cause share: the reason without its numbers and quoted values, but with the names of fields."""
    text = "\0".join((pipeline, stage, code, _VARIABLE.sub(_kept, reason)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _kept(found: re.Match[str]) -> str:
    """What stands in a fingerprint's text for a part that may vary."""
    named = found["named"]
    return "#" if named is None else _INDEX.sub("[#]", named)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is read back, for listings, expressions and redrive. `partition` and `offset` are its own place."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: WireHeaders
    timestamp: int

    @classmethod
    def from_message(cls, message: Message) -> DeadLetter:
        """The dead letter in a message of a dead-letter topic."""
        headers = wire_headers_of(message)
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        return cls(partition, offset, message.key(), message.value(), headers, message.timestamp()[1])

    def header(self, name: str) -> str:
        """The text of a header, empty where it is absent."""
        return next(((value or b"").decode("utf-8", "replace") for found, value in self.headers if found == name), "")

    @property
    def origin(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the record that failed."""
        partition, offset = self.header(PARTITION), self.header(OFFSET)
        return (
            self.header(TOPIC),
            int(partition) if partition.isdigit() else -1,
            int(offset) if offset.isdigit() else -1,
        )

    @property
    def first_origin(self) -> tuple[str, int, int]:
        """Where the record was read first: as `origin`, but of a record that failed again after a redrive its first place."""
        place = place_in(self.header(ORIGIN))
        return self.origin if place is None else (place[0], *place[2:])

    @property
    def first_topic_id(self) -> str:
        """The id of that topic; empty where nobody noted it."""
        place = place_in(self.header(ORIGIN))
        return self.header(TOPIC_ID) if place is None else place[1]

    @property
    def place(self) -> str:
        """The letter's own place, as people write it: `PARTITION@OFFSET`."""
        return f"{self.partition}@{self.offset}"

    @property
    def redrives(self) -> int:
        """How often the record was sent again before it failed this time."""
        text = self.header(REDRIVES)
        return int(text) if text.isdigit() else 0

    @property
    def failed_at(self) -> int:
        """When its first attempt failed, in Unix milliseconds."""
        text = self.header(FAILED_AT)
        return int(text) if text.isdigit() else self.timestamp

    def original_headers(self) -> list[tuple[str, bytes | None]]:
        """The event's own headers."""
        return [(name, value) for name, value in self.headers if not is_error_header(name)]


def event_id(event: Event) -> str:
    """The id that an event's idempotency key is made from: `ce_id`, else its first place in Kafka."""
    origin = None
    for name, value in event.headers:
        if name == CE_ID and value:
            return value.decode("utf-8", "replace")
        if name == ORIGIN and value:
            origin = place_in(value.decode("utf-8", "replace"))
    if origin is not None:
        return foreign_event_id(*origin[1:])
    return foreign_event_id(event.topic_id or event.topic, event.partition, event.offset)


def place_in(text: str) -> tuple[str, str, int, int] | None:
    """Topic, its id, partition and offset that an ORIGIN names; None for what a stranger wrote under that name."""
    found = _PLACE_FORM.fullmatch(text)
    return None if found is None else (found[1], found[2], int(found[3]), int(found[4]))


def idempotency_key(namespace: str, pipeline: str, event: Event, output: str = "") -> str:
    """The key under which a delivery is recognised when it is repeated: 32 hexadecimal digits.

    A hash of namespace, pipeline, `ce_source`, `ce_id` and output, so that a redriven event has the same one, and two outputs
    of one event differ.
    """
    source, identity = b"", None
    for name, value in event.headers:
        if name == CE_ID and identity is None and value:
            identity = value.decode("utf-8", "replace")
        elif name == CE_SOURCE and not source:
            source = value or b""
    if identity is None:
        identity = event_id(event)
    text = "\0".join((namespace, pipeline, source.decode("utf-8", "replace"), identity, output))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def written_topic(topic: str, headers: Sequence[tuple[str, Any]]) -> str:
    """The topic that a record was written to first, by whoever chose its schema: that of the record itself, unless it is a dead letter,
    was sent again, or is parked."""
    found = {name: value for name, value in headers if name in {ORIGIN, TOPIC} and isinstance(value, bytes)}
    place = place_in(found[ORIGIN].decode("utf-8", "replace")) if ORIGIN in found else None
    if place is not None:
        return place[0]
    return found[TOPIC].decode("utf-8", "replace") if TOPIC in found else topic


def origin_topic(headers: Sequence[tuple[str, Any]]) -> str | None:
    """The topic that a redriven record came from first."""
    for name, value in headers:
        if name == ORIGIN and isinstance(value, bytes):
            return value.decode("utf-8", "replace").split("/", 1)[0]
    return None
