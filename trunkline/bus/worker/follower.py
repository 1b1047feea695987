"""Following topics of one partition: what people wish and what is applied reaches every worker at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from confluent_kafka import TopicPartition

from trunkline.bus.kafka import KafkaSettings, end_offsets, offset_of

FOLLOW_SECONDS = 0.5
"""How often the thread looks whether it should end; a record comes at once."""


class Follower:
    """Follows single-partition topics from where they ended at `mark`, and hands every new record to a function on the event loop."""

    def __init__(
        self,
        settings: KafkaSettings,
        topics: list[str],
        followed: Callable[[str, str, bytes | None, int], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._settings = settings
        self._topics = topics
        self._followed = followed
        self._loop = loop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._reader = settings.follower()
        self._begin: dict[str, int] = {}

    def mark(self) -> None:
        """Notes the present ends: to be called before what the topics say is read, so that nothing falls in between."""
        self._begin = {topic: end_offsets(self._settings, topic).get(0, 0) for topic in self._topics}

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
                        about = (message.topic() or "", key, message.value(), offset_of(message))
                        self._loop.call_soon_threadsafe(self._followed, *about)
        finally:
            self._reader.close()
