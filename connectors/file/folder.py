"""Which files there are, and which of them were met before."""

from __future__ import annotations

import os
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from connectors.file.progress import Ledger, Progress, Seen, checksum, fingerprint, rekeyed
from connectors.file.root import Root
from connectors.file.settings import FileSettings


class Folder:
    """Lists the files of a source in reading order and finds the progress that belongs to each."""

    def __init__(self, settings: FileSettings, root: Root, log: Any) -> None:
        self._settings = settings
        self._log = log
        self._path = Path(settings.path)
        self._root = root
        self._verified: dict[tuple[int, int], tuple[int, int, str]] = {}

    def listing(self, ledger: Ledger) -> list[Seen]:
        """The files, oldest first. For a single file also its siblings, when a known file may have become one of them.

        Raises `RetriableError` when the folder can't be read.
        """
        with self._root.opened() as handle:
            found = self._found(ledger, handle)
        unique = {file.key: file for file in sorted(found, key=lambda file: file.order, reverse=True)}
        return sorted(unique.values(), key=lambda file: file.order)

    def _found(self, ledger: Ledger, handle: int) -> list[Seen]:
        if self._settings.pattern is not None:
            found = self._scan(self._matches, handle)
        else:
            own = self._root.seen(self._path.name, handle)
            known = set(ledger.files) - ({own.key} if own else set())
            truncated = own is not None and own.key in ledger.files and own.size < ledger.files[own.key].base
            found = [own] if own else []
            if known or truncated:
                found += [file for file in self._scan(lambda _: True, handle) if own is None or file.key != own.key]
        return found

    def resolve(self, listing: list[Seen], ledger: Ledger) -> list[tuple[Seen, Progress | None]]:
        """The files that concern this source, each with its progress (None: new). Entries of replaced files leave the ledger."""
        paired: list[tuple[Seen, Progress | None]] = []
        lost: list[Progress] = []
        seen = {file.key for file in listing}
        for file in listing:
            entry = ledger.files.get(file.key)
            if entry is not None and not self._continues(file, entry):
                lost.append(entry)
                del ledger.files[file.key]
                entry = None
            paired.append((file, entry))
        gone = [entry for key, entry in ledger.files.items() if key not in seen]
        resolved: list[tuple[Seen, Progress | None]] = []
        for file, known in paired:
            entry = known or self._adopted(file, lost, gone, ledger)
            if entry is not None or (self._is_ours(file) and not ledger.is_old(file)):
                resolved.append((file, entry))
        for entry in lost:
            if entry.state != "d":
                self._log.warning("file.replaced", read_until=entry.offset, hint="what was not read of it is gone")
        # Of files that were changed at once a known one comes first: it is what a new one took the place of.
        return sorted(resolved, key=lambda one: ledger.turn(one[0]) if one[1] is None else (1, (one[0].mtime, "")))

    def _is_ours(self, file: Seen) -> bool:
        return self._settings.pattern is not None or file.path == str(self._path)

    def _continues(self, file: Seen, entry: Progress) -> bool:
        """Whether an inode still holds what was read from it."""
        if file.size < entry.base:
            return False
        if (file.size, file.mtime) == (entry.base, entry.mtime):
            return True
        witness = (file.size, file.mtime, entry.mark)
        if self._verified.get(file.key) == witness:
            return True
        # Rewritten to exactly the old size: only a look at every byte can tell it from a touch.
        same = self._holds(file, entry, whole=file.size == entry.base)
        if same is None:
            return True  # renamed since the listing: the next one will tell
        if same:
            if len(self._verified) > 4096:
                self._verified.clear()
            self._verified[file.key] = witness
        return same

    def _adopted(self, file: Seen, lost: list[Progress], gone: list[Progress], ledger: Ledger) -> Progress | None:
        """The progress of a file that now has another inode: the copy made before a truncation, or one moved to another device.

        A done file that vanished is adopted only with its old mtime: a later one with the same content was sent again.
        """
        for orphans in (lost, gone):
            for entry in orphans:
                resent = orphans is gone and entry.state == "d" and file.mtime != entry.mtime
                if (
                    not entry.base
                    or resent
                    or file.size < entry.base
                    or self._holds(file, entry, whole=True) is not True
                ):
                    continue
                orphans.remove(entry)
                if orphans is gone:
                    ledger.files.pop(entry.key, None)
                adopted = rekeyed(entry, file)
                ledger.files[file.key] = adopted
                return adopted
        return None

    def _holds(self, file: Seen, entry: Progress, *, whole: bool) -> bool | None:
        """Whether a file begins with what was read before, looked at in samples or as a whole; None if it is gone."""
        handle = self._root.open(file)
        if handle is None:
            return None
        try:
            if fingerprint(handle, entry.base) != entry.mark:
                return False
            return not (whole and entry.crc) or checksum(handle, entry.base) == entry.crc
        finally:
            os.close(handle)

    def _matches(self, name: str) -> bool:
        pattern = self._settings.pattern
        return pattern is not None and fnmatchcase(name, pattern)

    def _scan(self, wanted: Callable[[str], bool], handle: int) -> list[Seen]:
        found: list[Seen] = []
        for name in self._root.names(handle):
            if wanted(name) and not any(fnmatchcase(name, pattern) for pattern in self._settings.ignore):
                file = self._root.seen(name, handle)
                if file is not None:
                    found.append(file)
        return found
