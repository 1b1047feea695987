"""CSV rows out of blocks of bytes, with the exact byte at which each record begins.

The csv module decides what a record is, also where quoted fields span lines; how many lines it took tells how many bytes. A
block without a quote needs no such care: there each line is a record.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from connectors.file.records import Block, Place, cut_lines
from connectors.file.settings import CsvOptions
from trunkline.core.contracts import RejectedInput, SourceEvent

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Layout:
    """The head of a file: its columns, how many bytes and lines come before the data, and why the columns can't be told."""

    columns: tuple[str, ...]
    consumed: int
    lines: int
    unusable: str | None = None


class CsvRows:
    """Rows of one dialect. Needs the layout of each file, from `layout`."""

    def __init__(self, options: CsvOptions, encoding: str, max_line: int) -> None:
        self._options = options
        self.encoding = encoding
        self.delimiter = options.delimiter
        self.max_line = max_line
        self.nulls = frozenset(options.null_values)
        quoting = csv.QUOTE_NONE if options.quotechar is None else csv.QUOTE_MINIMAL
        self.dialect: dict[str, Any] = {
            "delimiter": options.delimiter,
            "quotechar": options.quotechar,
            "escapechar": options.escapechar,
            "quoting": quoting,
            "strict": True,
        }
        specials = [options.quotechar, options.escapechar]
        self.specials = [character.encode() for character in specials if character is not None]
        # The csv module's limit is the process's: raised where rows may be longer, never lowered under another's feet.
        csv.field_size_limit(max(csv.field_size_limit(), max_line))

    def layout(self, head: bytes, *, final: bool) -> Layout | None:
        """What stands before the data, from the first bytes of a file; None if more of them are needed."""
        options = self._options
        at = len(BOM) if self.encoding == "utf-8" and head.startswith(BOM) else 0
        for _ in range(options.skip_rows):
            end = head.find(b"\n", at)
            if end < 0:
                return None if not final else Layout(tuple(options.columns or ()), len(head), options.skip_rows)
            at = end + 1
        if not options.header:
            return Layout(tuple(options.columns or ()), at, options.skip_rows)
        lines, consumed = cut_lines(head[at:], 1000, final=final)
        text, _ = self.decoded(head[at : at + consumed])
        row, used, problem = next(self.records(_keep_ends(text)), ([], 0, "there is no header"))
        if used == 0 or used > len(lines):
            return (
                None
                if not final and len(head) <= self.max_line
                else Layout((), at, options.skip_rows, problem or "the header has no end")
            )
        size = min(sum(len(line) + 1 for line in lines[:used]), len(head) - at)
        columns = tuple(options.columns or row)
        if problem is None and not options.columns:
            problem = _unusable(columns)
        return Layout(columns, at + size, options.skip_rows + used, problem)

    def reader(self, layout: Layout) -> _Rows:
        """The reader of the rows of one file."""
        return _Rows(self, layout)

    def null_mark(self, block: bytes) -> bytes | None:
        """Bytes that every line of a block that holds a null contains, or None if nothing so simple can be said."""
        present = [value.encode(self.encoding, "replace") for value in self.nulls if value]
        present = [value for value in present if value in block]
        delimiter = self.delimiter.encode()
        if "" in self.nulls:
            empty = (delimiter * 2, delimiter + b"\n", delimiter + b"\r", b"\n" + delimiter, b"\n\n", b"\n\r")
            ends = block.startswith(delimiter) or block.endswith(delimiter)
            if ends or any(pair in block for pair in empty):
                return None
        if len(present) > 1:
            return None
        return present[0] if present else b"\n"

    def decoded(self, data: bytes) -> tuple[str, bool]:
        """The text, and whether bytes in it could not be decoded (they become lone surrogates)."""
        try:
            return data.decode(self.encoding), False
        except UnicodeDecodeError:
            return data.decode(self.encoding, "surrogateescape"), True

    def records(self, lines: Iterator[str]) -> Iterator[tuple[list[str], int, str | None]]:
        """Each record with the number of lines up to its end and what is wrong with it. One that is cut off is not given."""
        ended = False

        def feed() -> Iterator[str]:
            nonlocal ended
            yield from lines
            ended = True

        reader = csv.reader(feed(), **self.dialect)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if ended:
                    return
                yield [], reader.line_num, f"the row is no CSV: {self._explained(error)}"
            else:
                # Asked for a line after the last one, the reader was inside a quoted field.
                if ended:
                    return
                yield row, reader.line_num, None

    def _explained(self, error: csv.Error) -> str:
        """What the csv module found, with what to do about it: its own words are for who opens files in Python."""
        said = str(error)
        if said.startswith("new-line character"):
            return "a carriage return stands in a field without quotes; put the field in quotes, or end lines with a line feed"
        if "expected after" in said:
            twice = "twice" if self._options.escapechar is None else f"after {self._options.escapechar}"
            return (
                f"after the closing quote comes neither {self.delimiter!r} nor the end of the line;"
                f" write a quote that is content {twice}"
            )
        if said.startswith("field larger"):
            return f"a field is longer than {csv.field_size_limit()} characters; raise `max_line`"
        return "it can't be split into fields; look at its quotes and escapes"


