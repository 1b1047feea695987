"""Reading parked records for people, and writing down what they decide."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from trunkline.bus.parking.decisions import Action, Decision, decide, waiting
from trunkline.bus.parking.partitions import parked_records
from trunkline.bus.parking.records import ParkedRecord
from trunkline.bus.redrive.letters import decoded_value, text_of
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.cli.session import Session, user
from trunkline.control import pipelines
from trunkline.control.timestamps import utc
from trunkline.core.casting import compile_caster
from trunkline.core.errors import ConfigurationError, RejectedError, did_you_mean
from trunkline.core.jsonable import to_jsonable
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder, Encoder

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Parked:
    """A parked record and its partition."""

    partition: int
    record: ParkedRecord

    @property
    def key(self) -> str:
        """The key as people write it."""
        return text_of(self.record.key) or ""

    def as_dict(self) -> dict[str, Any]:
        """The record as data, without headers and value."""
        record = self.record
        return {
            "key": self.key,
            "partition": self.partition,
            "sequence": record.sequence,
            "parked": utc(int(record.at * 1000)),
            "origin": record.origin.place,
            "attempts": record.attempts,
            "code": record.code,
            "reason": record.reason,
            "edited_by": record.edited_by or None,
        }


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key that is held back: since when, behind which record, and why."""

    key: str
    partition: int
    records: int
    since: str
    head: str
    attempts: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """The key as data."""
        return asdict(self)


def listed(session: Session, pipeline: str) -> list[HeldKey]:
    """The keys that are held back, the longest first."""
    groups: dict[tuple[int, str], list[Parked]] = {}
    for one in _all(session, pipeline):
        groups.setdefault((one.partition, one.key), []).append(one)
    found = []
    for (partition, key), records in groups.items():
        head = records[0].record
        since = utc(int(min(one.record.at for one in records) * 1000))
        found.append(HeldKey(key, partition, len(records), since, head.origin.place, head.attempts, head.reason))
    return sorted(found, key=lambda one: (one.since, one.partition, one.key))


def records_of(session: Session, pipeline: str, key: str) -> list[Parked]:
    """The parked records of a key, in their order."""
    return [one for one in _all(session, pipeline) if one.key == key]


def _all(session: Session, pipeline: str) -> list[Parked]:
    kafka, names = session.kafka(), session.names()
    pipelines.known(session.cluster(kafka), pipeline)
    return [Parked(partition, record) for partition, record in parked_records(kafka, names, pipeline)]


def chosen(
    session: Session, pipeline: str, key: str, partition: int | None, sequence: int | None, *, last: bool = False
) -> Parked:
    """The record that is meant: a key's first, its last, or the one with a number. Raises `ConfigurationError`."""
    everything = _all(session, pipeline)
    found = [one for one in everything if one.key == key and partition in {None, one.partition}]
    if not found and (elsewhere := sorted({one.partition for one in everything if one.key == key})):
        raise ConfigurationError(
            f"{key!r} is not parked in partition {partition}, but in {', '.join(map(str, elsewhere))}",
            hint=f"choose it with --partition {elsewhere[0]}, or leave that out",
            code="parked.unknown",
        )
    if not found:
        raise ConfigurationError(
            f"{pipeline} has nothing parked of the key {key!r}",
            hint=did_you_mean(key, {one.key for one in everything}) or f"`trunkline parked ls {pipeline}` lists them",
            code="parked.unknown",
        )
    places = sorted({one.partition for one in found})
    if len(places) > 1:
        raise ConfigurationError(
            f"{key!r} is parked in the partitions {', '.join(map(str, places))}",
            hint="choose one with --partition",
            code="parked.ambiguous",
        )
    if sequence is None:
        return found[-1] if last else found[0]
    for one in found:
        if one.record.sequence == sequence:
            return one
    raise ConfigurationError(
        f"{key!r} has no parked record with the number {sequence}",
        hint=f"`trunkline parked ls {pipeline} --key {key}` lists them",
        code="parked.unknown",
    )


def whole(one: Parked, registry: RegistryClient) -> dict[str, Any]:
    """A record as data with headers and value, the value decoded where that is possible."""
    value, undecodable = decoded_value(one.record.value, Decoder(registry))
    return {
        **one.as_dict(),
        "headers": {name: text_of(content) for name, content in one.record.headers},
        "value": to_jsonable(value),
        "undecodable": undecodable,
    }


def encoded(file: Path, one: Parked, registry: RegistryClient) -> bytes:
    """A new value for a record, in the schema that its value has. Raises `ConfigurationError` for what does not fit."""
    topic = one.record.origin.topic
    try:
        schema, _ = Decoder(registry).decode(one.record.value)
    except RejectedError:
        schema = registry.latest(f"{topic}-value")  # what can't be read is replaced by what can
    try:
        datum = orjson.loads(file.read_bytes())
        if isinstance(schema.json, dict) and schema.json.get("type") == "record":
            datum = compile_caster(schema.json, extra_columns="refuse", values="json")(datum)
        return Encoder(schema).encode(datum)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"this is no JSON: {error}", where=str(file), code="parked.value") from error
    except RejectedError as error:
        raise ConfigurationError(
            f"the new value does not fit the schema {schema.name}: {error}", where=str(file), code="parked.value"
        ) from error


def decided(
    session: Session,
    pipeline: str,
    one: Parked,
    action: Action,
    *,
    reason: str,
    timeout: float,
    value: bytes = b"",
) -> None:
    """Writes a decision and waits until the worker that has the key carried it out; without one it stays and waits."""
    kafka, names = session.kafka(), session.names()
    ensure_topics(kafka, [plan for plan in internal_topics(names) if plan.name in {names.decisions, names.audit}])
    decision = Decision(
        pipeline, one.partition, one.record.key, action, user(), upto=one.record.sequence, reason=reason, value=value
    )
    decide(kafka, names, decision)
    deadline = time.monotonic() + timeout
    while not (done := all(left.id != decision.id for left in waiting(kafka, names, pipeline))):
        if time.monotonic() > deadline:
            session.out.note("no worker has carried it out yet: it waits for the one that has the key")
            break
        time.sleep(POLL_SECONDS)
    session.out.fields(
        {"decision": decision.id, "key": one.key, "state": "carried out" if done else "waiting"},
        {"decision": decision.id, "pipeline": pipeline, "key": one.key, "action": action, "carried_out": done},
    )
