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
from confluent_kafka import Consumer, KafkaException, Message

from trunkline.bus.following import Following
from trunkline.bus.kafka import KafkaSettings, offset_of, read_all
from trunkline.bus.names import Names

SWEEP_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""How often it is asked whether the broker still answers: a client says nothing of a broker that went away."""
SHELVES = 4096
_ENTRY = struct.Struct(">16sd")


class Windows:
    """Keys, each known until a time (Unix seconds), in 24 bytes a key: a day of deliveries is kept in memory.

    A key's digest is its shelf and what is looked for on it. A search through the bytes of a shelf takes microseconds, and no
    table has to be built anew when it is full.
    """

    def __init__(self) -> None:
        self._shelves = [bytearray() for _ in range(SHELVES)]

    def __len__(self) -> int:
        return sum(map(len, self._shelves)) // _ENTRY.size

    def until(self, key: bytes) -> float:
        """Until when a key is known; 0 for one that is not."""
        shelf, short = self._place(key)
        at = _find(shelf, short)
        return _ENTRY.unpack_from(shelf, at)[1] if at >= 0 else 0.0

    def keep(self, key: bytes, until: float) -> None:
        """Knows a key until then."""
        shelf, short = self._place(key)
        at = _find(shelf, short)
        if at >= 0:
            _ENTRY.pack_into(shelf, at, short, until)
        else:
            shelf += _ENTRY.pack(short, until)

    def sweep(self, number: int, now: float) -> None:
        """Forgets what ended before `now` on one shelf."""
        shelf = self._shelves[number]
        kept = [entry for entry in _ENTRY.iter_unpack(shelf) if entry[1] > now]
        if len(kept) * _ENTRY.size < len(shelf):
            self._shelves[number] = bytearray(b"".join(_ENTRY.pack(*entry) for entry in kept))

    def _place(self, key: bytes) -> tuple[bytearray, bytes]:
        short = hashlib.blake2b(key, digest_size=16).digest()
        return self._shelves[int.from_bytes(short[:2], "big") % SHELVES], short


def _find(shelf: bytearray, short: bytes) -> int:
    """Where the entry of a digest begins; -1 where it is not there. What begins within an entry is chance."""
    at = shelf.find(short)
    while at >= 0 and at % _ENTRY.size:
        at = shelf.find(short, at + 1)
    return at


class AcceptedDeliveries:
    """The keys of deliveries whose window is open, of all push sources."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self._settings = settings
        self._topic = names.deliveries
        self._known = Windows()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._following = False
        self._next = 0
        """The first offset of the topic that was not read yet."""

    @property
    def following(self) -> bool:
        """Whether the broker answers: what other workers accept is not known here while it does not."""
        return self._following

    def load(self) -> None:
        """Reads the topic to its end, and follows it from there until `close`. Who comes second waits for who came first."""
        with self._loading:
            if self._thread is not None:
                return
            self._read_on()
            self._following = True
            self._thread = threading.Thread(target=self._follow, args=(self._next,), name="deliveries", daemon=True)
            self._thread.start()

    def catch_up(self) -> None:
        """Knows everything that was accepted until now, however far behind the follower is.

        For whoever can't tell whether a transaction of its own committed: its senders were refused, and come again.
        """
        with self._loading:
            self._read_on()

    def _read_on(self) -> None:
        for message in read_all(self._settings, self._topic, start=lambda _reader, _partition: self._next):
            self._take(message.key(), message.value())
            self._next = max(self._next, offset_of(message) + 1)

    def known(self, pipeline: str, key: str) -> bool:
        """Whether a delivery was accepted before, within its window."""
        with self._lock:
            return self._known.until(_record_key(pipeline, key)) > time.time()

    def record(self, pipeline: str, key: str, window: float, event_id: str) -> tuple[bytes, bytes]:
        """Key and value of the record that remembers a delivery."""
        return _record_key(pipeline, key), orjson.dumps({"v": 1, "until": time.time() + window, "id": event_id})

    def add(self, pipeline: str, key: str, window: float) -> None:
        """Remembers a delivery at once, before the topic's follower sees it."""
        with self._lock:
            self._known.keep(_record_key(pipeline, key), time.time() + window)

    def close(self) -> None:
        """Ends following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5)

    def _follow(self, offset: int) -> None:
        swept = looked = time.monotonic()

        def look(reader: Consumer) -> None:
            nonlocal swept, looked
            if time.monotonic() - looked > LOOK_SECONDS:
                self._following = not following.unheard and _answers(reader, self._topic)
                looked = time.monotonic()
            if time.monotonic() - swept > SWEEP_SECONDS:
                swept = time.monotonic()
                self._sweep()

        def failed() -> None:
            self._following = False

        def take(message: Message) -> None:
            self._take(message.key(), message.value())
            self._next = max(self._next, offset_of(message) + 1)

        following = Following(self._settings, {self._topic: offset}, take, look, failed)
        try:
            following.run(self._stop)
        finally:
            self._following = False

    def _take(self, key: bytes | None, value: bytes | None) -> None:
        if key is None or value is None:
            return
        data = orjson.loads(value)
        with self._lock:
            self._known.keep(key, data["until"])

    def _sweep(self) -> None:
        now = time.time()
        for number in range(SHELVES):
            with self._lock:
                self._known.sweep(number, now)


def _answers(reader: Consumer, topic: str) -> bool:
    try:
        reader.list_topics(topic, timeout=LOOK_SECONDS)
    except KafkaException:
        return False
    return True


def digest(key: str) -> str:
    """A delivery's key at a fixed length: what a sender chooses is not kept."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def _record_key(pipeline: str, key: str) -> bytes:
    return f"{pipeline}/{key}".encode()
