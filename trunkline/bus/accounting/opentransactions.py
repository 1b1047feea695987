"""Since when the transaction is open that readers of committed records can't pass.

The last stable offset is that of the first record of the oldest open transaction (KIP-98), so that record says when it began.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, TopicPartition

from trunkline.bus.accounting.backlog import Behind
from trunkline.bus.kafka import KafkaSettings, closing

FETCH_BYTES = 16 * 1024


class OpenTransactions:
    """Reads the first records of open transactions, and remembers their timestamps. Belongs to one thread."""

    def __init__(self, settings: KafkaSettings, seconds: float) -> None:
        self._settings = settings
        self._seconds = seconds
        self._known: dict[Behind, float] = {}

    def look(self, stable: Mapping[Behind, int]) -> Mapping[Behind, float]:
        """When the transactions began, in Unix seconds, that hold readers at these last stable offsets, as far as time allows."""
        self._known = {place: since for place, since in self._known.items() if place in stable}
        left = {place[:2]: place for place in stable if place not in self._known}
        if not left:
            return self._known
        deadline = time.monotonic() + self._seconds
        with closing(self._settings.reader(committed_only=False, fetch_bytes=FETCH_BYTES)) as reader:
            reader.assign([TopicPartition(*place) for place in left.values()])
            while left and time.monotonic() < deadline:
                for message in [*reader.consume(1, 0.1), *reader.consume(1000, 0)]:
                    partition = (message.topic() or "", message.partition() or 0)
                    if partition not in left or message.error() is not None:
                        continue
                    kind, stamp = message.timestamp()
                    if kind != TIMESTAMP_NOT_AVAILABLE:
                        self._known[left[partition]] = stamp / 1000
                    del left[partition]
                    reader.pause([TopicPartition(*partition)])
        return self._known
