"""The trace: what every hop did with every record, one columnar record a transaction in `_trunkline.trace`.

A record says who did it (pipeline, kind, worker), when, and for one partition of one input topic the columns `offsets`,
`ids` (correlation ids), `outcomes` and, where a hop has them, `details` (an attempt, an external reference, a reason).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, Message, TopicPartition

from trunkline.bus.kafka import KafkaSettings, read_all
from trunkline.core.jsonable import note_bytes
from trunkline.core.redaction import excerpt, redact

VERSION = 1
LONGEST = 500
"""Characters of a detail."""


@dataclass(frozen=True, slots=True)
class Hop:
    """What one pipeline did with one record. `place` is topic, partition and offset of its input; `at` is Unix milliseconds."""

    at: int
    pipeline: str
    kind: str
    worker: str
    topic: str
    partition: int
    offset: int
    correlation_id: str
    outcome: str
    detail: str | None

    def as_dict(self) -> dict[str, Any]:
        """The hop as data."""
        return {name: getattr(self, name) for name in self.__slots__}


class TraceBatch:
    """Collects what one transaction (or one round of deliveries) did, and gives the trace records for it."""

    def __init__(self, pipeline: str, kind: str, worker: str) -> None:
        self._head = {"v": VERSION, "pipeline": pipeline, "kind": kind, "worker": worker}
        self._parts: dict[tuple[str, int], tuple[list[int], list[str], list[str], dict[str, str]]] = {}

    def part(self, topic: str, partition: int) -> tuple[list[int], list[str], list[str], dict[str, str]]:
        """The columns of one partition, to append to: offsets, correlation ids, outcomes; and details by index (as text)."""
        key = (topic, partition)
        found = self._parts.get(key)
        if found is None:
            found = self._parts[key] = ([], [], [], {})
        return found

    def add(
        self, topic: str, partition: int, offset: int, correlation_id: str, outcome: str, detail: str | None = None
    ) -> None:
        """Notes one record."""
        offsets, ids, outcomes, details = self.part(topic, partition)
        if detail is not None:
            details[str(len(offsets))] = detail
        offsets.append(offset)
        ids.append(correlation_id)
        outcomes.append(outcome)

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts.values())

    def drain(self) -> list[bytes]:
        """The trace records, and an empty batch from now on."""
        at = int(time.time() * 1000)
        records = []
        for (topic, partition), (offsets, ids, outcomes, details) in self._parts.items():
            if not offsets:
                continue
            # Most batches have one outcome: it is written once.
            same = outcomes[0] if len(set(outcomes)) == 1 else None
            records.append(
                note_bytes(
                    {
                        **self._head,
                        "at": at,
                        "topic": topic,
                        "partition": partition,
                        "offsets": offsets,
                        "ids": ids,
                        "outcomes": same if same is not None else outcomes,
                        "details": _shown(details),
                    }
                )
            )
        self._parts.clear()
        return records


def _shown(details: Mapping[str, str]) -> Mapping[str, str]:
    """Details as they may be kept: without secrets, which are looked for in all of them at once, since there is seldom one."""
    texts = details.values()
    together = "\n".join(texts)
    if all(len(text) <= LONGEST for text in texts) and redact(together) is together:
        return details
    return {index: excerpt(text, LONGEST) for index, text in details.items()}


def find_hops(settings: KafkaSettings, topic: str, correlation_id: str, *, since_ms: int | None = None) -> list[Hop]:
    """Every hop of one correlation id, oldest first. Reads the trace from `since_ms` (Unix milliseconds) or from its beginning."""
    return find_all_hops(settings, topic, [correlation_id], since_ms=since_ms)[correlation_id]


def find_all_hops(
    settings: KafkaSettings, topic: str, correlation_ids: Iterable[str], *, since_ms: int | None = None
) -> dict[str, list[Hop]]:
    """The same for several correlation ids at once: the trace is read once, and none is missing from what is given."""
    found: dict[str, list[Hop]] = {identity: [] for identity in correlation_ids}
    needles = [orjson.dumps(identity)[1:-1] for identity in found]  # an id may have a quotation mark

    def start(reader: Consumer, partition: int) -> int:
        return 0 if since_ms is None else first_since(reader, topic, partition, since_ms)

    for message in read_all(settings, topic, start=start):
        value = message.value() or b""
        # A substring search of the bytes spares parsing what has nothing to do with it.
        if any(needle in value for needle in needles):
            for hop in hops_of(message):
                if hop.correlation_id in found:
                    found[hop.correlation_id].append(hop)
    return {
        identity: sorted(hops, key=lambda hop: (hop.at, hop.pipeline, hop.offset)) for identity, hops in found.items()
    }


def first_since(reader: Consumer, topic: str, partition: int, since_ms: int) -> int:
    """The first offset of a partition with a time at or after `since_ms`, in Unix milliseconds; behind any end where there is none."""
    found = reader.offsets_for_times([TopicPartition(topic, partition, since_ms)], timeout=10)[0].offset
    return found if found >= 0 else 2**62


def hops_of(message: Message) -> Iterator[Hop]:
    """The hops in one trace record; none in a record of a newer version."""
    data = orjson.loads(message.value() or b"{}")
    if data.get("v") != VERSION:
        return
    kind, timestamp = message.timestamp()
    at = data["at"] if kind == TIMESTAMP_NOT_AVAILABLE else data.get("at", timestamp)
    outcomes, details = data["outcomes"], data["details"]
    for index, (offset, identity) in enumerate(zip(data["offsets"], data["ids"], strict=True)):
        outcome = outcomes if isinstance(outcomes, str) else outcomes[index]
        yield Hop(
            at,
            data["pipeline"],
            data["kind"],
            data["worker"],
            data["topic"],
            data["partition"],
            offset,
            identity,
            outcome,
            details.get(str(index)),
        )
