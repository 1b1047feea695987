"""The `file` source: rows, lines and documents out of a file or a folder that others write to."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from connectors.file.archive import move_file
from connectors.file.folder import Folder
from connectors.file.progress import MOST_FOLLOWED, Ledger, Progress, Seen, begun
from connectors.file.reading import FileReading
from connectors.file.root import Root
from connectors.file.settings import CsvOptions, FileSettings
from trunkline.core.contracts import PluginContext, Position, RejectedInput, Source, SourceBatch, SourceEvent
from trunkline.core.contracts import Progress as SourceProgress
from trunkline.core.errors import ConfigurationError, RetriableError
from trunkline.core.folders import make_folder, opened_folder
from trunkline.core.uses import Columns

_MOST_BYTES = 4 * 2**20
"""How much of files one poll reads at most, give or take a chunk: a batch of long rows must fit into memory."""
_POLL_SECONDS, _IDLE_POLL_SECONDS, _QUIET_SECONDS = 1.0, 2.0, 10.0
_NOTHING_READ = Ledger().dump()


class FileSource(Source):
    """Reads CSV, JSON Lines and JSON, follows files that grow, are rotated or truncated, and keeps bad rows apart."""

    settings_type = FileSettings
    summary: ClassVar[str] = "CSV, JSON Lines and JSON from a file or a watched folder."

    def __init__(self, settings: FileSettings, connection: Any = None) -> None:
        super().__init__(settings, connection)
        self.clock: Callable[[], float] = time.time
        self._root: Root | None = None
        self._folder: Folder | None = None
        self._reading: FileReading | None = None
        self.stalled: dict[tuple[int, int], tuple[int, int, bool]] = {}
        self._resumed = False
        self._last_found = time.monotonic()

    @property
    def textual(self) -> bool:
        """Whether values are text that has to be cast to the topic's schema: CSV knows no other type."""
        return bool(self.settings.format == "csv")

    @property
    def extra_columns(self) -> Literal["refuse", "ignore"]:
        """What the cast does with columns that the topic's schema does not have."""
        choice: Literal["refuse", "ignore"] = self.settings.csv.extra_columns
        return choice

    @property
    def columns(self) -> Columns | None:
        """The columns of a CSV file, where the settings name them."""
        csv: CsvOptions = self.settings.csv
        named = csv.columns if self.settings.format == "csv" else None
        return Columns(tuple(named), "config.csv.columns") if named is not None else None

    async def open(self, context: PluginContext) -> None:
        settings: FileSettings = self.settings
        path = Path(settings.path)
        root = path if settings.pattern is not None else path.parent
        if not root.is_dir():
            raise ConfigurationError(
                f"there is no folder {str(root)!r}", hint="create it, or correct `path`", code="file.folder"
            )
        if settings.pattern is None and path.is_dir():
            raise ConfigurationError(
                f"{settings.path!r} is a folder", hint='add `pattern`, such as "*.csv"', code="file.folder"
            )
        if settings.pattern is None and not settings.watch and not path.exists():
            raise ConfigurationError(f"there is no file {settings.path!r}", hint="correct `path`", code="file.missing")
        self._root = Root(root, settings.links, context.log)
        with self._root.opened() as folder:
            leads_out = settings.pattern is None and self._root.leads_out(path.name, folder)
        if leads_out:
            raise ConfigurationError(
                f"{settings.path!r} is a link that leads out of its folder",
                hint="name the file that it leads to, or set `links: follow` within the folders that the worker allows",
                code="file.link",
            )
        if settings.move_to is not None:
            try:
                make_folder(settings.move_to, "move_to")
            except OSError as error:
                raise ConfigurationError(
                    f"the folder {settings.move_to!r} can't be made: {error.strerror}", code="file.move_to"
                ) from error
        self._folder = Folder(settings, self._root, context.log)
        self._reading = FileReading(settings, context.pipeline, self._root)

    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        return await asyncio.to_thread(self._poll, position)

    async def committed(self, split: str, position: Position) -> None:
        if self.settings.when_done != "leave":
            await asyncio.to_thread(self._put_away, Ledger.load(position))

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.close()

    def _poll(self, position: Position | None) -> SourceBatch:
        assert self._folder is not None, "poll before open"
        assert self._reading is not None, "poll before open"
        settings: FileSettings = self.settings
        ledger = Ledger.load(position)
        if not self._resumed:
            # The position that a start finds was acknowledged; what the last run had no time to put away is put away now.
            self._resumed = True
            if settings.when_done != "leave":
                self._put_away(ledger)
        listing = self._folder.listing(ledger)
        if settings.when_done != "leave":
            present = {file.key for file in listing}
            for key in [key for key, entry in ledger.files.items() if entry.state == "d" and key not in present]:
                del ledger.files[key]
        gathered = _Gathered(self, self._reading, ledger, listing, self._folder.resolve(listing, ledger))
        more = gathered.gather()
        reached = ledger.dump()
        moved = reached != (_NOTHING_READ if position is None else position)
        if moved:
            self._last_found = time.monotonic()
        return SourceBatch(
            gathered.events,
            gathered.rejected,
            position=reached if moved else position,
            pause=0.0 if more else self._interval(),
            finished=not more and not settings.watch,
            progress=self._progress(self._reading, listing, ledger),
        )

    def _interval(self) -> float:
        """How long until the next look. Looks that find nothing are most of what an idle source costs."""
        if self.settings.poll_interval is not None:
            return float(self.settings.poll_interval)
        return _POLL_SECONDS if time.monotonic() - self._last_found < _QUIET_SECONDS else _IDLE_POLL_SECONDS

    def _progress(self, reading: FileReading, listing: list[Seen], ledger: Ledger) -> SourceProgress | None:
        """How much was read of the files that are there. A JSON document is parsed whole: of it nothing can be said between."""
        if self.settings.format == "json" or not listing:
            return None
        done = 0
        unread: list[Seen] = []
        for file in listing:
            entry = ledger.files.get(file.key)
            read = file.size if entry is None and ledger.is_old(file) else reading.bytes_done(file, entry)
            done += read
            if read < file.size:
                unread.append(file)
        what = min(unread, key=lambda file: file.order).name if unread else listing[-1].name
        others = len(listing) - 1
        return SourceProgress(
            done, sum(file.size for file in listing), what if not others else f"{what} and {others} more"
        )

    def is_complete(self, file: Seen) -> bool:
        """Whether nobody seems to write to a file any more."""
        return not self.settings.watch or self.clock() - file.ctime / 1e9 >= self.settings.idle

    def is_settled(self, file: Seen) -> bool:
        """Whether a file may be read: it was not changed for a while, where that is asked for."""
        settings: FileSettings = self.settings
        wait = settings.settle_seconds
        if settings.settle is None and settings.compression == "auto" and file.name.endswith(".gz"):
            wait = max(wait, 2.0)
        return not settings.watch or self.clock() - file.ctime / 1e9 >= wait

    def takes_the_rest(self, file: Seen) -> bool:
        """Whether what has no end is taken as it is."""
        plain_lines = self.settings.format != "json" and not file.name.endswith(".gz")
        return self.is_complete(file) and not (plain_lines and self.settings.final_line == "wait")

    def _put_away(self, ledger: Ledger) -> None:
        """Moves or deletes the done files that are still as they were when they were read."""
        assert self._folder is not None, "committed before open"
        done = {key: entry for key, entry in ledger.files.items() if entry.state == "d"}
        if not done:
            return
        for file in self._folder.listing(ledger):
            entry = done.get(file.key)
            if entry is not None and file.size == entry.base and (file.mtime == entry.mtime or not file.size):
                try:
                    self._put_one_away(file)
                except OSError as error:
                    raise RetriableError(
                        f"a done file can't be put away: {error.strerror}", where=file.path, code="file.put_away"
                    ) from error

    def _put_one_away(self, file: Seen) -> None:
        """Raises OSError, and `ConfigurationError` where the folder for it is not allowed any more."""
        assert self._root is not None, "committed before open"
        with self._root.opened() as folder:
            if self._root.seen(file.name, folder) != file:
                return  # another one has its name by now
            if self.settings.when_done == "delete":
                with suppress(FileNotFoundError):
                    os.unlink(file.name, dir_fd=folder)
                return
            with opened_folder(self.settings.move_to, "move_to") as target:
                move_file(file.name, folder, lambda: self._opened(file, folder), target)

    def _opened(self, file: Seen, folder: int) -> int:
        assert self._root is not None
        handle = self._root.open_in(file, folder)
        if handle is None:
            raise FileNotFoundError(file.path)
        return handle


