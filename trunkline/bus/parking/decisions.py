"""What people decide about parked records. A decision is a record that waits until the owner of the partition has carried it out.

The owner removes the decision in the transaction that carries it out, so a decision made while no worker runs is carried out
later, and none is carried out twice.
"""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import Effect, Latest, Write, carry_out
from trunkline.bus.kafka import KafkaSettings, end_offsets, read_all
from trunkline.bus.names import Names
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsonable import note_bytes
from trunkline.core.log import get_logger

log = get_logger(__name__)
VERSION = 1
Action = Literal["retry", "drop", "edit"]


@dataclass(frozen=True, slots=True)
class Decision:
    """Retry a key's head now, drop its records up to the sequence number `upto`, or give the record `upto` another value.

    What is meant is named by its number: where that record was settled meanwhile, the decision changes nothing.
    """

    pipeline: str
    partition: int
    key: bytes
    action: Action
    by: str
    upto: int = 0
    reason: str = ""
    value: bytes = b""
    at: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:16])

    @property
    def record_key(self) -> bytes:
        """The key of its record."""
        return f"{self.pipeline}/{self.id}".encode()

    def to_value(self) -> bytes:
        """The value of its record."""
        data = {name: getattr(self, name) for name in ("pipeline", "partition", "action", "by", "upto", "reason", "at")}
        data["key"], data["value"] = base64.b64encode(self.key).decode(), base64.b64encode(self.value).decode()
        return note_bytes({"v": VERSION, **data})

    @classmethod
    def parse(cls, record_key: str, value: bytes) -> Decision:
        """The decision in a record. Raises `ConfigurationError` for one of a newer version."""
        data: dict[str, Any] = orjson.loads(value)
        if data.pop("v") > VERSION:
            raise ConfigurationError(
                f"the decision {record_key} was made by a newer Trunkline",
                hint="run that version",
                code="parked.version",
            )
        data["key"], data["value"] = base64.b64decode(data["key"]), base64.b64decode(data["value"])
        return cls(**data, id=record_key.rpartition("/")[2])


def decide(settings: KafkaSettings, names: Names, decision: Decision) -> None:
    """Writes a decision, and who made it, in the audit trail; returns when Kafka has both.

    The trail's other entry of it, `parked.drop` and such, says what came of it.
    """
    details = {
        "key": decision.key.decode("utf-8", "backslashreplace"),
        "partition": decision.partition,
        "upto": decision.upto,
        "reason": decision.reason,
        "decision": decision.id,
    }
    asked = Entry(decision.at, decision.by, f"parked.{decision.action}.asked", decision.pipeline, details)
    record = Write(names.decisions, decision.record_key, decision.to_value())

    def add(_latest: Latest) -> Effect[None]:
        # What is meant is named by its number: of decisions that overtake each other none does what nobody meant.
        return Effect(None, [record], [asked])

    carry_out(settings, names, names.decisions, add, by=decision.by, what="the decision can't be written")


def waiting(settings: KafkaSettings, names: Names, pipeline: str | None = None) -> list[Decision]:
    """The decisions that nobody has carried out yet, in the order they were made; of one pipeline where named."""
    if not any(end_offsets(settings, names.decisions).values()):
        return []  # as nearly always: the reader that is not made is one for each pipeline that starts
    found: dict[str, bytes] = {}
    for message in read_all(settings, names.decisions):
        key, value = (message.key() or b"").decode("utf-8", "backslashreplace"), message.value()
        found.pop(key, None)
        if value is not None:
            found[key] = value
    return [one for one in readable(found, names.decisions) if pipeline is None or one.pipeline == pipeline]


def readable(found: Mapping[str, bytes], topic: str) -> list[Decision]:
    """The decisions among records by their keys. One that can't be read is somebody else's, and no reason for a worker not to start."""
    made = []
    for key, value in found.items():
        try:
            made.append(Decision.parse(key, value))
        except ConfigurationError as error:
            log.error("a decision is left to others", key=key, topic=topic, reason=error.message, hint=error.hint)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("a record is no decision and is passed over", key=key, topic=topic, reason=repr(error)[:200])
    return made
