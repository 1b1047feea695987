"""How much more a sink may read: what it holds, of how much it may hold, in records and in bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence

from confluent_kafka import Consumer, Message, TopicPartition

from trunkline.bus.delivery.delivery import in_flight_limit
from trunkline.bus.delivery.outgoing import Delivery
from trunkline.bus.intake import Partition
from trunkline.core.contracts import Sink
from trunkline.core.manifests.models import DeliverySpec

READ_AT_ONCE = 500
FIRST_GUESS = 2**20
"""Bytes of a record before one was read: Kafka's own limit by default."""
FULL_SECONDS = 1.0
"""How long reading waits for room without polling: then partitions are paused."""

Bound = Callable[[int], tuple[int, int]]
"""The records and bytes that may be held while so many partitions are ours."""
Holding = Callable[[], tuple[int, int]]
"""The records and bytes that deliveries hold."""


def bound_of(sink: Sink, spec: DeliverySpec, share: int) -> Bound:
    """What a sink may hold; `share` are the bytes that the worker has for each of its sinks."""
    # I25: what a sink holds is bounded, in records and in bytes, however slow its other side is.
    most = min(spec.batch.count or sink.promises.max_batch, sink.promises.max_batch)
    records, size = max(1000, 4 * in_flight_limit(sink, spec), 2 * most), min(spec.hold, share)
    if not sink.promises.contiguous:
        return lambda _partitions: (records, size)

    def of_ranges(partitions: int) -> tuple[int, int]:
        # A range must be read whole, in every partition, before any of it can go; one more is made meanwhile.
        count = max(1, partitions)
        return max(1000, most * (count + 1)), max(size, 2 * spec.batch.bytes) * count

    return of_ranges


class Room:
    """What there is left of a sink's bound. Everything but `taken` is called on the polling thread."""

    def __init__(self, bound: Bound, holding: Holding, partitions: Collection[Partition]) -> None:
        self._bound = bound
        self._holding = holding
        self._partitions = partitions
        self._backlogged = self._was_paused = False
        self._room_at = time.monotonic()
        """When there was room for more records last."""
        self._handed = self._taken = (0, 0)
        """Records and bytes that the polling thread gave to the event loop, and that the event loop took."""
        self._record_size = FIRST_GUESS
        """Bytes of the largest record read lately."""

    @property
    def held(self) -> tuple[int, int]:
        """Records and bytes that deliveries hold, with those on their way to the event loop."""
        handed, taken, (records, size) = self._handed, self._taken, self._holding()
        return records + handed[0] - taken[0], size + handed[1] - taken[1]

    def full(self) -> bool:
        """Whether to read nothing for the moment, because enough is held.

        For a moment only: Kafka's client answers a rebalance while it is polled. Then partitions are paused, which costs a new
        fetch, and polling goes on.
        """
        now = time.monotonic()
        # Once paused, half of what is held must go first: else each record that a slow system takes would cost a fetch.
        if self.left(portion=2 if self._backlogged else 1) > 0:
            self._room_at = now
        self._backlogged = now - self._room_at > FULL_SECONDS
        return self._room_at != now and not self._backlogged

    def left(self, portion: int = 1) -> int:
        """How many more records may be read until the bound, or that part of it, is reached."""
        records, size = self._bound(len(self._partitions))
        held, held_bytes = self.held
        left, left_bytes = records // portion - held, size // portion - held_bytes
        if left <= 0 or left_bytes <= 0:
            return 0
        return min(READ_AT_ONCE, left, max(1, left_bytes // self._record_size))

    def apply_pause(self, consumer: Consumer, *, asked: bool) -> None:
        """Pauses the partitions while a person `asked` for it, or for as long as there is no room; else resumes them."""
        wanted = asked or self._backlogged
        partitions = [TopicPartition(*partition) for partition in self._partitions]
        if partitions and (wanted or self._was_paused):
            (consumer.pause if wanted else consumer.resume)(partitions)
        self._was_paused = wanted

    def read(self, messages: Sequence[Message]) -> None:
        """These records were read."""
        self._record_size = max(self._record_size // 2, *(len(message) for message in messages), 1)

    def hand(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        """These are given to the event loop, and count as held until the answer is called: on the loop, when it has them."""
        records, size = len(deliveries), sum(delivery.size for delivery in deliveries)
        self._handed = (self._handed[0] + records, self._handed[1] + size)

        def taken() -> None:
            self._taken = (self._taken[0] + records, self._taken[1] + size)

        return taken
