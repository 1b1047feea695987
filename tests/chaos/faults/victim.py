"""A worker as a process of its own that kills itself at a chosen point: `victim.py ORDERS`, a JSON object.

The points are moments of a transaction of Kafka's, seen from the client: the engine is the real one, only its producer counts.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any
from unittest.mock import patch

from confluent_kafka import Producer

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.kafka import settings as clients
from trunkline.bus.names import Names
from trunkline.bus.stream import runtime as stream
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.core.log import configure_logging
from trunkline.core.manifests import load_files

READ, PRODUCED, POSITION, WRITTEN, OFFSETS, COMMITTING, COMMITTED = (
    "read",
    "produced",
    "position",
    "written",
    "offsets",
    "committing",
    "committed",
)
"""Before a transaction begins, after a record of it, after a source's position, before and after a stream's offsets, while it
commits, after it committed."""
FLUSH_SECONDS = 5.0


class Orders:
    """At which point the process dies, and how often it has passed it until then."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.said = said
        self._left: int = said["passing"]
        self._lock = threading.Lock()

    def passes(self, point: str) -> bool:
        """Whether this is the moment."""
        if point != self.said["point"]:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0


ORDERS = Orders(json.loads(sys.argv[1]) if __name__ == "__main__" else {"point": "", "passing": 0})


class DoomedProducer(Producer):
    """The client's own producer. A transactional one ends its process at the ordered moment."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self._counts = "transactional.id" in config

    def begin_transaction(self, *arguments: Any) -> None:
        self._at(READ)
        super().begin_transaction(*arguments)

    def produce(self, topic: str, *arguments: Any, **named: Any) -> None:
        super().produce(topic, *arguments, **named)
        self._at(POSITION if topic == ORDERS.said["positions"] else PRODUCED)

    def send_offsets_to_transaction(self, *arguments: Any) -> None:
        self._at(WRITTEN)
        super().send_offsets_to_transaction(*arguments)
        self._at(OFFSETS)

    def commit_transaction(self, *arguments: Any) -> None:
        if self._counts and ORDERS.passes(COMMITTING):
            # The commit is on its way, and nobody knows how far it comes.
            threading.Timer(ORDERS.said["delay"], _die).start()
        super().commit_transaction(*arguments)
        self._at(COMMITTED)

    def _at(self, point: str) -> None:
        if self._counts and ORDERS.passes(point):
            if point in {PRODUCED, POSITION, WRITTEN}:
                self.flush(FLUSH_SECONDS)  # what was produced lies in the log, and is aborted there
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    """Runs the worker until it is told to end."""
    said = ORDERS.said
    configure_logging("info", style="text")
    names = Names(said["namespace"])
    settings = WorkerSettings(KafkaSettings(said["bootstrap"]), names, Path(said["home"]), said["registry"])
    with (
        patch.object(clients, "Producer", DoomedProducer),
        # Small transactions, one after each read, so that there are many moments to die at.
        patch.object(stream, "READ_AT_ONCE", said["read_at_once"]),
        patch.object(stream, "TRANSACTION_SECONDS", 0.0),
    ):
        worker = Worker(settings)
        ended = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
        await worker.start(load_files([Path(said["project"])]))
        await ended.wait()
        await worker.close()


if __name__ == "__main__":
    asyncio.run(main())
