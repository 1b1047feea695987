"""JSON that others wrote, within bounds, and JSON of whatever there is.

Python's and orjson's readers take text that is nested deeper than orjson writes (254 levels) and than code that walks it can follow, and
Python's ends with a RecursionError where that is depends on who asked. Here text of others is read to a depth that everything
behind it can handle, and all that is wrong with it is a ValueError whose message can be shown.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

MAX_DEPTH = 200
"""Objects and lists inside each other."""
_LONGEST_NUMBER = 4_300
"""Digits, which is where Python stops: https://docs.python.org/3/library/stdtypes.html#integer-string-conversion-length-limitation"""


def read_json(text: str | bytes | bytearray, *, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text. Raises ValueError, also for one that is nested deeper than `max_depth` levels."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep(max_depth) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:
        raise ValueError(f"a number has more than {_LONGEST_NUMBER:,} digits") from None
    if is_deeper(value, max_depth):
        raise _too_deep(max_depth)
    return value


def is_deeper(value: Any, levels: int) -> bool:
    """Whether maps and lists stand inside each other more than `levels` deep. Visits every part once and never recurses."""
    waiting = [(value, 1)]
    while waiting:
        part, depth = waiting.pop()
        inner = part.values() if isinstance(part, dict) else part if isinstance(part, (list, tuple)) else None
        if inner is None:
            continue
        if depth > levels:
            return True
        waiting.extend((one, depth + 1) for one in inner if isinstance(one, (dict, list, tuple)))
    return False


def any_json_bytes(value: Any) -> bytes:
    """JSON of any value, for who has to keep what can't be written otherwise. Never raises, and never recurses.

    However deep it is, its levels are all there. A sign without UTF-8 is its escape, a number beyond 64 bits all its digits, and
    what has no JSON form its text.
    """
    parts: list[bytes] = []
    open_parts: list[tuple[Iterator[Any], bytes]] = [(iter([value]), b"")]
    first = True
    while open_parts:
        items, end = open_parts[-1]
        try:
            item = next(items)
        except StopIteration:
            open_parts.pop()
            parts.append(end)
            first = False
            continue
        if not first:
            parts.append(b",")
        first = False
        if isinstance(item, _Member):
            parts += (_scalar(item.name), b":")
            item = item.value
        if isinstance(item, Mapping):
            parts.append(b"{")
            open_parts.append((map(_Member.of, item.items()), b"}"))
            first = True
        elif isinstance(item, (list, tuple)):
            parts.append(b"[")
            open_parts.append((iter(item), b"]"))
            first = True
        else:
            parts.append(_scalar(item))
    return b"".join(parts)


class _Member:
    """A name and a value of an object."""

    __slots__ = ("name", "value")

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    @classmethod
    def of(cls, pair: tuple[Any, Any]) -> _Member:
        return cls(str(pair[0]), pair[1])


def _scalar(value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return orjson.dumps(base64.b64encode(value).decode("ascii"))
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    if isinstance(value, int):
        try:
            return str(int(value)).encode()
        except ValueError:
            return f'"{int(value):#x}"'.encode()
    text = value if isinstance(value, str) else str(value)
    return orjson.dumps(text.encode("utf-8", "backslashreplace").decode())


def _too_deep(levels: int) -> ValueError:
    return ValueError(f"it is nested deeper than {levels} levels")
