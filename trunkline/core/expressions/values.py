"""CEL's values as Python objects, and what Avro's Python objects become.

| CEL | Python |
| --- | --- |
| int, uint, double, bool | `int`, `Uint`, `float`, `bool` |
| string, bytes, null | `str`, `bytes`, `None` |
| timestamp, duration | aware `datetime`, `timedelta`: both to the microsecond, as Avro's |
| list, map | `list`, `dict` (a bool key is a `BoolKey`, as Python takes `True` and `1` for one key) |
| type | `TypeValue` |
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
UINT_MAX = 2**64 - 1


class CelError(Exception):
    """An evaluation error in CEL's sense: `&&`, `||`, `all` and `exists` may absorb it."""


class LimitError(Exception):
    """An evaluation wants more work than its budget allows. Nothing absorbs it."""


class Uint(int):
    """CEL's unsigned 64-bit integer: a type of its own, so that `1u + 1` is an error."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{int(self)}u"


class BoolKey(enum.Enum):
    """A bool as the key of a map."""

    FALSE = False
    TRUE = True


@dataclass(frozen=True, slots=True)
class TypeValue:
    """A type as a value: what `type(1)` gives and the name `int` stands for."""

    name: str


KINDS: dict[type, str] = {
    int: "int",
    Uint: "uint",
    float: "double",
    bool: "bool",
    str: "string",
    bytes: "bytes",
    type(None): "null_type",
    datetime: "google.protobuf.Timestamp",
    timedelta: "google.protobuf.Duration",
    list: "list",
    dict: "map",
    TypeValue: "type",
}

SHORT = {"google.protobuf.Timestamp": "timestamp", "google.protobuf.Duration": "duration", "null_type": "null"}


def kind_of(value: Any) -> str:
    """The name of a value's CEL type, as messages say it."""
    name = KINDS.get(type(value), type(value).__name__)
    return SHORT.get(name, name)


def no_overload(what: str, *args: Any) -> CelError:
    """CEL's error for a function or operator that has no meaning for these types. Names types, never values."""
    return CelError(f"no such overload: {what} of {', '.join(kind_of(arg) for arg in args)}")


def normal(value: Any) -> Any:
    """A datum as CEL sees it.

    Avro's logical types: uuid is a string, decimal a double, date the timestamp of its midnight in UTC, a time of day the
    duration since midnight, a local timestamp one in UTC. Subclasses of Python's own types count as those.
    """
    if type(value) in KINDS:
        return _utc(value) if type(value) is datetime and value.tzinfo is not UTC else value
    return _foreign(value)


def _foreign(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return _utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, time):
        return timedelta(hours=value.hour, minutes=value.minute, seconds=value.second, microseconds=value.microsecond)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (tuple, list)):
        return list(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise CelError(f"a {type(value).__name__} has no meaning in an expression")


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def as_key(value: Any) -> Any:
    """A CEL value as the key of a Python dict, so that equal keys are those that CEL calls equal: 1, 1u and 1.0 are, true is not."""
    kind = type(value)
    if kind is bool:
        return BoolKey(value)
    if kind is str or kind is int or kind is Uint:
        return value
    if kind is float:
        return int(value) if value.is_integer() else NO_KEY
    return NO_KEY


def from_key(key: Any) -> Any:
    """The CEL value that a key of a dict stands for."""
    return key.value if type(key) is BoolKey else key


NO_KEY = object()
"""What no map has as a key."""
