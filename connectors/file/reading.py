"""One file's next records: opens it, goes to where it stood, reads a batch and says how far that reached."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from connectors.file.documents import Document, item_result, parse_document
from connectors.file.progress import Progress, Seen, State, fingerprint
from connectors.file.records import Block, JsonLines, Place, RecordReader
from connectors.file.root import Root
from connectors.file.rows import BOM, CsvRows, Layout
from connectors.file.settings import FileSettings
from connectors.file.streams import ByteStream, DamagedError, GzipStream, PlainStream
from trunkline.core.contracts import RejectedInput, SourceEvent

_CHUNK = 512 * 1024
_TAG_OF = 1024


@dataclass(slots=True)
class Found:
    """What a turn at one file gave. `progress` is None where the file had nothing new that is whole."""

    progress: Progress | None = None
    events: Sequence[SourceEvent] = ()
    rejected: list[RejectedInput] = field(default_factory=list)


class FileReading:
    """Reads batches from files. Keeps only what is costly to find again: an unpacked stream, a parsed document, headers."""

    def __init__(self, settings: FileSettings, pipeline: str, root: Root) -> None:
        self._settings = settings
        self._root = root
        self._pipeline = pipeline
        self._csv = CsvRows(settings.csv, settings.encoding, settings.max_line) if settings.format == "csv" else None
        self._json_lines = JsonLines(settings.encoding, settings.max_line)
        self._layouts: dict[str, Layout] = {}
        self._stream: tuple[tuple[int, int], GzipStream] | None = None
        self._document: tuple[Seen, Document, bytes] | None = None

    def read(self, file: Seen, entry: Progress, *, limit: int, final: bool, generation: int) -> Found | None:
        """About `limit` records after `entry`. `final` takes the file as complete, also where its end is missing.

        None if the file is not there any more. `generation` goes into the ids of a file whose first records these are.
        Raises `RetriableError` if it may not be read.
        """
        if self._settings.format == "json":
            return self._read_document(file, entry, limit, final, generation)
        stream = self._stream_at(file, entry)
        if stream is None:
            return None
        keep = False
        try:
            turn = _Turn(stream, file, entry)
            try:
                found = self._read_records(turn, limit, final, generation)
            except DamagedError as error:
                turn.reject(stream.buffer[: self._settings.max_line], str(error))
                found = turn.reached(complete=True)
            keep = found.progress is not None and found.progress.state == "r"
        finally:
            if keep and isinstance(stream, GzipStream):
                self._stream = (file.key, stream)
            else:
                stream.close()
        return found

    def bytes_done(self, file: Seen, entry: Progress | None) -> int:
        """How many bytes of a file, as it lies on disk, were read."""
        if entry is None:
            return 0
        if entry.state in ("e", "d") or not self._is_gzip(file):
            return min(entry.base, file.size)
        # What was vouched for is the whole gzip file; only the stream at hand tells how far it was unpacked.
        unpacking = self._stream is not None and self._stream[0] == file.key
        return min(self._stream[1].read_bytes, file.size) if unpacking and self._stream is not None else 0

    def close(self) -> None:
        """Closes what is open."""
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None

    def _is_gzip(self, file: Seen) -> bool:
        wanted = self._settings.compression
        return wanted == "gzip" or (wanted == "auto" and file.name.endswith(".gz"))

    def _stream_at(self, file: Seen, entry: Progress) -> ByteStream | None:
        gzip = self._is_gzip(file)
        if gzip and self._stream is not None:
            key, stream = self._stream
            self._stream = None
            if key == file.key and stream.offset == entry.offset:
                return stream
            stream.close()
        handle = self._root.open(file)
        if handle is None:
            return None
        return GzipStream(handle) if gzip else PlainStream(handle, entry.offset)

    def _read_records(self, turn: _Turn, limit: int, final: bool, generation: int) -> Found:
        stream = turn.stream
        if isinstance(stream, GzipStream):
            stream.skip_to(turn.entry.offset)
        if turn.state == "s" and not turn.skip_line():
            return turn.reached(complete=final)
        reader = self._reader(turn, final)
        if reader is None:
            return Found()
        if not turn.tag:
            stream.fill(_CHUNK)
            turn.tag = self._tag(turn.file, generation, stream.buffer.partition(b"\n")[0])
        block = self._next_block(turn, reader, limit, final)
        if block is None:
            reason = f"the line is longer than {self._settings.max_line} bytes; only its beginning is kept"
            turn.reject(stream.buffer[: self._settings.max_line], reason)
            return turn.reached(complete=not turn.skip_line() and final)
        turn.events = block.events
        turn.rejected += block.rejected
        turn.consume(block.consumed, block.lines)
        if final and stream.ended and stream.incomplete:
            turn.reject(stream.buffer, "the gzip file ends in the middle")
            return turn.reached(complete=True)
        return turn.reached(complete=False)

    def _reader(self, turn: _Turn, final: bool) -> RecordReader | None:
        """The reader for a file, its head passed; None while the head is not whole."""
        if self._csv is None:
            if turn.entry.offset == 0:
                turn.stream.fill(_CHUNK)
                if turn.stream.buffer.startswith(BOM):
                    turn.consume(len(BOM), 0)
            return self._json_lines
        layout = self._layouts.get(turn.tag) if turn.tag else None
        if layout is None:
            layout = self._layout(turn, self._csv, final)
            if layout is None:
                return None
            if turn.tag:
                if len(self._layouts) > 64:
                    self._layouts.clear()
                self._layouts[turn.tag] = layout
        if turn.entry.offset == 0:
            turn.consume(layout.consumed, layout.lines)
        return self._csv.reader(layout)

    def _layout(self, turn: _Turn, rows: CsvRows, final: bool) -> Layout | None:
        if turn.entry.offset == 0:
            return _layout_of(turn.stream, rows, final)
        # A file of which something was read has a whole head, also if that is all it had.
        handle = os.dup(turn.stream.handle)
        head: ByteStream = GzipStream(handle) if isinstance(turn.stream, GzipStream) else PlainStream(handle, 0)
        try:
            return _layout_of(head, rows, True)
        finally:
            head.close()

    def _next_block(self, turn: _Turn, reader: RecordReader, limit: int, final: bool) -> Block | None:
        """The next whole records, none where there is no whole one yet, None where a line is too long to be read at all."""
        stream, longest, wanted = turn.stream, self._settings.max_line, _CHUNK
        place = Place(turn.file.name, turn.tag, stream.offset, turn.line)
        while True:
            stream.fill(wanted)
            if len(stream.buffer) > longest and stream.buffer.find(b"\n", 0, longest + 1) < 0:
                return None
            block = reader.read(stream.buffer, place, limit=limit, final=final and stream.ended)
            if block.consumed:
                return block
            if stream.buffer.count(b"\n") >= limit:
                limit *= 4  # one record has more lines than a batch has rows
            elif stream.ended:
                return block
            else:
                wanted = len(stream.buffer) + _CHUNK

    def _read_document(self, file: Seen, entry: Progress, limit: int, final: bool, generation: int) -> Found | None:
        document, on_disk = self._parsed(file)
        if document is None:
            return None
        if document.problem is not None and not final and not document.too_large:
            return Found()  # perhaps it is still being written
        tag = entry.tag or self._tag(file, generation, on_disk[:_TAG_OF])
        place = Place(file.name, tag, entry.offset, 1)
        found = Found()
        events: list[SourceEvent] = []
        items = document.items[entry.offset : entry.offset + limit]
        for number, item in enumerate(items, entry.offset):
            result = item_result(item, number, place, alone=document.alone)
            if isinstance(result, SourceEvent):
                events.append(result)
            else:
                found.rejected.append(result)
        if document.problem is not None:
            found.rejected.append(RejectedInput(on_disk[: self._settings.max_line], document.problem, file.name))
        found.events = events
        reached = entry.offset + len(items)
        state: State = "e" if reached >= len(document.items) else "r"
        found.progress = replace(entry, mtime=file.mtime, offset=reached, state=state, tag=tag, **document.identity)
        if state == "e":
            self._document = None
        return found

    def _parsed(self, file: Seen) -> tuple[Document | None, bytes]:
        if self._document is not None and self._document[0] == file:
            return self._document[1], self._document[2]
        handle = self._root.open(file)
        if handle is None:
            return None, b""
        limit = self._settings.max_document
        stream: ByteStream = GzipStream(handle) if self._is_gzip(file) else PlainStream(handle, 0)
        try:
            problem = None
            try:
                stream.fill(limit + 1)
                if stream.incomplete:
                    problem = "the gzip file ends in the middle"
            except DamagedError as error:
                problem = str(error)
            data = stream.buffer
            identity = {"base": file.size, "mark": fingerprint(handle, file.size), "crc": 0}
            if isinstance(stream, PlainStream) and len(data) == file.size:
                identity["crc"] = zlib.crc32(data)
        finally:
            stream.close()
        if len(data) > limit:
            document = Document(
                [], f"the document is larger than {limit} bytes; only its beginning is kept", too_large=True
            )
        elif problem is not None:
            document = Document([], problem)
        else:
            document = parse_document(data, self._settings.encoding)
        document.identity.update(identity)
        head = data[: self._settings.max_line]
        self._document = (file, document, head)
        return document, head

    def _tag(self, file: Seen, generation: int, first: bytes) -> str:
        parts = (self._pipeline.encode(), str(generation).encode(), file.name.encode("utf-8", "surrogateescape"))
        return hashlib.sha256(b"\0".join((*parts, first[:_TAG_OF]))).hexdigest()[:16]


class _Turn:
    """One turn at one file: what was used up so far, and what came of it."""

    def __init__(self, stream: ByteStream, file: Seen, entry: Progress) -> None:
        self.stream = stream
        self.file = file
        self.entry = entry
        self.state: State = "s" if entry.state == "s" else "r"
        self.line = entry.line
        self.tag = entry.tag
        self.events: list[SourceEvent] = []
        self.rejected: list[RejectedInput] = []
        self._crc = entry.crc

    def consume(self, count: int, lines: int) -> None:
        """Uses up the first bytes of the window."""
        if isinstance(self.stream, PlainStream):
            self._crc = zlib.crc32(memoryview(self.stream.buffer)[:count], self._crc)
        self.stream.advance(count)
        self.line += lines

    def reject(self, raw: bytes, reason: str) -> None:
        """What stands here can't become an event."""
        self.rejected.append(RejectedInput(raw, reason, f"{self.file.name}:{self.line}"))

    def skip_line(self) -> bool:
        """Passes over the rest of a line that is too long; False where its end is not there yet."""
        self.state = "s"
        while True:
            self.stream.fill(_CHUNK)
            end = self.stream.buffer.find(b"\n")
            if end >= 0:
                self.consume(end + 1, 1)
                self.state = "r"
                return True
            self.consume(len(self.stream.buffer), 0)
            if self.stream.ended:
                return False

    def reached(self, *, complete: bool) -> Found:
        """How far this turn came. `complete`: nothing more can be made of this file as it is."""
        stream, entry = self.stream, self.entry
        # Looked at after reading: a size that equals what was read belongs to this modification time.
        status = os.fstat(stream.handle)
        plain = isinstance(stream, PlainStream)
        base = stream.offset if plain else status.st_size
        whole = stream.ended and not stream.buffer and not stream.incomplete and stream.read_bytes >= status.st_size
        state: State = "e" if whole and self.state != "s" else self.state
        if complete:
            state, base = "e", (base if plain else status.st_size)
        same = (stream.offset, state, self.line) == (entry.offset, entry.state, entry.line)
        if same and not self.events and not self.rejected:
            return Found()
        progress = Progress(
            entry.dev,
            entry.ino,
            status.st_mtime_ns,
            base,
            stream.offset,
            self.line,
            self._crc,
            state,
            fingerprint(stream.handle, base),
            self.tag if self.events or self.rejected or stream.offset > entry.offset else entry.tag,
        )
        return Found(progress, self.events, self.rejected)


def _layout_of(stream: ByteStream, rows: CsvRows, final: bool) -> Layout | None:
    wanted = _CHUNK
    while True:
        stream.fill(wanted)
        layout = rows.layout(stream.buffer, final=final and stream.ended)
        if layout is not None or stream.ended:
            return layout
        wanted = len(stream.buffer) + _CHUNK
