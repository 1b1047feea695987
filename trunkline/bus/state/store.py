"""One partition's state on disk: a RocksDB store that knows which changelog it copies, and how far.

The store is a copy and never the truth: one that is damaged or belongs to something else is thrown away and built anew.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson
from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

from trunkline.bus.state.entry import Entry, Record
from trunkline.core.errors import RetriableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
FORMAT = 1
OPEN_FILES = 64
WRITE_BUFFER = 4 * 2**20
CACHE_BYTES = 32 * 2**20
"""Shared by all stores of a worker, which are many and small."""
CHUNK = 256
_CACHE = Cache(CACHE_BYTES)
_CHECKPOINT = b"\x00checkpoint"
"""The reserved key: format version, changelog, offset and time. Every other key begins with _USER."""
_USER = b"\x01"
_DAMAGED = "DAMAGED"


@dataclass(frozen=True, slots=True)
class Identity:
    """Which changelog partition a store copies. `topic_id` is Kafka's: a topic of the same name made anew has another one."""

    topic: str
    topic_id: str
    partition: int


class StateStore:
    """Keys and entries of one partition. May be read from several threads; written and closed by its owner."""

    def __init__(self, folder: Path, identity: Identity) -> None:
        """Use `StateStore.open`."""
        self.identity = identity
        self.offset = 0
        """How far the changelog is in the store: the offset after the last record that is."""
        self.updated_at = 0.0
        """When the store was last known to be up to date, in Unix seconds."""
        self._folder = folder
        with self._guarded():
            self._db = Rdict(str(folder), _options())

    @classmethod
    def open(cls, folder: Path, identity: Identity) -> StateStore:
        """The store in a folder, as its last owner left it, or an empty one at offset 0.

        What is damaged, of another changelog or of a newer format is thrown away, and the log says so. Raises `RetriableError`
        while somebody else has it open, and OSError for a folder that can't be written.
        """
        if (folder / _DAMAGED).exists():
            _throw_away(folder, identity, "it was found to be damaged")
        folder.mkdir(parents=True, exist_ok=True)
        try:
            store = cls(folder, identity)
            unusable = store._read_checkpoint()
        except RetriableError as error:
            if error.code == "state.locked":
                raise
            unusable, store = str(error.message), None
        if unusable is None:
            assert store is not None
            return store
        if store is not None:
            store.throw_away(unusable)
        else:
            _throw_away(folder, identity, unusable)
        folder.mkdir(parents=True)
        return cls(folder, identity)

    @classmethod
    def of_former(cls, folder: Path, identity: Identity) -> StateStore | None:
        """The store in a folder where it copies a former changelog of the same name and partition; None where there is no such copy.

        Raises `RetriableError` while somebody else has it open.
        """
        if not folder.exists() or (folder / _DAMAGED).exists():
            return None
        try:
            store = cls(folder, identity)
            found = store._db.get(_CHECKPOINT)
            data = orjson.loads(found) if found is not None else {}
        except (RetriableError, orjson.JSONDecodeError) as error:
            if isinstance(error, RetriableError) and error.code == "state.locked":
                raise
            return None
        former = data.get("topic_id", identity.topic_id) != identity.topic_id
        if former and data.get("v") == FORMAT and data.get("partition") == identity.partition:
            return store
        store.close()
        return None

    def get(self, key: bytes) -> Entry | None:
        """The entry of a key, None where it has none."""
        with self._guarded():
            packed = self._db.get(_USER + key)
            return Entry.unpack(packed) if packed is not None else None

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
        """The keys that begin so with their entries, in the order of their bytes, as they are when each is reached."""
        start = whole = _USER + prefix
        while True:
            chunk = self._chunk(start, whole)
            yield from chunk
            if len(chunk) < CHUNK:
                return
            start = _USER + chunk[-1][0] + b"\x00"

    def _chunk(self, start: bytes, prefix: bytes) -> list[tuple[bytes, Entry]]:
        found: list[tuple[bytes, Entry]] = []
        with self._guarded():
            cursor = self._db.iter()
            try:
                cursor.seek(start)
                while cursor.valid() and len(found) < CHUNK and (key := cursor.key()).startswith(prefix):
                    found.append((key[1:], Entry.unpack(cursor.value())))
                    cursor.next()
                cursor.status()  # raises for what is damaged: `valid` is merely false there, as at the end
            finally:
                del cursor  # one that is alive, if only in a traceback, keeps the store from being closed
        return found

    def write(self, records: Iterable[Record], offset: int) -> None:
        """Puts records of the changelog into the store, together with the offset that they reach: both or neither."""
        batch = WriteBatch(raw_mode=True)
        for key, entry in records:
            if entry is None:
                batch.delete(_USER + key)
            else:
                batch.put(_USER + key, entry.pack())
        reached = max(offset, self.offset)
        now = time.time()
        batch.put(_CHECKPOINT, self._checkpoint(reached, now))
        with self._guarded():
            # I14: entries and the changelog offset that they reach are one write, made only for what is committed.
            self._db.write(batch)
        self.offset, self.updated_at = reached, now

    def close(self) -> None:
        """Lets go of the folder; what is in it is a checkpoint. No read may be under way."""
        with self._guarded():
            self._db.flush()
            self._db.close()

    def throw_away(self, reason: str) -> None:
        """Closes the store and deletes it."""
        self._db.close()
        _throw_away(self._folder, self.identity, reason)

    # --- the checkpoint ---

    def _checkpoint(self, offset: int, now: float) -> bytes:
        identity = self.identity
        return orjson.dumps(
            {"v": FORMAT, "topic_id": identity.topic_id, "partition": identity.partition, "offset": offset, "at": now}
        )

    def _read_checkpoint(self) -> str | None:
        """Takes up the checkpoint; returns why it can't be used, None where it can or where there is none yet."""
        with self._guarded():
            found = self._db.get(_CHECKPOINT)
        if found is None:
            return None
        try:
            data = orjson.loads(found)
            if data["v"] > FORMAT:
                return f"it has format {data['v']}, this Trunkline reads up to {FORMAT}"
            if (data["topic_id"], data["partition"]) != (self.identity.topic_id, self.identity.partition):
                return "it is a copy of another topic"
            self.offset, self.updated_at = int(data["offset"]), float(data["at"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            return f"its checkpoint can't be read: {type(error).__name__}"
        return None

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Errors of RocksDB, which are plain exceptions with a text, as ours. A damaged store is marked, and built anew next time."""
        try:
            yield
        except RetriableError:
            raise
        except Exception as error:
            text = str(error)
            if "lock hold by" in text or "While lock file" in text:
                raise RetriableError(f"{self._folder} is in use: {text}", code="state.locked") from error
            with _unwritable_allowed():
                (self._folder / _DAMAGED).touch()
            raise RetriableError(
                f"the state store can't be used: {text}", where=str(self._folder), code="state.damaged"
            ) from error


@contextmanager
def _unwritable_allowed() -> Iterator[None]:
    """The mark is a hint: where it can't be written, the next opening finds the damage by itself."""
    try:
        yield
    except OSError as error:
        log.warning("a damaged state store can't be marked", reason=str(error))


def _throw_away(folder: Path, identity: Identity, reason: str) -> None:
    log.warning(
        "a local state store is thrown away and built anew",
        topic=identity.topic,
        partition=identity.partition,
        folder=str(folder),
        reason=reason,
    )
    shutil.rmtree(folder)


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(WRITE_BUFFER)
    options.set_max_background_jobs(2)
    options.set_max_open_files(OPEN_FILES)
    options.set_keep_log_file_num(1)
    options.set_max_manifest_file_size(2**20)
    table = BlockBasedOptions()
    table.set_block_cache(_CACHE)
    options.set_block_based_table_factory(table)
    return options
