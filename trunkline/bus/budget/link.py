"""The way of claims to and from Kafka: one thread a worker, which is there only while something is limited."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

from confluent_kafka import KafkaException, Message, TopicPartition

from trunkline.bus.budget.claim import Claim
from trunkline.bus.kafka import KafkaSettings, UnawaitedProducer, end_offsets, offset_of, records_of, watermarks
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
AGAIN = 2.0
"""Seconds before a lost connection is made anew."""

Heard = tuple[Claim, float, float]
"""A claim, when the broker appended it (Unix seconds), and when it was received (our monotonic seconds)."""


class Link:
    """Reads the budget topic from its beginning and follows it; writes claims. What was read is handed to the event loop in order."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        loop: asyncio.AbstractEventLoop,
        heard: Callable[[Sequence[Heard]], None],
        read: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._loop = loop
        self._heard = heard
        self._read = read
        self._stop = threading.Event()
        self._producer = UnawaitedProducer(settings, linger_ms=0)
        self._thread = threading.Thread(target=self._run, name="budgets", daemon=True)

    def start(self) -> None:
        """Begins to read."""
        self._thread.start()

    def write(self, claim: Claim) -> None:
        """Writes a claim, without waiting: what does not arrive is claimed again."""
        self._producer.write(self._topic, claim.to_record(), claim.key)

    def stop(self) -> None:
        """Writes what is left and ends. Blocks."""
        self._producer.flush(5)
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        position: int | None = None
        while not self._stop.is_set():
            try:
                position = self._follow(position)
            except (KafkaException, TrunklineError) as error:
                log.warning("budgets can't be followed; slices lapse until they can", reason=str(error))
                self._stop.wait(AGAIN)

    def _follow(self, position: int | None) -> int:
        """Reads on from a position, from the beginning where there is none, until the end of the link."""
        reader = self._settings.reader()
        try:
            first, _ = watermarks(reader, self._topic, 0)
            end = end_offsets(self._settings, self._topic).get(0, 0)
            caught_up = position is not None
            if position is None or not first <= position <= end:
                position = first  # from the beginning also where the topic is another one now
            reader.assign([TopicPartition(self._topic, 0, position)])
            while not self._stop.is_set():
                if not caught_up and position >= end:
                    caught_up = True
                    self._loop.call_soon_threadsafe(self._read, time.monotonic())
                messages = reader.consume(1, 0.2)
                if messages:
                    messages += reader.consume(1000, 0)
                    position = self._hand_over(messages, position)
                elif not caught_up:
                    position = max(position, reader.position([TopicPartition(self._topic, 0)])[0].offset)
            return position
        finally:
            reader.close()

    def _hand_over(self, messages: Sequence[Message], position: int) -> int:
        received = time.monotonic()
        found: list[Heard] = []
        for message in records_of(messages, "budgets can't be followed"):
            position = offset_of(message) + 1
            value = message.value()
            if value is not None:
                found.append((Claim.from_record(value), message.timestamp()[1] / 1000, received))
        if found:
            self._loop.call_soon_threadsafe(self._heard, found)
        return position
