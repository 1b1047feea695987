"""Whether a sink is to go on, rest or end, and what it failed with. Both halves of the sink look here."""

from __future__ import annotations

import threading
from collections.abc import Callable

from trunkline.core.errors import TrunklineError


class Lifecycle:
    """From any thread. `on_failure` is called once, by whoever finds the first failure."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.paused = threading.Event()
        self.topics_in_doubt = threading.Event()
        self.failure: TrunklineError | None = None
        self.on_failure: Callable[[], None] = lambda: None

    def fail(self, error: TrunklineError) -> None:
        """The pipeline can't go on: what is under way ends, and `run` raises this."""
        if self.failure is None:
            self.failure = error
            self.on_failure()
        self.stop.set()

    @property
    def failed(self) -> bool:
        """Whether it can't go on."""
        return self.failure is not None
