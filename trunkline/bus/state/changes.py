"""Changes to a store that are not committed yet: whoever makes them reads them, and nobody else does."""

from __future__ import annotations

from collections.abc import Iterator

from trunkline.bus.state.entry import Entry, Record
from trunkline.bus.state.store import StateStore


class Changes:
    """Puts and deletes over a store. Not thread-safe. After `apply` or `discard` it is empty and may be used again."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self._changed: dict[bytes, Entry | None] = {}

    def __len__(self) -> int:
        return len(self._changed)

    def put(self, key: bytes, entry: Entry) -> None:
        """Keeps an entry under a key."""
        self._changed[key] = entry

    def delete(self, key: bytes) -> None:
        """Forgets a key, known or not."""
        self._changed[key] = None

    def get(self, key: bytes) -> Entry | None:
        """The entry of a key, None where it has none."""
        if key in self._changed:
            return self._changed[key]
        return self._store.get(key)

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Entry]]:
        """The keys that begin so with their entries, in the order of their bytes, as they are when each is reached."""
        stored = self._store.items(prefix)
        kept = next(stored, None)
        for key in sorted(key for key in self._changed if key.startswith(prefix)):
            while kept is not None and kept[0] < key:
                yield kept
                kept = next(stored, None)
            if kept is not None and kept[0] == key:
                kept = next(stored, None)
            entry = self._changed[key]
            if entry is not None:
                yield key, entry
        while kept is not None:
            yield kept
            kept = next(stored, None)

    def records(self) -> list[Record]:
        """What belongs into the changelog: one record a key, its last."""
        return list(self._changed.items())

    def apply(self, offset: int) -> None:
        """The transaction with the records committed: the store gets them. `offset` is the changelog's after the last of them.

        An offset that is too low is safe: what lies between is read again at the next start and says the same.
        """
        self._store.write(self._changed.items(), offset)
        self._changed = {}

    def discard(self) -> None:
        """The transaction was aborted: none of this was."""
        self._changed = {}
