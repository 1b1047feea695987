"""What a sink's polling thread owes the event loop and the broker, also while it waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from trunkline.bus.kafka import LazyProducer
from trunkline.bus.parking.park import Park
from trunkline.bus.sink.committing import Committing

WAIT_SECONDS = 0.02


class Upkeep:
    """Answers what the event loop asks, and takes in what the broker acknowledged. On the polling thread."""

    def __init__(self, producer: LazyProducer, committing: Committing, park: Park | None) -> None:
        self._producer = producer
        self._committing = committing
        self._park = park

    @property
    def pressing(self) -> bool:
        """Whether somebody waits for an answer now."""
        return self._committing.asked or (self._park is not None and self._park.waiting)

    def serve(self) -> None:
        """Does what there is to do. Raises as the park's `serve`."""
        self._producer.poll(0)
        self._committing.answer()
        if self._park is not None:
            self._park.serve()

    def serve_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Serves until `done`, at most so long. Whether it was done."""
        deadline = time.monotonic() + seconds
        while not done() and time.monotonic() < deadline:
            self.serve()
            self._producer.poll(WAIT_SECONDS)
        self.serve()
        return done()

    def flush(self, seconds: float) -> None:
        """Waits until the broker has what was given to it, at most so long."""
        self._producer.flush(seconds)
