"""One closure for each Avro scalar and logical type: from text, and from JSON's own values. Used by `casting`."""

from __future__ import annotations

import base64
import binascii
import math
import re
import reprlib
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

Cast = Callable[[Any], Any]
Maker = Callable[[Mapping[str, Any]], Cast]

_FLOAT_FORM = re.compile(r"-?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DECIMAL_FORM = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?")
_DATE_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIMES_FORM = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}.*", re.ASCII)
_MAX_FLOAT = 3.4028234663852886e38
_SHOWN = 60
_LONGEST_STEP = 100
_BRIEFLY = reprlib.Repr()
_BRIEFLY.maxlevel = _BRIEFLY.maxdict = _BRIEFLY.maxlist = _BRIEFLY.maxtuple = 3
_BRIEFLY.maxstring = _BRIEFLY.maxother = _BRIEFLY.maxlong = 2 * _SHOWN
_LONGEST_INTEGER = 20  # "-9223372036854775808"
_BOOLEANS = {"true": True, "t": True, "yes": True, "y": True, "1": True} | {
    "false": False,
    "f": False,
    "no": False,
    "n": False,
    "0": False,
}


class MismatchError(Exception):
    """A value is not of the expected type; the path grows while the error climbs out of nested values."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(expected, found)
        self.expected = expected
        self.found = found
        self.path = ""

    def inside(self, step: str) -> None:
        """The error was in the field or item `step` of what surrounds it."""
        joint = "" if not self.path or self.path.startswith("[") else "."
        self.path = f"{step if len(step) <= _LONGEST_STEP else step[:_LONGEST_STEP] + '…'}{joint}{self.path}"

    def copy(self) -> MismatchError:
        """Another one that says the same, whose path grows by itself."""
        made = MismatchError(self.expected, self.found)
        made.path = self.path
        return made

    def sentence(self) -> str:
        """For people: the field, what was expected, what was found."""
        place = f"field {self.path!r}" if self.path else "the row"
        return f"{place}: expected {self.expected}, found {self.found}"


def shown(value: Any) -> str:
    """What was found, shortened: a message must not carry a whole document."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return repr(value[:_SHOWN]) + (" …" if len(value) > _SHOWN else "")
    # Only the beginning of what is nested is looked at: a message is made at each level that has a union.
    text = _BRIEFLY.repr(value)
    return text[:_SHOWN] + " …" if len(text) > _SHOWN else text


def _integer(name: str, bits: int) -> Cast:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def integer(value: Any) -> int:
        if (
            type(value) is str
            and value.isascii()
            and (value.isdigit() or (value[:1] == "-" and value[1:].isdigit()))
            and len(value) <= _LONGEST_INTEGER
        ):
            number = int(value)
            if low <= number <= high:
                return number
        raise MismatchError(f"{name} ({low} to {high})", shown(value))

    return integer


