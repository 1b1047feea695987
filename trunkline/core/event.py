"""An event on its way through a stream or to a sink: the decoded value with its envelope and its place in Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from trunkline.core.envelope import (
    CE_CORRELATION_ID,
    TRACEPARENT,
    Envelope,
    Headers,
    envelope_from_headers,
    foreign_event_id,
    is_id,
    trace_id,
)


class AvroSchema(Protocol):
    """What a plug-in may know of the schema that an event was written with."""

    @property
    def id(self) -> int | None:
        """The registry's id, or None for a schema that is not registered."""

    @property
    def json(self) -> Any:
        """The schema in Avro's JSON form, references resolved."""

    @property
    def name(self) -> str:
        """The full name of a record schema, or the name of the type."""


class Event:
    """One record, decoded.

    `value` is the Avro datum with fastavro's Python types (aware datetimes, `Decimal`, `uuid.UUID`, dicts, lists); a step
    owns it and may change it in place, and then sets `changed`. `headers` are the Kafka headers, to be replaced and never
    changed in place. `topic`, `partition`, `offset` and `timestamp` (Unix milliseconds) say where it was read.

    Expressions see it as their context: `meta`, `key`, `headers_map` and `topic`.
    """

    # Plain attributes with defaults on the class: an event is made for every record, and most never get these.
    schema: AvroSchema | None = None
    timestamp = 0
    topic_id = ""
    changed = False
    idempotency_key = ""
    _envelope: Envelope | None = None
    _meta: dict[str, Any] | None = None
    _headers_map: dict[str, str] | None = None

    def __init__(
        self,
        value: Any,
        *,
        raw: bytes | None = None,
        raw_key: bytes | None = None,
        headers: Headers | None = None,
        schema: AvroSchema | None = None,
        topic: str = "",
        topic_id: str = "",
        partition: int = 0,
        offset: int = 0,
        timestamp: int = 0,
    ) -> None:
        self.value = value
        self.raw = raw
        self.raw_key = raw_key
        self.headers: Headers = headers if headers is not None else []
        self.topic = topic
        self.partition = partition
        self.offset = offset
        if schema is not None:
            self.schema = schema
        if topic_id:
            self.topic_id = topic_id
        if timestamp:
            self.timestamp = timestamp

    @property
    def key(self) -> str | None:
        """The record's key as text, or None where there is none. Bytes that are no UTF-8 are shown as `\\xNN`."""
        return None if self.raw_key is None else self.raw_key.decode("utf-8", "backslashreplace")

    @property
    def envelope(self) -> Envelope:
        """The envelope, read from the headers at first use."""
        if self._envelope is None:
            foreign = (
                ""
                if _has_id(self.headers)
                else foreign_event_id(self.topic_id or self.topic, self.partition, self.offset)
            )
            self._envelope = envelope_from_headers(self.headers, foreign_id=foreign)
        return self._envelope

    @property
    def correlation_id(self) -> str:
        """The id that binds everything which follows from one thing that happened."""
        if self._envelope is None:
            # Most records have a good one: it is found without reading the whole envelope.
            for name, value in self.headers:
                if name == CE_CORRELATION_ID:
                    found = (value or b"").decode("utf-8", "replace")
                    if is_id(found):
                        return found
        return self.envelope.correlation_id

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context, None where there is none that is well-formed."""
        if self._envelope is None:
            for name, value in self.headers:
                if name == TRACEPARENT:
                    found = (value or b"").decode("utf-8", "replace")
                    return found if trace_id(found) is not None else None
            return None
        return self._envelope.traceparent

    @property
    def meta(self) -> dict[str, Any]:
        """The envelope as expressions see it: absent attributes are absent, so `has(meta.subject)` tells."""
        if self._meta is None:
            envelope = self.envelope
            found = {
                "id": envelope.id,
                "source": envelope.source,
                "type": envelope.type,
                "time": envelope.time,
                "subject": envelope.subject,
                "correlation_id": envelope.correlation_id,
                "causation_id": envelope.causation_id,
            }
            self._meta = {name: value for name, value in found.items() if value is not None}
        return self._meta

    @property
    def headers_map(self) -> Mapping[str, str]:
        """The headers as text by name; of a name that occurs twice the last one."""
        if self._headers_map is None:
            self._headers_map = {name: (value or b"").decode("utf-8", "replace") for name, value in self.headers}
        return self._headers_map

    @property
    def place(self) -> str:
        """Topic, partition and offset, for messages: `flights.delayed[2]@1042`."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    def copy(self, value: Any, headers: Headers | None = None) -> Event:
        """Another event from the same record, with a value (and headers) of its own: a part of a split."""
        other = Event(
            value,
            raw=self.raw,
            raw_key=self.raw_key,
            headers=self.headers if headers is None else headers,
            schema=self.schema,
            topic=self.topic,
            topic_id=self.topic_id,
            partition=self.partition,
            offset=self.offset,
            timestamp=self.timestamp,
        )
        other.changed = True
        return other

    def __repr__(self) -> str:
        return f"<Event {self.place}>"


def _has_id(headers: Headers) -> bool:
    return any(name == "ce_id" and value for name, value in headers)
