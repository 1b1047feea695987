"""CEL's conversions: `int(x)`, `string(x)`, `timestamp(x)` and the like."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from trunkline.core.expressions.operators import MAX_DURATION, as_int, as_uint
from trunkline.core.expressions.values import (
    INT_MIN,
    KINDS,
    CelError,
    TypeValue,
    Uint,
    no_overload,
    normal,
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT = re.compile(r"[+-]?[0-9]{1,400}")
_UINT = re.compile(r"[0-9]{1,400}")
_DOUBLE = re.compile(
    r"[+-]?(?:inf(?:inity)?|nan|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)", re.IGNORECASE | re.ASCII
)
_LONGEST_DOUBLE = 1_000
_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_DURATION = re.compile(r"([+-]?)((?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+|0)")
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_MICROSECONDS = {
    "ns": Decimal("0.001"),
    "us": Decimal(1),
    "µs": Decimal(1),
    "μs": Decimal(1),
    "ms": Decimal(1_000),
    "s": Decimal(1_000_000),
    "m": Decimal(60_000_000),
    "h": Decimal(3_600_000_000),
}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def to_int(value: Any) -> int:
    """`int(x)`: doubles are cut towards zero, a timestamp gives its Unix seconds."""
    kind = type(value)
    if kind is int:
        return int(value)
    if kind is Uint:
        return as_int(int(value))
    if kind is float:
        if not float(INT_MIN) < value < float(2**63):
            raise CelError("int overflow: the double is beyond 64 bits")
        return int(value)
    if kind is str:
        return as_int(int(_matched(_INT, value, "int")))
    if kind is datetime:
        elapsed: timedelta = value - _EPOCH
        return elapsed // timedelta(seconds=1)
    raise no_overload("int", value)


def to_uint(value: Any) -> Uint:
    """`uint(x)`."""
    kind = type(value)
    if kind is Uint:
        return Uint(value)
    if kind is int:
        return as_uint(value)
    if kind is float:
        if not 0.0 <= value < float(2**64):
            raise CelError("uint overflow: the double is negative or beyond 64 bits")
        return Uint(int(value))
    if kind is str:
        return as_uint(int(_matched(_UINT, value, "uint")))
    raise no_overload("uint", value)


def to_double(value: Any) -> float:
    """`double(x)`."""
    kind = type(value)
    if kind is float:
        return float(value)
    if kind is int or kind is Uint:
        return float(value)
    if kind is str:
        return float(_matched(_DOUBLE, value if len(value) <= _LONGEST_DOUBLE else "", "double"))
    raise no_overload("double", value)


def to_bool(value: Any) -> bool:
    """`bool(x)`: of the spellings of true and false that Go's ParseBool takes."""
    if value is True or value is False:
        return bool(value)
    if type(value) is str:
        if value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise CelError("the string is neither true nor false")
    raise no_overload("bool", value)


def to_string(value: Any) -> str:
    """`string(x)`: doubles in the shortest form that reads back, timestamps in RFC 3339 at UTC, durations in seconds."""
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is Uint:
        return str(int(value))
    if kind is float:
        return double_text(value)
    if kind is bytes:
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError:
            raise CelError("the bytes are not UTF-8") from None
    if kind is datetime:
        return timestamp_text(value)
    if kind is timedelta:
        return duration_text(value)
    raise no_overload("string", value)


def to_bytes(value: Any) -> bytes:
    """`bytes(x)`: the UTF-8 of a string."""
    if type(value) is bytes:
        return bytes(value)
    if type(value) is str:
        return value.encode("utf-8", "replace")
    raise no_overload("bytes", value)


def to_timestamp(value: Any) -> datetime:
    """`timestamp(x)`: of RFC 3339 text or Unix seconds. What is finer than a microsecond is cut off."""
    kind = type(value)
    if kind is datetime:
        return normal(value)  # type: ignore[no-any-return]
    try:
        if kind is int:
            return _EPOCH + timedelta(seconds=value)
        if kind is str:
            return _read_timestamp(value)
    except (ValueError, OverflowError):
        raise CelError("the timestamp is no moment in the years 1 to 9999") from None
    raise no_overload("timestamp", value)


