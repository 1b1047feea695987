"""What a stream does with one record: decode, steps, routes, encode. The hot path, without Kafka."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Message

from trunkline.bus.deadletters import Failure
from trunkline.bus.records import Output, with_envelope
from trunkline.bus.stream.plain import SPARE_BYTES, PlainTransform, compile_plain
from trunkline.core.contracts import Step
from trunkline.core.envelope import CE_SPECVERSION, Headers
from trunkline.core.errors import RejectedError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.plain import PlainWork
from trunkline.core.routing import Route, choose
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.wire import PREFIX_SIZE


@dataclass(frozen=True, slots=True)
class CompiledStep:
    """A step's work, and what becomes of a record that it can't process: `dead-letter`, `drop` or `pass`."""

    name: str
    process: Callable[[Event], Event | list[Event] | None]
    on_error: str
    plain: PlainWork | None = None

    @classmethod
    def of(cls, name: str, step: Step, on_error: str) -> CompiledStep:
        """The step's bound method, looked up once."""
        process = KeepOnError(step.process) if on_error == "pass" else step.process
        return cls(name, process, on_error, step.plain())


class FailedRecordError(Exception):
    """This record becomes a dead letter."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class Transform:
    """The work of a stream on the records of one input topic.

    `encoders` gives for an output topic its encoder, or None where the topic has no schema and values pass unchanged.
    `limits` gives the size that a topic accepts.
    """

    def __init__(
        self,
        decoder: Decoder,
        steps: Sequence[CompiledStep],
        routes: Sequence[Route],
        encoders: Callable[[str], Encoder | None],
        limits: Mapping[str, int],
        *,
        topic_id: str,
    ) -> None:
        self.plain: dict[bytes, PlainTransform] = {}
        """The short way for records that need no `Event`, by the first bytes of their values. Filled as schemas are met."""
        self._not_plain: set[bytes] = set()
        self._decoder = decoder
        self._decode = decoder.decode
        self._steps = list(steps)
        self._work = [(step.process, index) for index, step in enumerate(steps)]
        self._routes = list(routes)
        # The usual stream has one target without conditions: it needs no choosing.
        self._only_route = (
            routes[0] if len(routes) == 1 and routes[0].when is None and not routes[0].otherwise else None
        )
        self._encoder = encoders
        self._encoders: dict[str, Encoder | None] = {}
        self._limits = limits
        self._topic_id = topic_id

    def __call__(self, message: Message, topic: str, partition: int, offset: int) -> tuple[list[Output], Event]:
        """The outputs of one record; none where it is filtered. All or nothing: a record with one bad part has no output.

        Raises FailedRecordError for a record that must become a dead letter.
        """
        raw = message.value()
        headers = cast(Headers, message.headers() or [])
        event = Event(
            None,
            raw=raw,
            raw_key=message.key(),
            headers=headers,
            topic=topic,
            topic_id=self._topic_id,
            partition=partition,
            offset=offset,
        )
        if not headers or headers[0][0] != CE_SPECVERSION:
            event.headers = with_envelope(event)
        if raw is None:
            return self._tombstone(event), event
        try:
            event.schema, event.value = self._decode(raw)
        except RejectedError as error:
            raise FailedRecordError(Failure("DECODE", error.code, error.message)) from error
        if raw[:PREFIX_SIZE] not in self.plain and raw[:PREFIX_SIZE] not in self._not_plain:
            self._learn(raw)
        survivor: Event | list[Event] | None = event
        for process, index in self._work:
            try:
                survivor = process(event)
            except Exception as error:  # noqa: BLE001 (a step may be anybody's Python)
                survivor = self._step_failed(self._steps[index], event, error)
            if survivor is None:
                return [], event
            if survivor.__class__ is list:
                return self._outputs_of_parts(survivor, index + 1), event
            event = survivor  # type: ignore[assignment]
        return self._outputs(event), event

    def _learn(self, raw: bytes) -> None:
        """Finds the short way for records with the schema of this one, if there is one."""
        works = [step.plain for step in self._steps]
        found = None
        if None not in works:
            plain_works = [work for work in works if work is not None]
            found = compile_plain(raw, self._decoder, plain_works, self._routes, self._encoder_of, self._limits)
        if found is None:
            self._not_plain.add(raw[:PREFIX_SIZE])
        else:
            self.plain[raw[:PREFIX_SIZE]] = found

    def _outputs_of_parts(self, parts: list[Event], first: int) -> list[Output]:
        """The remaining steps and the outputs for each part of a split."""
        for index in range(first, len(self._steps)):
            step, after = self._steps[index], []
            for part in parts:
                try:
                    result = step.process(part)
                except Exception as error:  # noqa: BLE001
                    result = self._step_failed(step, part, error)
                if isinstance(result, list):
                    after += result
                elif result is not None:
                    after.append(result)
            parts = after
        return [output for part in parts for output in self._outputs(part)]

    def _outputs(self, event: Event) -> list[Output]:
        stage = "ROUTE"
        try:
            only = self._only_route
            if only is not None and only.name is None and only.key is None:
                stage = "ENCODE"
                value = self._encoded(event, only.topic, {})
                if len(value) > self._limits.get(only.topic, 1_000_000) - SPARE_BYTES:
                    self._check_size(only.topic, value, event.raw_key, event.headers)
                return [Output(only.topic, value, event.raw_key, event.headers)]
            routes = [only] if only is not None else choose(self._routes, event.value, event)
            outputs = []
            encoded: dict[int, bytes] = {}
            for route in routes:
                stage = "ROUTE"
                topic = route.topic_of(event.value, event)
                key = route.key_of(event.value, event, event.raw_key)
                stage = "ENCODE"
                value = self._encoded(event, topic, encoded)
                if len(value) > self._limits.get(topic, 1_000_000) - SPARE_BYTES:
                    self._check_size(topic, value, key, event.headers)
                outputs.append(Output(topic, value, key, event.headers))
            return outputs
        except TrunklineError as error:
            if isinstance(error, RejectedError):
                raise FailedRecordError(Failure(stage, error.code, error.message)) from error
            raise

    def _encoded(self, event: Event, topic: str, encoded: dict[int, bytes]) -> bytes:
        encoder = self._encoder_of(topic)
        if encoder is None:
            if event.changed or event.raw is None:
                raise RejectedError(
                    f"the topic {topic} has no schema to encode a changed value with", code="record.no_schema"
                )
            return event.raw
        schema = event.schema
        if not event.changed and schema is not None and schema.id == encoder.schema.id and event.raw is not None:
            return event.raw  # nothing changed it: the bytes are the value
        found = encoded.get(id(encoder))
        if found is None:
            found = encoded[id(encoder)] = encoder.encode(event.value)
        return found

    def _encoder_of(self, topic: str) -> Encoder | None:
        try:
            return self._encoders[topic]
        except KeyError:
            encoder = self._encoders[topic] = self._encoder(topic)
            return encoder

    def _check_size(self, topic: str, value: bytes, key: bytes | None, headers: Headers) -> None:
        """An oversized record would abort the whole transaction: it is found before it is written."""
        size = (
            len(value) + len(key or b"") + sum(len(name) + len(content or b"") + 4 for name, content in headers) + 128
        )
        limit = self._limits.get(topic, 1_000_000)
        if size > limit:
            raise RejectedError(f"the record has {size} bytes, {topic} accepts {limit}", code="record.too_large")

    def _tombstone(self, event: Event) -> list[Output]:
        raise FailedRecordError(
            Failure("DECODE", "record.tombstone", f"a record without a value (a tombstone) in {event.topic}")
        )

    def _step_failed(self, step: CompiledStep, event: Event, error: Exception) -> Event | None:
        if isinstance(error, TrunklineError) and not isinstance(error, RejectedError):
            raise error  # not the record's fault: nothing is dropped or passed on because of it
        if step.on_error == "drop":
            return None
        if step.on_error == "pass":
            return event
        if isinstance(error, RejectedError):
            raise FailedRecordError(Failure(f"STEP {step.name}", error.code, str(error))) from error
        reason = f"{type(error).__name__}: {error}"
        raise FailedRecordError(Failure(f"STEP {step.name}", "step.error", reason)) from error


class KeepOnError:
    """Wraps a step whose `on_error` is `pass`: a step may have changed half a value when it fails, so it gets a copy."""

    def __init__(self, process: Callable[[Event], Event | list[Event] | None]) -> None:
        self._process = process

    def __call__(self, event: Event) -> Event | list[Event] | None:
        """The step's result, or the event as it was."""
        value, headers, changed = copy.deepcopy(event.value), event.headers, event.changed
        try:
            return self._process(event)
        except Exception:
            event.value, event.headers, event.changed = value, headers, changed
            raise


def correlation_of(headers: Sequence[tuple[str, Any]], guess: int) -> tuple[str, int]:
    """The correlation id in the headers, and its index: the same as `guess` for most records of a topic."""
    if guess < len(headers) and headers[guess][0] == "ce_correlationid":
        return (headers[guess][1] or b"").decode("utf-8", "replace"), guess
    for index, (name, value) in enumerate(headers):
        if name == "ce_correlationid":
            return (value or b"").decode("utf-8", "replace"), index
    return "", guess