def _integer_in_json(name: str, bits: int) -> Cast:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1

    def integer(value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise MismatchError(f"{name} ({low} to {high})", shown(value))

    return integer


def _real(name: str, largest: float) -> Cast:
    def real(value: Any) -> float:
        if type(value) is str and _FLOAT_FORM.fullmatch(value):
            number = float(value)
            if abs(number) <= largest:
                return number
        raise MismatchError(f"{name}, finite", shown(value))

    return real


def _real_in_json(name: str, largest: float) -> Cast:
    def real(value: Any) -> float:
        if type(value) in (int, float) and abs(value) <= largest and not math.isnan(value):
            return float(value)
        raise MismatchError(f"{name}, finite", shown(value))

    return real


def _boolean(value: Any) -> bool:
    found = _BOOLEANS.get(value.lower()) if type(value) is str else None
    if found is None:
        raise MismatchError("boolean", shown(value))
    return found


def _boolean_in_json(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise MismatchError("boolean", shown(value))


def _null(value: Any) -> None:
    if value is not None:
        raise MismatchError("null", shown(value))


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    raise MismatchError("string", shown(value))


def _base64(name: str, size: int | None = None) -> Cast:
    def decoded(value: Any) -> bytes:
        if type(value) is str:
            try:
                data = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                data = None
            if data is not None and (size is None or len(data) == size):
                return data
        raise MismatchError(f"{name} in Base64", shown(value))

    return decoded


def _fixed(schema: Mapping[str, Any]) -> Cast:
    if schema.get("logicalType") == "decimal":
        return _decimal(schema)
    return _base64(f"fixed of {schema['size']} bytes", int(schema["size"]))


def _enum(schema: Mapping[str, Any]) -> Cast:
    symbols = frozenset(schema["symbols"])
    listed = ", ".join(list(schema["symbols"])[:8]) + (", …" if len(symbols) > 8 else "")

    def symbol(value: Any) -> str:
        if type(value) is str and value in symbols:
            return value
        raise MismatchError(f"one of {listed}", shown(value))

    return symbol


def _uuid(_schema: Mapping[str, Any]) -> Cast:
    def parsed(value: Any) -> uuid.UUID:
        if type(value) is str and len(value) == 36:
            try:
                return uuid.UUID(value)
            except ValueError:
                pass
        raise MismatchError("uuid", shown(value))

    return parsed


def _decimal(schema: Mapping[str, Any]) -> Cast:
    precision, scale = int(schema["precision"]), int(schema.get("scale", 0))

    def parsed(value: Any) -> Decimal:
        # JSON's integers are exact; its fractions passed through binary floats and are not.
        text = str(value) if type(value) is int else value
        match = _DECIMAL_FORM.fullmatch(text) if type(text) is str else None
        if match is not None:
            whole, fraction = match.group(1).lstrip("0"), match.group(2) or ""
            if len(fraction) <= scale and len(whole) <= precision - scale:
                return Decimal(text)
        raise MismatchError(f"decimal({precision}, {scale})", shown(value))

    return parsed


def _moment(name: str, *, local: bool) -> Cast:
    zone = "without a time zone" if local else "with Z or an offset"

    def parsed(value: Any) -> datetime:
        if type(value) is str and _TIMES_FORM.fullmatch(value):
            try:
                moment = datetime.fromisoformat(value)
                if (moment.tzinfo is None) == local:
                    return moment if local else moment.astimezone(UTC)
            except (ValueError, OverflowError):
                pass
        raise MismatchError(f"{name} as ISO 8601 {zone}", shown(value))

    return parsed


def _day(value: Any) -> date:
    if type(value) is str and _DATE_FORM.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise MismatchError("date as YYYY-MM-DD", shown(value))


def _time_of_day(value: Any) -> time:
    if type(value) is str and ":" in value:
        try:
            moment = time.fromisoformat(value)
        except ValueError:
            moment = None
        if moment is not None and moment.tzinfo is None:
            return moment
    raise MismatchError("time of day as HH:MM:SS", shown(value))


def _or_integer(cast: Cast, bits: int) -> Cast:
    """In JSON a time may also be the number that Avro itself writes for it."""
    integer = _integer_in_json("number", bits)
    return lambda value: integer(value) if type(value) is int else cast(value)


_LOGICAL: dict[str, Maker] = {
    "string:uuid": _uuid,
    "bytes:decimal": _decimal,
    "long:timestamp-millis": lambda _: _moment("timestamp-millis", local=False),
    "long:timestamp-micros": lambda _: _moment("timestamp-micros", local=False),
    "long:local-timestamp-millis": lambda _: _moment("local-timestamp-millis", local=True),
    "long:local-timestamp-micros": lambda _: _moment("local-timestamp-micros", local=True),
    "int:date": lambda _: _day,
    "int:time-millis": lambda _: _time_of_day,
    "long:time-micros": lambda _: _time_of_day,
}

_SHARED: dict[str, Maker] = {
    "null": lambda _: _null,
    "string": lambda _: _string,
    "bytes": lambda _: _base64("bytes"),
    "fixed": _fixed,
    "enum": _enum,
}

FROM_TEXT: dict[str, Maker] = {
    **_SHARED,
    **_LOGICAL,
    "boolean": lambda _: _boolean,
    "int": lambda _: _integer("int", 32),
    "long": lambda _: _integer("long", 64),
    "float": lambda _: _real("float", _MAX_FLOAT),
    "double": lambda _: _real("double", math.nextafter(math.inf, 0)),
}
"""Makers of casts where every value is text, by `type` or `type:logicalType`. Each maker gets the schema."""


def _dated(name: str) -> Maker:
    make, bits = _LOGICAL[name], 64 if name.startswith("long") else 32
    return lambda schema: _or_integer(make(schema), bits)


FROM_JSON: dict[str, Maker] = {
    **_SHARED,
    **_LOGICAL,
    **{name: _dated(name) for name in _LOGICAL if name.startswith(("int:", "long:"))},
    "boolean": lambda _: _boolean_in_json,
    "int": lambda _: _integer_in_json("int", 32),
    "long": lambda _: _integer_in_json("long", 64),
    "float": lambda _: _real_in_json("float", _MAX_FLOAT),
    "double": lambda _: _real_in_json("double", math.nextafter(math.inf, 0)),
}
"""Makers of casts where values came from JSON: numbers and booleans are themselves, the rest is read from strings."""