def _read_timestamp(text: str) -> datetime:
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise CelError("the string is no RFC 3339 timestamp like 2013-01-01T05:30:00Z")
    year, month, day, hour, minute, second = (int(part) for part in found.groups()[:6])
    micros = int((found[7] or "0").ljust(6, "0")[:6])
    moment = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    if found[8] is None:
        return moment
    hours, minutes = int(found[9]), int(found[10])
    if hours > 23 or minutes > 59:
        raise ValueError(text)
    offset = timedelta(hours=hours, minutes=minutes)
    return moment - offset if found[8] == "+" else moment + offset


def to_duration(value: Any) -> timedelta:
    """`duration(x)`: of text like `1h30m`, `1.5s`, `100ms`. Raises `CelError` for what is finer than a microsecond."""
    if type(value) is timedelta:
        return value
    if type(value) is not str:
        raise no_overload("duration", value)
    found = _DURATION.fullmatch(value) if len(value) <= 100 else None
    if found is None:
        raise CelError("the string is no duration like 1h30m, 1.5s or 100ms")
    micros = sum((Decimal(number) * _MICROSECONDS[unit] for number, unit in _PART.findall(found[2])), Decimal(0))
    if micros != micros.to_integral_value():
        raise CelError("a duration can't be finer than a microsecond")
    if micros > MAX_DURATION // timedelta(microseconds=1):
        raise CelError("duration overflow: the result is beyond 10,000 years")
    return timedelta(microseconds=int(-micros if found[1] == "-" else micros))


def to_type(value: Any) -> TypeValue:
    """`type(x)`."""
    return TypeValue(KINDS[type(normal(value))])


def to_dyn(value: Any) -> Any:
    """`dyn(x)`: the value, its type forgotten by the checker."""
    return value


def double_text(value: float) -> str:
    """A double as Go's `%g` writes it in its shortest form, which is what cel-go gives for `string(x)`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    assert isinstance(exponent, int)
    if not text:
        return "-0" if sign else "0"
    point = len(text) + exponent
    text = text.rstrip("0")
    minus = "-" if sign else ""
    # Go decides by six digits of precision here: an exponent below 1e-4 and from 1e6 on.
    if not -4 <= point - 1 < 6:
        fraction = f".{text[1:]}" if len(text) > 1 else ""
        return f"{minus}{text[0]}{fraction}e{point - 1:+03d}"
    if point <= 0:
        return f"{minus}0.{'0' * -point}{text}"
    whole = text[:point].ljust(point, "0")
    return f"{minus}{whole}.{text[point:]}" if len(text) > point else f"{minus}{whole}"


def timestamp_text(value: datetime) -> str:
    """RFC 3339 at UTC, without trailing zeros of the fraction."""
    utc = normal(value)
    text = f"{utc.year:04d}-{utc:%m-%dT%H:%M:%S}"
    fraction = f".{utc.microsecond:06d}".rstrip("0") if utc.microsecond else ""
    return f"{text}{fraction}Z"


def duration_text(value: timedelta) -> str:
    """Seconds with `s`, as protobuf's JSON form has it."""
    micros = value // timedelta(microseconds=1)
    seconds, rest = divmod(abs(micros), 1_000_000)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micros < 0 else ''}{seconds}{fraction}s"


def _matched(pattern: re.Pattern[str], text: str, kind: str) -> str:
    if pattern.fullmatch(text) is None:
        raise CelError(f"the string is no {kind}")
    return text


CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "int": to_int,
    "uint": to_uint,
    "double": to_double,
    "bool": to_bool,
    "string": to_string,
    "bytes": to_bytes,
    "timestamp": to_timestamp,
    "duration": to_duration,
    "type": to_type,
    "dyn": to_dyn,
}
