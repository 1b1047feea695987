"""What a reader of records gives back, and JSON Lines, the simplest of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import orjson

from trunkline.core.contracts import RejectedInput, SourceEvent


@dataclass(frozen=True, slots=True)
class Place:
    """Where a block of bytes stands: its file's name, the offset and line of its first byte, and what event ids begin with."""

    name: str
    tag: str
    offset: int
    line: int


@dataclass(slots=True)
class Block:
    """What was found in a block: whole records only. `consumed` bytes and `lines` lines of it are used up."""

    events: list[SourceEvent] = field(default_factory=list)
    rejected: list[RejectedInput] = field(default_factory=list)
    consumed: int = 0
    lines: int = 0


class RecordReader(Protocol):
    """Cuts a block of bytes that starts at a record into records."""

    def read(self, data: bytes, place: Place, *, limit: int, final: bool) -> Block:
        """At most `limit` lines' worth of records. A last record without its end is left, unless `final`."""
        ...


def cut_lines(data: bytes, limit: int, *, final: bool) -> tuple[list[bytes], int]:
    """At most `limit` whole lines without their line feeds, and the number of bytes they take."""
    lines = data.split(b"\n", limit)
    rest = lines.pop()
    if final and rest and len(lines) < limit:
        lines.append(rest)
        return lines, len(data)
    return lines, len(data) - len(rest)


class JsonLines:
    """One JSON object a line (https://jsonlines.org). Empty lines are passed over."""

    def __init__(self, encoding: str, max_line: int) -> None:
        self._max_line = max_line
        self._encoding = None if encoding in ("utf-8", "ascii") else encoding

    def read(self, data: bytes, place: Place, *, limit: int, final: bool) -> Block:
        lines, consumed = cut_lines(data, limit, final=final)
        block = Block(consumed=consumed, lines=len(lines))
        offset = place.offset
        for number, line in enumerate(lines, place.line):
            if line and not line.isspace():
                where = f"{place.name}:{number}"
                if len(line) > self._max_line:
                    reason = f"the line is longer than {self._max_line} bytes; only its beginning is kept"
                    block.rejected.append(RejectedInput(line[: self._max_line], reason, where))
                    offset += len(line) + 1
                    continue
                try:
                    value = orjson.loads(line if self._encoding is None else line.decode(self._encoding))
                except (orjson.JSONDecodeError, UnicodeDecodeError) as error:
                    block.rejected.append(RejectedInput(line, f"the line is no JSON: {_reason(error)}", where))
                else:
                    if isinstance(value, dict):
                        event_id = f"{place.tag}-{offset}"
                        block.events.append(
                            SourceEvent(value, event_id, None, None, place.name, None, None, None, None, line, where)
                        )
                    else:
                        block.rejected.append(RejectedInput(line, "the line is no JSON object", where))
            offset += len(line) + 1
        return block


def _reason(error: orjson.JSONDecodeError | UnicodeDecodeError) -> str:
    if isinstance(error, orjson.JSONDecodeError):
        return f"{error.msg} (character {error.pos})"
    return f"byte {error.start} is not {error.encoding}"
