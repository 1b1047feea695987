"""Parked records: reading them, and writing down what is decided on them."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from trunkline.bus.parking.decisions import Action, Decision, decide, waiting
from trunkline.bus.parking.partitions import parked_records
from trunkline.bus.parking.records import ParkedRecord
from trunkline.bus.redrive.letters import decoded_value, text_of
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.control.timestamps import utc
from trunkline.core.casting import compile_caster
from trunkline.core.errors import ConfigurationError, RejectedError, did_you_mean
from trunkline.core.jsonable import to_jsonable
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder

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


def held_keys(cluster: Cluster, pipeline: str) -> list[HeldKey]:
    """The keys that are held back, the longest first."""
    groups: dict[tuple[int, str], list[Parked]] = {}
    for one in _all(cluster, pipeline):
        groups.setdefault((one.partition, one.key), []).append(one)
    found = []
    for (partition, key), records in groups.items():
        head = records[0].record
        since = utc(int(min(one.record.at for one in records) * 1000))
        found.append(HeldKey(key, partition, len(records), since, head.origin.place, head.attempts, head.reason))
    return sorted(found, key=lambda one: (one.since, one.partition, one.key))


def records_of(cluster: Cluster, pipeline: str, key: str) -> list[Parked]:
    """The parked records of a key, in their order."""
    return [one for one in _all(cluster, pipeline) if one.key == key]


def _all(cluster: Cluster, pipeline: str) -> list[Parked]:
    pipelines.known(cluster, pipeline)
    return [Parked(partition, record) for partition, record in parked_records(cluster.kafka, cluster.names, pipeline)]


def chosen(
    cluster: Cluster, pipeline: str, key: str, partition: int | None, sequence: int | None, *, last: bool = False
) -> Parked:
    """The record that is meant: a key's first, its last, or the one with a number. Raises `ConfigurationError`."""
    everything = _all(cluster, pipeline)
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


def whole(cluster: Cluster, one: Parked, registry: RegistryClient) -> dict[str, Any]:
    """A record as data with headers and value, the value decoded where that is possible."""
    value, undecodable = decoded_value(one.record.value, cluster.decoders(registry)(one.record.origin.topic))
    return {
        **one.as_dict(),
        "headers": {name: text_of(content) for name, content in one.record.headers},
        "value": to_jsonable(value),
        "undecodable": undecodable,
    }


def encoded(cluster: Cluster, content: bytes, one: Parked, registry: RegistryClient, *, where: str) -> bytes:
    """A new value for a record, given as JSON, in the schema that its value has.

    Raises `ConfigurationError` for what does not fit; `where` says where the content came from.
    """
    topic = one.record.origin.topic
    try:
        schema, _ = cluster.decoders(registry)(topic).decode(one.record.value)
    except RejectedError:
        schema = registry.latest(cluster.subjects_of(topic).of("")[0])  # what can't be read is replaced by what can
    try:
        datum = orjson.loads(content)
        if isinstance(schema.json, dict) and schema.json.get("type") == "record":
            datum = compile_caster(schema.json, extra_columns="refuse", values="json")(datum)
        return Encoder(schema).encode(datum)
    except orjson.JSONDecodeError as error:
        raise ConfigurationError(f"this is no JSON: {error}", where=where, code="parked.value") from error
    except RejectedError as error:
        raise ConfigurationError(
            f"the new value does not fit the schema {schema.name}: {error}", where=where, code="parked.value"
        ) from error


def decided(
    cluster: Cluster, pipeline: str, one: Parked, action: Action, *, reason: str, value: bytes = b""
) -> Decision:
    """Writes a decision down. It stays and waits for the worker that has the key."""
    names = cluster.names
    ensure_topics(
        cluster.kafka, [plan for plan in internal_topics(names) if plan.name in {names.decisions, names.audit}]
    )
    upto = one.record.sequence
    decision = Decision(
        pipeline, one.partition, one.record.key, action, cluster.actor, upto=upto, reason=reason, value=value
    )
    decide(cluster.kafka, names, decision)
    return decision


def carried_out(cluster: Cluster, decision: Decision, timeout: float) -> bool:
    """Whether a worker carried the decision out within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while any(left.id == decision.id for left in waiting(cluster.kafka, cluster.names, decision.pipeline)):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True
