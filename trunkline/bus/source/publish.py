"""Publishing: what a source found becomes records of topics, or goes to quarantine with the reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.names import Names
from trunkline.bus.records import Output
from trunkline.core.contracts import RejectedInput, SourceEvent
from trunkline.core.envelope import (
    AVRO_CONTENT_TYPE,
    CE_CORRELATION_ID,
    CE_ID,
    CE_SOURCE,
    CE_SPECVERSION,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    CONTENT_TYPE,
    TRACEPARENT,
    Envelope,
    Headers,
    envelope_to_headers,
    uuid7,
)
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.jsontext import any_json_bytes
from trunkline.core.routing import Route, choose
from trunkline.registry.codec import Encoder

Caster = Callable[[Any], Any]


QUARANTINE_BYTES = 16 * 2**20
QUARANTINE_ROOM = 64 * 1024
"""What the headers of a quarantined record may take at the most."""


class Published(NamedTuple):
    """What one input became: records, or nothing where no target took it, or a quarantined record with its failure."""

    outputs: Sequence[Output]
    correlation_id: str
    outcome: str
    detail: str | None = None


class Publisher:
    """Turns the events of one source into records.

    `casters` gives for a topic the function that makes typed values from text, or None where values are typed already.
    """

    def __init__(
        self,
        names: Names,
        pipeline: str,
        worker: str,
        connector: str,
        routes: Sequence[Route],
        encoder: Callable[[str], Encoder | None],
        casters: Callable[[str], Caster | None],
        limits: Mapping[str, int],
    ) -> None:
        self._pipeline = pipeline
        self._worker = worker
        self._source = names.event_source(pipeline)
        self._type = f"trunkline.{connector}"
        self._quarantine = names.dead_letters(pipeline)
        self._routes = routes
        # The usual source has one target without conditions: it needs no choosing.
        self._only_route = (
            routes[0] if len(routes) == 1 and routes[0].when is None and not routes[0].otherwise else None
        )
        self._sees_values = any(route.when or route.key or route.name for route in routes)
        self._encoder = encoder
        self._caster = casters
        self.limits = limits
        """By topic, the largest batch that it accepts, in bytes."""
        self._source_header = (CE_SOURCE, self._source.encode())
        self._type_headers: dict[str | None, tuple[str, bytes]] = {None: (CE_TYPE, self._type.encode())}
        self._clock = (0, b"")

    def publish(self, found: SourceEvent) -> Published:
        """The records of one event. What fails its schema goes to quarantine. The hot path of every source."""
        correlation = found.correlation_id or uuid7()
        headers: Headers = []
        stage = "CAST"
        try:
            headers = self._headers(found, correlation)
            topic = self._routes[0].topic
            cast: dict[str, Any] = {}
            event = Event(found.value, raw_key=event_key(found), headers=headers)
            if self._sees_values:
                # Expressions see typed values: those of the first target, since all targets of a source share their input.
                event.value = cast[topic] = (
                    self._cast(topic, found.value) if self._routes[0].name is None else found.value
                )
            stage = "ROUTE"
            routes = [self._only_route] if self._only_route is not None else choose(self._routes, event.value, event)
            outputs = []
            for route in routes:
                stage = "ROUTE"
                topic, key = route.topic_of(event.value, event), route.key_of(event.value, event, event.raw_key)
                stage = "ENCODE"
                encoder = self._encoder(topic)
                if encoder is None:
                    raise RejectedError(f"the topic {topic} has no schema", code="record.no_schema")
                value = encoder.encode(cast[topic] if topic in cast else self._cast(topic, found.value))
                limit = self.limits.get(topic, 1_000_000)
                if len(value) + len(key or b"") + 2048 > limit:
                    raise RejectedError(
                        f"the record has {len(value)} bytes, {topic} accepts {limit}", code="record.too_large"
                    )
                outputs.append(Output(topic, value, key, headers))
        except RejectedError as error:
            failure = Failure(f"SOURCE {stage}", error.code, error.message, place=found.place)
            return self._quarantined(_raw(found), headers, correlation, failure, key=event_key(found))
        except UnicodeEncodeError:
            # JSON can hold half a surrogate pair, also in what becomes a key or a header.
            reason = "its key, id or subject is no text that UTF-8 can hold (a lone surrogate)"
            return self.quarantine(RejectedInput(_raw(found), reason, found.place or "", correlation))
        except OverflowError:
            reason = f"its time {found.time} is before the year 1 or after the year 9999 in UTC"
            return self.quarantine(RejectedInput(_raw(found), reason, found.place or "", correlation))
        return Published(outputs, correlation, "delivered" if outputs else "filtered")

    def _headers(self, found: SourceEvent, correlation: str) -> Headers:
        """As `envelope_to_headers`, with what is the same for many events made once."""
        kind = self._type_headers.get(found.type)
        if kind is None:
            kind = (CE_TYPE, (found.type or "").encode())
            if len(self._type_headers) < 1000:
                self._type_headers[found.type] = kind
        headers = [
            _SPECVERSION,
            (CE_ID, (found.id or uuid7()).encode()),
            self._source_header if found.source is None else (CE_SOURCE, found.source.encode()),
            kind,
            (
                CE_TIME,
                self._now()
                if found.time is None
                else found.time.astimezone(UTC).isoformat().replace("+00:00", "Z").encode(),
            ),
        ]
        if found.subject is not None:
            headers.append((CE_SUBJECT, found.subject.encode()))
        headers.append((CE_CORRELATION_ID, correlation.encode()))
        if found.traceparent is not None:
            headers.append((TRACEPARENT, found.traceparent.encode()))
        headers.append(_CONTENT_TYPE)
        return headers

    def _now(self) -> bytes:
        """The time of day, written out once a millisecond."""
        milliseconds = time.time_ns() // 1_000_000
        if milliseconds != self._clock[0]:
            text = datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
            self._clock = (milliseconds, text.replace("+00:00", "Z").encode())
        return self._clock[1]

    def quarantine(self, rejected: RejectedInput) -> Published:
        """The quarantine record of input that could not become an event."""
        correlation = rejected.correlation_id or uuid7()
        envelope = Envelope(
            id=uuid7(),
            source=self._source,
            type=f"{self._type}.rejected",
            time=datetime.now(UTC),
            correlation_id=correlation,
        )
        headers = [(name, value) for name, value in envelope_to_headers(envelope) if name != "content-type"]
        return self._quarantined(
            rejected.raw,
            headers,
            correlation,
            Failure("SOURCE READ", "source.rejected", rejected.reason, place=rejected.place),
        )

    def _quarantined(
        self,
        raw: bytes,
        headers: list[tuple[str, bytes]],
        correlation: str,
        failure: Failure,
        key: bytes | None = None,
    ) -> Published:
        kept = self.limits.get(self._quarantine, QUARANTINE_BYTES) - QUARANTINE_ROOM
        if len(raw) > kept:
            # The input itself stays where it came from; a record larger than its topic takes would stop the source for good.
            reason = f"{failure.reason} (the first {kept} of {len(raw)} bytes are kept)"
            raw, failure = raw[:kept], replace(failure, reason=reason)
        own = dead_letter_headers(
            headers, pipeline=self._pipeline, task=self._worker, topic="", partition=-1, offset=-1, failure=failure
        )
        detail = f"{failure.place}: {failure.reason}" if failure.place else failure.reason
        return Published([Output(self._quarantine, raw, key, own)], correlation, "dead", detail)

    def _cast(self, topic: str, value: Any) -> Any:
        caster = self._caster(topic)
        return value if caster is None else caster(value)


_SPECVERSION = (CE_SPECVERSION, b"1.0")
_CONTENT_TYPE = (CONTENT_TYPE, AVRO_CONTENT_TYPE)


def event_key(found: SourceEvent) -> bytes | None:
    """The key that the source gave an event."""
    return found.key.encode() if found.key is not None else None


def _raw(found: SourceEvent) -> bytes:
    if found.raw is not None:
        return found.raw
    try:
        return to_json_bytes(found.value)
    except RejectedError:
        return any_json_bytes(found.value)
