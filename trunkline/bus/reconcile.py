"""Reconcile: does the ledger close? The committed range is read again, counted and checked against what the commits say."""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass
from typing import Any

from confluent_kafka import TopicPartition

from trunkline.bus.kafka import KafkaSettings, offset_of, read_all
from trunkline.bus.ledger import OUTCOMES, Ledger
from trunkline.bus.names import Names
from trunkline.bus.offsetadmin import committed

TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class PartitionCheck:
    """One input partition. `present` counts the committed records that are in the topic below the committed offset.

    `unverifiable` says that the range can't be read whole any more (its beginning expired), so only the counts were compared.
    """

    topic: str
    partition: int
    first: int
    committed: int
    read: int
    present: int
    outcomes: dict[str, int]
    unverifiable: bool
    closes: bool
    problem: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The check as data."""
        return {name: getattr(self, name) for name in self.__slots__}


def reconcile(settings: KafkaSettings, names: Names, pipeline: str) -> list[PartitionCheck]:
    """Checks every partition that a pipeline has committed. Raises our error for Kafka's."""
    return [
        _check(settings, topic, partition, offset, ledger)
        for (topic, partition), (offset, ledger) in sorted(committed(settings, names, pipeline).items())
    ]


def _check(settings: KafkaSettings, topic: str, partition: int, end: int, ledger: Ledger) -> PartitionCheck:
    offsets: array[int] = array("q")
    lowest: int | None = None

    def start(reader: Any, number: int) -> int:
        nonlocal lowest
        lowest = reader.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT)[0]
        return ledger.first

    if end > ledger.first:
        for message in read_all(settings, topic, partitions=[partition], start=start):
            if offset_of(message) >= end:
                break
            offsets.append(offset_of(message))
    expired = lowest is not None and lowest > ledger.first
    outcomes: dict[str, int] = {outcome: getattr(ledger, outcome) for outcome in OUTCOMES}
    problem = None
    if ledger.open:
        problem = f"{ledger.open} records were read and have no outcome"
    elif not expired and len(offsets) != ledger.read:
        problem = f"the topic has {len(offsets)} records in the committed range, the ledger accounts for {ledger.read}"
    elif not expired and zlib.crc32(offsets.tobytes()) != ledger.checksum:
        problem = "the ledger accounts for other offsets than the topic has"
    return PartitionCheck(
        topic,
        partition,
        ledger.first,
        end,
        ledger.read,
        len(offsets),
        outcomes,
        expired,
        problem is None,
        problem,
    )
