"""Following topics of one partition: what people wish and what is applied reaches every worker at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping

from confluent_kafka import TopicPartition

from trunkline.bus.kafka import KafkaSettings, end_offsets, offset_of

FOLLOW_SECONDS = 0.5
"""How often the thread looks whether it should end; a record comes at once."""

Heard = Callable[[str, bytes | None, int], None]
"""Takes a record's key, value and offset."""


class Follower:
    """Follows single-partition topics from where they ended at `mark`: every new record goes to its topic's function, on the event loop."""

    def __init__(
        self,
        settings: KafkaSettings,
        heard: Mapping[str, Heard],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._heard = heard
        self._loop = loop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._reader = settings.follower()
        self._begin: dict[str, int] = {}

    def mark(self) -> None:
        """Notes the present ends: to be called before what the topics say is read, so that nothing falls in between."""
        self._begin = {topic: end_offsets(self._settings, topic).get(0, 0) for topic in self._heard}

    def start(self) -> None:
        """Begins where `mark` was called."""
        self._reader.assign([TopicPartition(topic, 0, offset) for topic, offset in self._begin.items()])
        self._thread.start()

    def stop(self) -> None:
        """Ends following."""
        self._stop.set()
        if self._thread.ident is None:
            self._reader.close()
        elif self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                for message in [*self._reader.consume(1, FOLLOW_SECONDS), *self._reader.consume(100, 0)]:
                    if message.error() is None:
                        key = (message.key() or b"").decode()
                        heard = self._heard[message.topic() or ""]
                        self._loop.call_soon_threadsafe(heard, key, message.value(), offset_of(message))
        finally:
            self._reader.close()
