"""The deliveries that were accepted, known by every worker: a repetition is recognised wherever it arrives, also after a restart.

Their keys are written to `_trunkline.deliveries` in the transaction that publishes their events. A worker follows that topic
with one reader, however many push sources it serves.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import time

import orjson
from confluent_kafka import TopicPartition

from trunkline.bus.kafka import KafkaSettings, offset_of, read_all
from trunkline.bus.names import Names

SWEEP_SECONDS = 60.0
FOLLOW_SECONDS = 0.5
_UNTIL = struct.Struct(">d")


class AcceptedDeliveries:
    """The keys of deliveries whose window is open, of all push sources, each with the event that it became."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._topic = names.deliveries
        # A day of deliveries is kept: bytes are half as large as the texts and tuples that they stand for.
        self._known: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def load(self) -> None:
        """Reads the topic to its end, and follows it from there until `close`. Who comes second waits for who came first."""
        with self._loading:
            if self._thread is not None:
                return
            following = 0
            for message in read_all(self._settings, self._topic):
                self._take(message.key(), message.value())
                following = offset_of(message) + 1
            self._thread = threading.Thread(target=self._follow, args=(following,), name="deliveries", daemon=True)
            self._thread.start()

    def known(self, pipeline: str, key: str) -> str | None:
        """The event id that a delivery became, or None when it is new."""
        with self._lock:
            found = self._known.get(_short(_record_key(pipeline, key)))
        return found[8:].decode() if found is not None and _UNTIL.unpack_from(found)[0] > time.time() else None

    def record(self, pipeline: str, key: str, window: float, event_id: str) -> tuple[bytes, bytes]:
        """Key and value of the record that remembers a delivery."""
        return _record_key(pipeline, key), orjson.dumps({"v": 1, "until": time.time() + window, "id": event_id})

    def add(self, pipeline: str, key: str, window: float, event_id: str) -> None:
        """Remembers a delivery at once, before the topic's follower sees it."""
        with self._lock:
            self._known[_short(_record_key(pipeline, key))] = _UNTIL.pack(time.time() + window) + event_id.encode()

    def close(self) -> None:
        """Ends following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _follow(self, offset: int) -> None:
        reader = self._settings.follower()
        try:
            reader.assign([TopicPartition(self._topic, 0, offset)])
            swept = time.monotonic()
            while not self._stop.is_set():
                for message in [*reader.consume(1, FOLLOW_SECONDS), *reader.consume(500, 0)]:
                    if message.error() is None:
                        self._take(message.key(), message.value())
                if time.monotonic() - swept > SWEEP_SECONDS:
                    swept = time.monotonic()
                    self._sweep()
        finally:
            reader.close()

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if key is None or value is None:
            return
        data = orjson.loads(value)
        with self._lock:
            self._known[_short(key)] = _UNTIL.pack(data["until"]) + data["id"].encode()

    def _sweep(self) -> None:
        now = time.time()
        with self._lock:
            for key in [key for key, found in self._known.items() if _UNTIL.unpack_from(found)[0] <= now]:
                del self._known[key]


def digest(key: str) -> str:
    """A delivery's key at a fixed length: what a sender chooses is not kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _record_key(pipeline: str, key: str) -> bytes:
    return f"{pipeline}/{key}".encode()


def _short(record_key: bytes) -> bytes:
    return hashlib.blake2b(record_key, digest_size=16).digest()
