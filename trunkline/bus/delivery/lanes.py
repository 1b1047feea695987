"""Lanes: what must stay in order, a key or a partition.

The first record of a lane is *ready*; the next one becomes ready when it is settled. So a record that must be retried holds
back its own lane and nothing else.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from trunkline.bus.delivery.outgoing import Delivery, Ticket


class Lanes:
    """The records that one pipeline holds on one worker, from when they were read until they are settled."""

    def __init__(self, order: Literal["key", "partition", "none"]) -> None:
        self._order = order
        self._lanes: dict[Hashable, deque[Delivery]] = {}
        self.ready: deque[Delivery] = deque()
        """What may be delivered now, in the order it came to be so."""
        self.held = 0
        """Records taken and not settled yet: in lanes, ready, under way or waiting for a retry."""
        self.held_bytes = 0
        """The size of those."""

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Takes records in the order they were read."""
        now = time.monotonic()
        order = self._order
        ready, lanes = self.ready, self._lanes
        for delivery in deliveries:
            self.held += 1
            self.held_bytes += delivery.size
            delivery.ready_at = now
            event = delivery.event
            if order == "key":
                lane: Hashable = event.raw_key
            else:
                lane = (event.topic, event.partition) if order == "partition" else None
            delivery.lane = lane
            if lane is None:
                ready.append(delivery)
                continue
            # I11: of a lane one record at a time is under way: the next one waits until it is settled.
            waiting = lanes.get(lane)
            if waiting is None:
                lanes[lane] = deque()
                ready.append(delivery)
            else:
                waiting.append(delivery)

    def again(self, delivery: Delivery) -> None:
        """A record that failed is ready once more, before those that came later."""
        self.ready.appendleft(delivery)

    def release(self, delivery: Delivery) -> None:
        """The record is settled: the next one of its lane may go."""
        self.held -= 1
        self.held_bytes -= delivery.size
        if delivery.lane is not None:
            self._advance(delivery.lane)

    def step_aside(self, delivery: Delivery) -> None:
        """The record stays held, and no longer holds back its lane."""
        if delivery.lane is not None:
            self._advance(delivery.lane)
            delivery.lane = None

    def divert(self, first: Delivery, taken: Callable[[Delivery], bool]) -> None:
        """Lets go of what waits behind the first of a lane and is taken, asked in its order, by somebody else."""
        waiting = self._lanes.get(first.lane) if first.lane is not None else None
        if not waiting:
            return
        kept: deque[Delivery] = deque()
        for delivery in waiting:
            if taken(delivery):
                self.held -= 1
                self.held_bytes -= delivery.size
            else:
                kept.append(delivery)
        self._lanes[first.lane] = kept

    def forget(self, gone: Callable[[Ticket], bool]) -> None:
        """Drops what waits of partitions that went away. What is under way ends, and is released by its owner."""
        for lane, waiting in self._lanes.items():
            for delivery in waiting:
                if gone(delivery.ticket):
                    self.held -= 1
                    self.held_bytes -= delivery.size
            self._lanes[lane] = deque(delivery for delivery in waiting if not gone(delivery.ticket))
        dropped = [delivery for delivery in self.ready if gone(delivery.ticket)]
        self.ready = deque(delivery for delivery in self.ready if not gone(delivery.ticket))
        for delivery in dropped:
            self.release(delivery)

    def _advance(self, lane: Hashable) -> None:
        waiting = self._lanes.get(lane)
        if waiting:
            following = waiting.popleft()
            following.ready_at = time.monotonic()
            self.ready.append(following)
        else:
            self._lanes.pop(lane, None)