class _Rows:
    """The rows of one file."""

    def __init__(self, rows: CsvRows, layout: Layout) -> None:
        self._csv = rows
        self._layout = layout

    def read(self, data: bytes, place: Place, *, limit: int, final: bool) -> Block:
        lines, consumed = cut_lines(data, limit, final=final)
        if not lines:
            return Block()
        taken = data if consumed == len(data) else data[:consumed]
        text, damaged = self._csv.decoded(taken)
        short = consumed <= self._csv.max_line or max(map(len, lines)) <= self._csv.max_line
        if short and not any(special in taken for special in self._csv.specials):
            rows = self._rows_of_lines(text, taken)
            if rows is not None:
                block = Block(consumed=consumed, lines=len(lines))
                self._take(block, zip(rows, lines, strict=True), place, self._csv.null_mark(taken), damaged)
                return block
        return self._with_care(lines, text, len(taken), place, final=final and consumed == len(data))

    def _rows_of_lines(self, text: str, taken: bytes) -> Iterable[list[str]] | None:
        """Each line's row where no quote can join lines; None where a row is bad and they must be taken one by one."""
        plain = text.split("\n")
        if taken.endswith(b"\n"):
            plain.pop()
        if b"\r" not in taken and len(self._layout.columns) > 1:
            # Without quotes, escapes and carriage returns a row is its line split, in half the csv module's time.
            return map(str.split, plain, repeat(self._csv.delimiter))
        try:
            return list(csv.reader(plain, **self._csv.dialect))
        except csv.Error:
            return None

    def _take(
        self, block: Block, records: Iterable[tuple[list[str], bytes]], place: Place, null: bytes | None, damaged: bool
    ) -> None:
        """Rows that are one line each. A line without the bytes `null`, if there are such, holds no null."""
        columns, nulls = self._layout.columns, self._csv.nulls
        width, name, tag, unusable = len(columns), place.name, place.tag, self._layout.unusable
        offset, number = place.offset, place.line
        take = block.events.append
        for row, line in records:
            if len(row) == width and not damaged and unusable is None:
                # Looking for the bytes in the line is cheaper than hashing every cell.
                if (null is None or null in line) and not nulls.isdisjoint(row):
                    row = [None if cell in nulls else cell for cell in row]  # type: ignore[misc]  # noqa: PLW2901
                take(
                    SourceEvent(
                        dict(zip(columns, row, strict=False)),
                        f"{tag}-{offset}",
                        None,
                        None,
                        name,
                        None,
                        None,
                        None,
                        None,
                        line,
                        f"{name}:{number}",
                    )
                )
            elif row and line:
                self._judge(block, row, line, Place(name, tag, offset, number), None)
            offset += len(line) + 1
            number += 1

    def _with_care(self, lines: list[bytes], text: str, size: int, place: Place, *, final: bool) -> Block:
        """Rows that may span lines."""
        block = Block()
        texts = list(_keep_ends(text))
        while block.lines < len(lines):
            first = block.lines
            for row, used, problem in self._csv.records(iter(texts[first:])):
                self._record(block, row, lines[block.lines : first + used], place, problem)
            if block.lines == len(lines):
                break
            # The rest is one record without its end. If none can come, its first line is bad and the next may be good.
            if not final and size - block.consumed <= self._csv.max_line:
                break
            self._record(block, [], lines[block.lines : block.lines + 1], place, "a quoted field has no end")
        block.consumed = min(block.consumed, size)
        return block

    def _record(self, block: Block, row: list[str], lines: list[bytes], place: Place, problem: str | None) -> None:
        raw = lines[0] if len(lines) == 1 else b"\n".join(lines)
        here = Place(place.name, place.tag, place.offset + block.consumed, place.line + block.lines)
        if row or problem:
            self._judge(block, row, raw, here, problem)
        block.consumed += len(raw) + 1
        block.lines += len(lines)

    def _judge(self, block: Block, row: list[str], raw: bytes, place: Place, problem: str | None) -> None:
        columns, nulls = self._layout.columns, self._csv.nulls
        where = f"{place.name}:{place.line}"
        problem = problem or self._layout.unusable
        if len(raw) > self._csv.max_line:
            raw = raw[: self._csv.max_line]
            problem = f"the row is longer than {self._csv.max_line} bytes; only its beginning is kept"
        if problem is None and len(row) != len(columns):
            problem = f"the row has {len(row)} columns, the file has {len(columns)}"
        if problem is None and _ESCAPED_BYTE.search("".join(row)):
            problem = f"the row is not {self._csv.encoding}"
        if problem is not None:
            block.rejected.append(RejectedInput(raw, problem, where))
            return
        value = {name: None if cell in nulls else cell for name, cell in zip(columns, row, strict=True)}
        block.events.append(
            SourceEvent(value, id=f"{place.tag}-{place.offset}", subject=place.name, raw=raw, place=where)
        )


def _keep_ends(text: str) -> Iterator[str]:
    """The lines of a text with their line feeds; no other character ends a line."""
    return iter(io.StringIO(text, newline="\n"))


def _unusable(columns: tuple[str, ...]) -> str | None:
    if not columns:
        return "the header is empty"
    if "" in columns:
        return f"the header names no column at position {columns.index('') + 1}"
    twice = sorted({name for name in columns if columns.count(name) > 1})
    return f"the header names the column {twice[0]!r} twice" if twice else None
