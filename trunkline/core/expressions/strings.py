"""The string functions of CEL's core and of cel-go's `strings` extension. Positions count code points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.core.expressions.limits import MAX_LIST, MAX_STRING
from trunkline.core.expressions.values import CelError, no_overload, normal

_UPPER = {code: code - 32 for code in range(ord("a"), ord("z") + 1)}
_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
# Unicode's White_Space, as Go's TrimSpace has it: Python's own strip() takes U+001C to U+001F as well.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


def _typed(name: str, *kinds: type) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Checks the types of the arguments; those that are left out are left out at the end."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*args: Any) -> Any:
            if any(type(arg) is not kind for arg, kind in zip(args, kinds, strict=False)):
                raise no_overload(name, *args)
            return function(*args)

        checked.plain = function  # type: ignore[attr-defined]
        return checked

    return wrap


def _at(place: int, text: str) -> int:
    if not 0 <= place <= len(text):
        raise CelError(f"index out of range: {place}")
    return place


def size(value: Any) -> int:
    """`size(x)`: code points of a string, bytes of bytes, elements of a list, entries of a map."""
    value = normal(value)
    if type(value) in {str, bytes, list, dict}:
        return len(value)
    raise no_overload("size", value)


@_typed("contains", str, str)
def contains(text: str, part: str) -> bool:
    """`text.contains(part)`."""
    return part in text


@_typed("startsWith", str, str)
def starts_with(text: str, part: str) -> bool:
    """`text.startsWith(part)`."""
    return text.startswith(part)


@_typed("endsWith", str, str)
def ends_with(text: str, part: str) -> bool:
    """`text.endsWith(part)`."""
    return text.endswith(part)


@_typed("charAt", str, int)
def char_at(text: str, place: int) -> str:
    """The character there, or an empty string just behind the last one."""
    return text[_at(place, text) : place + 1]


@_typed("indexOf", str, str, int)
def index_of(text: str, part: str, start: int = 0) -> int:
    """Where `part` is first found from `start` on, else -1."""
    if start < 0:
        raise CelError(f"index out of range: {start}")
    if not part:
        return min(start, len(text))
    return text.find(part, start)


@_typed("lastIndexOf", str, str, int)
def last_index_of(text: str, part: str, last: int | None = None) -> int:
    """Where `part` last begins at `last` or before, else -1."""
    if last is None:
        return _rfind(text, part, len(text))
    if last < 0:
        raise CelError(f"index out of range: {last}")
    if not part:
        return min(last, len(text))
    if last >= len(text):
        return -1
    return _rfind(text, part, last + len(part))


def _rfind(text: str, part: str, end: int) -> int:
    """As `text.rfind(part, 0, end)`, whose time is that of both lengths multiplied; `find` keeps to their sum."""
    if len(part) <= 100:
        return text.rfind(part, 0, end)
    before = text[:end]
    found = before[::-1].find(part[::-1])
    return -1 if found < 0 else len(before) - found - len(part)


@_typed("join", list, str)
def join(items: list[Any], between: str = "") -> str:
    """The strings of a list as one."""
    if any(type(item) is not str for item in items):
        raise CelError("join needs a list of strings")
    if sum(map(len, items)) + len(between) * len(items) > MAX_STRING:
        raise CelError(f"the result is longer than {MAX_STRING}")
    return between.join(items)


@_typed("lowerAscii", str)
def lower_ascii(text: str) -> str:
    """A to Z in lower case, all else as it is."""
    return text.translate(_LOWER)


@_typed("upperAscii", str)
def upper_ascii(text: str) -> str:
    """a to z in upper case, all else as it is."""
    return text.translate(_UPPER)


@_typed("replace", str, str, str, int)
def replace(text: str, old: str, new: str, limit: int = -1) -> str:
    """`old` replaced by `new`, at most `limit` times where it is not negative."""
    times = text.count(old) if limit < 0 else min(limit, text.count(old))
    if len(text) + times * (len(new) - len(old)) > MAX_STRING:
        raise CelError(f"the result is longer than {MAX_STRING}")
    return text.replace(old, new, times)


@_typed("split", str, str, int)
def split(text: str, by: str, limit: int = -1) -> list[str]:
    """The parts between `by`, at most `limit` where it is not negative; by an empty string: the characters."""
    if limit == 0:
        return []
    parts = (_characters(text, limit) if text else []) if not by else text.split(by, limit - 1 if limit > 0 else -1)
    if len(parts) > MAX_LIST:
        raise CelError(f"the result has more than {MAX_LIST} elements")
    return parts


def _characters(text: str, limit: int) -> list[str]:
    if limit < 0 or limit >= len(text):
        return list(text)
    return [*text[: limit - 1], text[limit - 1 :]]


@_typed("substring", str, int, int)
def substring(text: str, start: int, end: int | None = None) -> str:
    """From `start` to before `end`."""
    end = len(text) if end is None else _at(end, text)
    if _at(start, text) > end:
        raise CelError(f"a substring can't begin at {start} and end at {end}")
    return text[start:end]


@_typed("trim", str)
def trim(text: str) -> str:
    """Without white space at either end."""
    return text.strip(_SPACE)


@_typed("reverse", str)
def reverse(text: str) -> str:
    """The characters from last to first."""
    return text[::-1]
