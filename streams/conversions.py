"""Strict conversions of values for the `cast` step: what is not plainly a value of the type is refused, never guessed.

| to | from |
| --- | --- |
| int, long | text of decimal digits with an optional minus; numbers without a fraction; in the type's range |
| float, double | text of a decimal number; numbers; finite |
| decimal(p, s) | text, whole numbers, decimals, and floats by their shortest text; nothing is rounded |
| boolean | text: true, false, t, f, yes, no, y, n, 1, 0 in any case; the numbers 1 and 0 |
| string | text, numbers, truth values (`true`, `false`), times and dates (ISO 8601), UUIDs, bytes that are UTF-8 |
| bytes | text, as UTF-8; bytes |
| date | text `YYYY-MM-DD`; a timestamp's day in UTC |
| timestamp | text in ISO 8601 with `Z` or an offset; a date's midnight in UTC |
| timestamp(s), timestamp(ms), timestamp(us) | those, and numbers: the time since 1970-01-01T00:00:00Z in that unit |
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from trunkline.core.casting_scalars import FROM_TEXT, Cast, MismatchError, shown

_FORM = re.compile(r"([a-z]+)(?:\(\s*([a-z0-9]+)\s*(?:,\s*([0-9]+)\s*)?\))?")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1}
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_NUMBERS = frozenset({"int", "long", "float", "double", "decimal"})
_DATES = frozenset({"date", "timestamp-millis", "timestamp-micros"})
_PLAIN = frozenset({"string", "enum"})
_SCALARS = _NUMBERS | _DATES | _PLAIN | {"boolean", "uuid", "bytes", "fixed"}
_SCALARS |= {"time-millis", "time-micros", "local-timestamp-millis", "local-timestamp-micros"}


@dataclass(frozen=True, slots=True)
class Conversion:
    """`cast` turns a value into one of the Avro type `avro`, or raises MismatchError; `takes` are the Avro types it may come from."""

    avro: Any
    cast: Cast
    takes: frozenset[str]


def conversion(form: str) -> Conversion:
    """What a target such as `int` or `decimal(9, 2)` stands for. Raises ValueError that says which targets there are."""
    match = _FORM.fullmatch(form.strip())
    name, first, second = match.groups() if match else ("", None, None)
    if name == "decimal" and first is not None and first.isdigit():
        return _decimal(int(first), int(second or 0))
    if name == "timestamp" and second is None and (first is None or first in _UNITS):
        numbers = _NUMBERS if first else frozenset()
        return Conversion(_MICROS, _timestamp(_UNITS.get(first or "")), _PLAIN | _DATES | numbers)
    if first is None and name in _SIMPLE:
        return _SIMPLE[name]
    raise ValueError(
        f"{form!r} is no type to cast to: write int, long, float, double, string, boolean, bytes, date, timestamp, timestamp(s), "
        "timestamp(ms), timestamp(us) or decimal(PRECISION, SCALE)"
    )


def _integer(name: str, bits: int) -> Conversion:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    from_text = FROM_TEXT[name]({})

    def integer(value: Any) -> int:
        kind = type(value)
        if kind is str:
            return int(from_text(value))
        if kind is int or (kind is float and value.is_integer()) or (kind is Decimal and value == value.to_integral()):
            number = int(value)
            if low <= number <= high:
                return number
        raise MismatchError(f"{name} ({low} to {high})", shown(value))

    return Conversion(name, integer, _PLAIN | _NUMBERS)


def _real(name: str, largest: float) -> Conversion:
    from_text = FROM_TEXT[name]({})

    def real(value: Any) -> float:
        kind = type(value)
        if kind is str:
            return float(from_text(value))
        if kind in (int, float, Decimal) and abs(value) <= largest and not math.isnan(value):
            return float(value)
        raise MismatchError(f"{name}, finite", shown(value))

    return Conversion(name, real, _PLAIN | _NUMBERS)


def _decimal(precision: int, scale: int) -> Conversion:
    if not (1 <= precision <= 38 and 0 <= scale <= precision):
        raise ValueError(
            f"decimal({precision}, {scale}) can't be: a precision of 1 to 38 and a scale of at most it can"
        )
    avro = {"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale}
    from_text = FROM_TEXT["bytes:decimal"](avro)

    def decimal(value: Any) -> Decimal:
        kind = type(value)
        if kind is str:
            exact = value
        elif kind is float and math.isfinite(value):
            exact = format(Decimal(repr(value)), "f")
        elif kind is int or (kind is Decimal and value.is_finite()):
            exact = format(value, "f") if kind is Decimal else str(value)
        else:
            raise MismatchError(f"decimal({precision}, {scale})", shown(value))
        if kind is not str and "." in exact:
            exact = exact.rstrip("0").rstrip(".")
        found: Decimal = from_text(exact)
        return found

    return Conversion(avro, decimal, _PLAIN | _NUMBERS)


def _boolean(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return bool(FROM_BOOLEAN(value))
    if kind is bool:
        return bool(value)
    if kind in (int, float, Decimal) and value in (0, 1):
        return bool(value)
    raise MismatchError("boolean", shown(value))


FROM_BOOLEAN = FROM_TEXT["boolean"]({})


def _string(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if kind is bool:
        return "true" if value else "false"
    if kind is int or kind is float:
        return repr(value)
    if kind is Decimal:
        return format(value, "f")
    if kind is datetime and value.tzinfo is not None:
        return str(value.astimezone(UTC).isoformat().replace("+00:00", "Z"))
    if isinstance(value, (date, time)):
        return value.isoformat()
    if kind is uuid.UUID:
        return str(value)
    if kind is bytes:
        try:
            return str(value.decode("utf-8"))
        except UnicodeDecodeError:
            raise MismatchError("text", "bytes that are no UTF-8") from None
    raise MismatchError("a scalar", shown(value))


def _bytes(value: Any) -> bytes:
    kind = type(value)
    if kind is bytes:
        return bytes(value)
    if kind is str:
        return str(value).encode()
    raise MismatchError("text", shown(value))


def _date(value: Any) -> date:
    if type(value) is datetime and value.tzinfo is not None:
        return value.astimezone(UTC).date()
    if type(value) is date:
        return value
    found: date = FROM_DATE(value)
    return found


FROM_DATE = FROM_TEXT["int:date"]({})
FROM_TIME = FROM_TEXT["long:timestamp-micros"]({})


def _timestamp(unit: int | None) -> Callable[[Any], datetime]:
    def timestamp(value: Any) -> datetime:
        kind = type(value)
        if kind is datetime and value.tzinfo is not None:
            moment: datetime = value.astimezone(UTC)
            return moment
        if kind is date:
            return datetime(value.year, value.month, value.day, tzinfo=UTC)
        if unit is not None and kind in (int, float, Decimal):
            try:
                return _EPOCH + timedelta(microseconds=float(value * unit) if kind is not int else value * unit)
            except (OverflowError, ValueError):
                raise MismatchError("a time from year 1 to 9999", shown(value)) from None
        found: datetime = FROM_TIME(value)
        return found

    return timestamp


_SIMPLE: dict[str, Conversion] = {
    "int": _integer("int", 32),
    "long": _integer("long", 64),
    "float": _real("float", 3.4028234663852886e38),
    "double": _real("double", math.nextafter(math.inf, 0)),
    "boolean": Conversion("boolean", _boolean, _PLAIN | _NUMBERS | {"boolean"}),
    "string": Conversion("string", _string, _SCALARS),
    "bytes": Conversion("bytes", _bytes, _PLAIN | {"bytes", "fixed"}),
    "date": Conversion({"type": "int", "logicalType": "date"}, _date, _PLAIN | _DATES),
}
