"""The audit trail: who decided what about a pipeline, when, and why. An append-only topic that never expires.

A decision and its effect belong together: whoever writes the effect in a transaction appends with the same producer, inside it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson
from confluent_kafka import Producer

from trunkline.bus.kafka import KafkaSettings, produce, produce_and_wait, read_all
from trunkline.bus.names import Names
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsonable import note_bytes
from trunkline.core.redaction import redact

VERSION = 1
LONGEST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision: `action` is noun and verb (`parked.drop`, `redrive.start`), `at` is Unix seconds.

    `subject` is what was decided about where that is no pipeline (`Topic/orders`). Entries of one command share its id.
    """

    at: float
    who: str
    action: str
    pipeline: str
    details: dict[str, Any] = field(default_factory=dict)
    subject: str = ""
    command: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The entry as data."""
        return asdict(self)


def record(
    action: str, *, who: str, pipeline: str, details: Mapping[str, Any] | None = None, at: float | None = None
) -> dict[str, Any]:
    """An entry as the topic has it, for who writes it in a transaction of his own."""
    entry = Entry(time.time() if at is None else at, who, action, pipeline, dict(details or {}))
    return {"v": VERSION, **entry.as_dict()}


def append(
    writer: Producer | KafkaSettings,
    names: Names,
    action: str,
    *,
    who: str,
    pipeline: str,
    details: Mapping[str, Any] | None = None,
    at: float | None = None,
) -> None:
    """Appends one entry.

    With a `Producer` the entry is queued in order with what else it writes, so that it is part of the transaction that is open,
    if one is. With settings a producer is made for it, and the call returns when every replica has the entry. Raises
    KafkaException, and our error for Kafka's where it waits. `details` must hold no secret.
    """
    value, key = note_bytes(record(action, who=who, pipeline=pipeline, details=details, at=at)), pipeline.encode()
    if isinstance(writer, KafkaSettings):
        produce_and_wait(writer.producer(), names.audit, value, key)
    else:
        produce(writer, names.audit, value, key, [])


def write(producer: Producer, names: Names, entry: Entry, *, command: str) -> None:
    """Hands an entry of a command to the producer, as a part of its open transaction. Raises KafkaException."""
    value = note_bytes({"v": VERSION, **replace(entry, command=command).as_dict()})
    produce(producer, names.audit, value, (entry.pipeline or entry.subject).encode(), [])


def entries(
    settings: KafkaSettings, names: Names, pipeline: str | None = None, *, start: int | None = None
) -> Iterator[Entry]:
    """The trail, oldest first; of one pipeline where named, and from the offset `start` on where given.

    Raises `ConfigurationError` for entries of a newer version.
    """
    for message in read_all(settings, names.audit, start=None if start is None else lambda *_: start):
        data = orjson.loads(message.value() or b"{}")
        if data.pop("v") > VERSION:
            raise ConfigurationError(
                f"{names.audit} has entries of a newer Trunkline", hint="run that version", code="audit.version"
            )
        entry = Entry(**data)
        if pipeline is None or entry.pipeline == pipeline:
            yield entry


@contextmanager
def announced(settings: KafkaSettings, names: Names, entry: Entry) -> Iterator[None]:
    """For what can't be in a transaction with its entry, such as deleting a topic: appends that it is asked for, and what came of it.

    The entry is appended twice: before, with `.asked` behind its action, and after, with an `outcome` in its details. Who was killed on
    the way left an entry without an outcome. Raises our error for Kafka's; then nothing was begun, or its outcome is not known.
    """
    producer, command = settings.producer(), uuid.uuid4().hex[:16]

    def write_down(action: str, outcome: Mapping[str, Any]) -> None:
        made = replace(entry, at=time.time(), action=action, details={**entry.details, **outcome}, command=command)
        value = note_bytes({"v": VERSION, **made.as_dict()})
        produce_and_wait(producer, names.audit, value, (made.pipeline or made.subject).encode())

    write_down(f"{entry.action}.asked", {})
    try:
        yield
    except BaseException as error:
        write_down(entry.action, {"outcome": "failed", "cause": redact(str(error))})
        raise
    write_down(entry.action, {"outcome": "done"})


def brief(value: object) -> str:
    """A value as a line of text for people; one that is not there is `unset`."""
    text = "unset" if value is None else str(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
