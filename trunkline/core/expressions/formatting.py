"""`text.format(args)` of cel-go's `strings` extension. It reads CEL values and nothing else: no attributes, no indexes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from trunkline.core.expressions.conversions import duration_text, timestamp_text
from trunkline.core.expressions.limits import MAX_STRING, is_larger
from trunkline.core.expressions.values import CelError, TypeValue, Uint, from_key, kind_of, no_overload, normal

_CLAUSE = re.compile(r"%(%|(?:\.([0-9]{1,3}))?(.)?)", re.DOTALL)
_WHOLE = frozenset({int, Uint})
_MAX_PRECISION = 100


def format_text(text: Any, args: Any) -> str:
    """The text with its clauses `%s %d %f %e %b %o %x %X` filled in. Raises `CelError` for a bad clause or too few arguments."""
    if type(text) is not str or type(args) is not list:
        raise no_overload("format", text, args)
    parts: list[str] = []
    end = used = length = 0
    for clause in _CLAUSE.finditer(text):
        parts.append(text[end : clause.start()])
        end = clause.end()
        if clause[1] == "%":
            parts.append("%")
        else:
            if used >= len(args):
                raise CelError(f"format has {len(args)} arguments, and a clause needs one more")
            value = normal(args[used])
            if is_larger(value, MAX_STRING):
                raise CelError(f"the result is longer than {MAX_STRING}")
            parts.append(_clause(clause, value))
            used += 1
        length += len(parts[-1])
        if length > MAX_STRING:
            raise CelError(f"the result is longer than {MAX_STRING}")
    return "".join([*parts, text[end:]])


def _clause(clause: re.Match[str], value: Any) -> str:
    write = _CLAUSES.get(clause[3] or "")
    if write is None:
        raise CelError("format knows the clauses %s %d %f %e %b %o %x %X and %%")
    precision = 6 if clause[2] is None else int(clause[2])
    if precision > _MAX_PRECISION:
        raise CelError(f"a precision is at most {_MAX_PRECISION}")
    return write(value, precision)


def _text(value: Any, precision: int = 0) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if value is None:
        return "null"
    if kind in _WHOLE:
        return str(int(value))
    if kind is float:
        return _special(value) or f"{Decimal(repr(value)):f}".removesuffix(".0")
    if kind is bytes:
        return str(value, "utf-8", "replace")
    if kind is datetime:
        return timestamp_text(value)
    if kind is timedelta:
        return duration_text(value)
    if kind is TypeValue:
        return str(value.name)
    if kind is list:
        return f"[{', '.join(_text(normal(item)) for item in value)}]"
    if kind is dict:
        entries = sorted((_text(from_key(key)), _text(normal(item))) for key, item in value.items())
        return f"{{{', '.join(f'{key}: {item}' for key, item in entries)}}}"
    raise CelError(f"format can't write a {kind_of(value)}")


def _special(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "" if math.isfinite(value) else "Infinity" if value > 0 else "-Infinity"


def _decimal(value: Any, precision: int) -> str:
    if type(value) in _WHOLE or type(value) is float:
        return _text(value)
    raise no_overload("%d", value)


def _number(what: str, value: Any) -> float | int:
    if type(value) in _WHOLE:
        return int(value)
    if type(value) is float:
        return value
    raise no_overload(what, value)


def _fixed(value: Any, precision: int) -> str:
    number = _number("%f", value)
    if isinstance(number, float):
        return _special(number) or f"{number:.{precision}f}"
    return f"{number}.{'0' * precision}" if precision else str(number)


def _scientific(value: Any, precision: int) -> str:
    number = _number("%e", value)
    return _special(number) or f"{number:.{precision}e}"


def _binary(value: Any, precision: int) -> str:
    if type(value) in _WHOLE or type(value) is bool:
        return f"{int(value):b}"
    raise no_overload("%b", value)


def _octal(value: Any, precision: int) -> str:
    if type(value) in _WHOLE:
        return f"{int(value):o}"
    raise no_overload("%o", value)


def _hexadecimal(value: Any, precision: int) -> str:
    if type(value) in _WHOLE:
        return f"{int(value):x}"
    if type(value) is str:
        return value.encode().hex()
    if type(value) is bytes:
        return value.hex()
    raise no_overload("%x", value)


_CLAUSES: dict[str, Callable[[Any, int], str]] = {
    "s": _text,
    "d": _decimal,
    "f": _fixed,
    "e": _scientific,
    "b": _binary,
    "o": _octal,
    "x": _hexadecimal,
    "X": lambda value, precision: _hexadecimal(value, precision).upper(),
}
