"""The envelope: what is known of an event besides its value, carried in Kafka headers.

CloudEvents 1.0, Kafka protocol binding, binary mode (https://github.com/cloudevents/spec, `kafka-protocol-binding.md`):
attributes are headers named `ce_<attribute>`, the value holds the data alone. Ours on top: `ce_correlationid` and
`ce_causationid` (CloudEvents extension attributes), and W3C Trace Context's `traceparent`.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

CE_SPECVERSION = "ce_specversion"
CE_ID = "ce_id"
CE_SOURCE = "ce_source"
CE_TYPE = "ce_type"
CE_TIME = "ce_time"
CE_SUBJECT = "ce_subject"
CE_CORRELATION_ID = "ce_correlationid"
CE_CAUSATION_ID = "ce_causationid"
CONTENT_TYPE = "content-type"
TRACEPARENT = "traceparent"
AVRO_CONTENT_TYPE = b"application/avro"

CORRELATION_HEADER = "X-Correlation-ID"
"""The HTTP header that carries the correlation id of every request we send."""

Headers = list[tuple[str, bytes]]
"""Kafka headers as the client gives and takes them: ordered, a name may occur more than once."""

WireHeaders = Sequence[tuple[str, bytes | None]]
"""Kafka headers as they are in a record: one may have no value."""

# Ids must be unique, not secret: seeded from the system's randomness, and without a system call for each.
_random = random.Random(os.urandom(32))  # noqa: S311
os.register_at_fork(after_in_child=lambda: _random.seed(os.urandom(32)))  # no two processes make the same ids
_TRACEPARENT_FORM = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}\Z")
_UUID7_FORM = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}(?:\.[0-9.]+)?\Z")
_FIRST_UUID7 = 1_400_000_000_000
"""No id is of a time before Kafka's records had times, in Unix milliseconds: those that look so are made in another way."""
_MOST_AHEAD = 24 * 3_600_000
"""So far the clocks of two machines may be apart."""
_ID_FORM = re.compile(r"[\x21-\x7e]{1,256}\Z")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The CloudEvents attributes and our extensions of one event. `time` is aware UTC."""

    id: str
    source: str
    type: str
    time: datetime | None = None
    subject: str | None = None
    correlation_id: str = ""
    causation_id: str | None = None
    traceparent: str | None = None

    def part(self, index: int) -> Envelope:
        """The envelope of the `index`-th part of a split: its id gets `.index`, so that parts differ and repeat alike."""
        return replace(self, id=f"{self.id}.{index}", causation_id=self.id)


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits, so ids sort by time."""
    stamp = f"{time.time_ns() // 1_000_000:012x}"
    bits = f"{_random.getrandbits(74):019x}"
    # Version 7 in the third group; variant 10 in the two high bits of the fourth: 8, 9, a or b.
    return f"{stamp[:8]}-{stamp[8:]}-7{bits[1:4]}-{'89ab'[int(bits[0])]}{bits[4:7]}-{bits[7:]}"


def made_at(identity: str) -> int | None:
    """When an id was made, in Unix milliseconds: UUIDv7 begin with it. None for any other id, and for a time that is to come."""
    found = _UUID7_FORM.match(identity)
    stamp = int(found[1] + found[2], 16) if found is not None else 0
    return stamp if _FIRST_UUID7 <= stamp <= time.time() * 1000 + _MOST_AHEAD else None


def envelope_to_headers(envelope: Envelope) -> Headers:
    """The headers of an event whose value is Avro, in the order that the binding lists the attributes."""
    pairs: list[tuple[str, str | None]] = [
        (CE_SPECVERSION, "1.0"),
        (CE_ID, envelope.id),
        (CE_SOURCE, envelope.source),
        (CE_TYPE, envelope.type),
        (CE_TIME, envelope.time.isoformat().replace("+00:00", "Z") if envelope.time else None),
        (CE_SUBJECT, envelope.subject),
        (CE_CORRELATION_ID, envelope.correlation_id or None),
        (CE_CAUSATION_ID, envelope.causation_id),
        (TRACEPARENT, envelope.traceparent),
    ]
    headers: Headers = [(name, value.encode()) for name, value in pairs if value is not None]
    headers.append((CONTENT_TYPE, AVRO_CONTENT_TYPE))
    return headers


def envelope_from_headers(headers: Iterable[tuple[str, bytes | None]], *, foreign_id: str) -> Envelope:
    """The envelope of a record read from Kafka.

    A record that did not come from us may lack attributes: its id becomes `foreign_id` (stable for its place in Kafka) and
    its correlation id is taken from `traceparent` or made from that id. Bytes that are no UTF-8 are replaced, never raised.
    """
    found = {name: value.decode("utf-8", "replace") for name, value in headers if value is not None}
    event_id = found.get(CE_ID) or foreign_id
    traceparent = found.get(TRACEPARENT)
    if trace_id(traceparent) is None:
        traceparent = None
    correlation = found.get(CE_CORRELATION_ID, "")
    if not _ID_FORM.match(correlation):
        # It goes out in a header of every request: what can't stand there is no correlation id.
        correlation = trace_id(traceparent) or (event_id if _ID_FORM.match(event_id) else uuid7())
    return Envelope(
        id=event_id,
        source=found.get(CE_SOURCE, ""),
        type=found.get(CE_TYPE, ""),
        time=parse_time(found.get(CE_TIME)),
        subject=found.get(CE_SUBJECT),
        correlation_id=correlation,
        causation_id=found.get(CE_CAUSATION_ID),
        traceparent=traceparent,
    )


def parse_time(text: str | None) -> datetime | None:
    """An RFC 3339 time as aware UTC, or None when there is none or it can't be read."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def is_id(text: str) -> bool:
    """Whether a text can be a correlation id: it goes out in a header of every request, so no blanks and no control characters."""
    return _ID_FORM.match(text) is not None


def trace_id(traceparent: str | None) -> str | None:
    """The trace id of a W3C `traceparent`, or None when it is absent, malformed or all zeros (which the standard forbids)."""
    match = _TRACEPARENT_FORM.match(traceparent or "")
    return match.group(1) if match and match.group(1).strip("0") else None


def correlation_from(headers: Mapping[str, str], field: str | None = None) -> str | None:
    """The correlation id that came in: a configured field's value, `X-Correlation-ID`, `X-Request-ID`, then `traceparent`.

    `headers` has lower-case names. An id with blanks, control characters or more than 256 characters is not kept: it would
    have to go out again in a header.
    """
    candidates = (
        field,
        headers.get("x-correlation-id"),
        headers.get("x-request-id"),
        trace_id(headers.get("traceparent")),
    )
    return next((text for text in candidates if text and _ID_FORM.match(text)), None)


def foreign_event_id(topic_id: str, partition: int, offset: int) -> str:
    """The id of a record that has no `ce_id`: a UUIDv5 of its place, so a second reading gives the same one."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"kafka:{topic_id}:{partition}:{offset}"))
