"""Following topics of one partition: what people wish and what is applied reaches every worker at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import Message

from trunkline.bus.following import Following
from trunkline.bus.kafka import KafkaSettings, end_offsets, offset_of

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
        self._thread: threading.Thread | None = None
        self._begin: dict[str, int] = {}
        self._following: Following | None = None

    def unheard(self) -> list[dict[str, Any]]:
        """The topics that can't be followed now, as data: since when, why, and what to do."""
        found = self._following.unheard if self._following is not None else {}
        return [{"topic": topic, "since": one.since, **one.error.as_dict()} for topic, one in sorted(found.items())]

    def mark(self) -> None:
        """Notes the present ends: to be called before what the topics say is read, so that nothing falls in between."""
        self._begin = {topic: end_offsets(self._settings, topic).get(0, 0) for topic in self._heard}

    def start(self) -> None:
        """Begins where `mark` was called."""
        self._following = Following(self._settings, self._begin, self._take)
        self._thread = threading.Thread(target=self._following.run, args=(self._stop,), name="follower", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _take(self, message: Message) -> None:
        key, heard = (message.key() or b"").decode("utf-8", "backslashreplace"), self._heard[message.topic() or ""]
        self._loop.call_soon_threadsafe(heard, key, message.value(), offset_of(message))