class _Gathered:
    """One poll: turns at the files in their order until the batch is full."""

    def __init__(
        self,
        source: FileSource,
        reading: FileReading,
        ledger: Ledger,
        listing: list[Seen],
        files: list[tuple[Seen, Progress | None]],
    ) -> None:
        self.events: list[SourceEvent] = []
        self.rejected: list[RejectedInput] = []
        self._source = source
        self._reading = reading
        self._settings: FileSettings = source.settings
        self._ledger = ledger
        self._listing = listing
        self._files = files
        self._bytes = 0

    def gather(self) -> bool:
        """Reads; says whether there is more at once."""
        for number, (file, known) in enumerate(self._files):
            entry = known
            if self._settings.format == "json" and entry is not None and file.size != entry.base:
                entry = None  # a document that was changed is another document
            entry = self._take(file, entry)
            read = entry is not None and entry.state not in ("r", "s")
            if not self._is_full() or read:
                self._finish(file, entry)
            if self._is_full() and (not read or number + 1 < len(self._files)):
                self._shrink()
                return True
        self._shrink()
        return False

    def _is_full(self) -> bool:
        return len(self.events) + len(self.rejected) >= self._settings.batch or self._bytes >= _MOST_BYTES

    def _take(self, file: Seen, entry: Progress | None) -> Progress | None:
        """Turns at one file until it has no more or the batch is full."""
        source, stalled = self._source, self._source.stalled
        final = source.takes_the_rest(file)
        while not self._is_full():
            if entry is not None and entry.state in ("e", "d") and file.size <= entry.base:
                break
            witness = (file.size, file.mtime, final)
            if stalled.get(file.key) == witness:
                break
            if not source.is_settled(file) or (entry is None and self._follows_too_many()):
                break
            if entry is None and file.size == 0 and self._settings.format != "json":
                break
            found = self._reading.read(
                file,
                entry or begun(file),
                limit=self._settings.batch - len(self.events) - len(self.rejected),
                final=final,
                generation=self._ledger.generation + 1,
            )
            if found is None:
                break
            if found.progress is None:
                if len(stalled) > 4096:
                    stalled.clear()
                stalled[file.key] = witness
                break
            if found.progress.tag and found.progress.tag != (entry.tag if entry else ""):
                self._ledger.generation += 1
            self._bytes += max(found.progress.offset - (entry.offset if entry else 0), 1)
            entry = found.progress
            self._ledger.put(entry)
            self.events.extend(found.events)
            self.rejected.extend(found.rejected)
            if entry.state == "e" and file.size <= entry.base:
                break
        return entry

    def _finish(self, file: Seen, entry: Progress | None) -> None:
        """Marks a file done that was read to its end and is not written to any more."""
        if entry is None:
            if file.size == 0 and self._settings.format != "json" and self._source.is_complete(file):
                self._ledger.put(replace(begun(file), state="d"))
            return
        read = entry.state in ("e", "d") and file.size == entry.base
        if read and self._source.is_complete(file) and (entry.state, entry.mtime) != ("d", file.mtime):
            self._ledger.put(replace(entry, state="d", mtime=file.mtime))

    def _follows_too_many(self) -> bool:
        if len(self._ledger.files) >= MOST_FOLLOWED:
            self._shrink()
        return len(self._ledger.files) >= MOST_FOLLOWED

    def _shrink(self) -> None:
        ledger = self._ledger
        unread = [file for file, _ in self._files if file.key not in ledger.files and not ledger.is_old(file)]
        ledger.shrink(self._listing, unread)
