"""The encoder that has the last word: plain Python, exact about types, and able to say which field is wrong.

What it takes, per Avro type: `boolean` a bool; `int` and `long` an int (never a bool) in range; `float` and `double` a float,
or an int that they hold exactly; `string` a str; `bytes` and `fixed` bytes; `enum` one of its symbols; `array` a list or tuple;
`map` a mapping with str keys; `record` a mapping without unknown fields. Logical types take fastavro's Python types (an aware
datetime for `timestamp-*`, a naive one for `local-timestamp-*`, date, time, Decimal, UUID) or the plain number they stand for;
times are cut to the precision of their schema. A missing field gets its default.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from struct import pack
from typing import Any
from uuid import UUID

from trunkline.core.errors import RejectedError
from trunkline.registry.defaults import default_value
from trunkline.registry.model import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN, AvroType, Field

MAX_DEPTH = 200
"""Records, arrays and maps inside each other: the same bound that a reader on an untrusted topic has."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NAIVE_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (local timestamps have no zone)
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY_ZERO = dt.date(1970, 1, 1).toordinal()
MICROS_MIN = (dt.datetime.min - _NAIVE_EPOCH) // _MICROSECOND  # noqa: DTZ901
MICROS_MAX = (dt.datetime.max - _NAIVE_EPOCH) // _MICROSECOND  # noqa: DTZ901
DAYS_MIN, DAYS_MAX = dt.date.min.toordinal() - _DAY_ZERO, dt.date.max.toordinal() - _DAY_ZERO
"""The years 1 to 9999, which is what Python's dates hold."""
FLOAT_MAX = 3.4028235677973362e38
"""The largest double that still rounds to a finite 32-bit float."""


class _MismatchError(Exception):
    def __init__(self, expected: str, value: Any, path: tuple[str, ...]) -> None:
        super().__init__(expected)
        self.expected = expected
        self.value = value
        self.path = path


class _Out(bytearray):
    """What is written so far, and which branches of unions could not be written for which values.

    A value inside a union inside a union is met once for each branch that is tried above, and would be tried anew for each.
    """

    __slots__ = ("failed",)

    def __init__(self) -> None:
        super().__init__()
        self.failed: dict[tuple[int, int], tuple[Any, _MismatchError]] = {}
        """By branch and value, which is kept so that no other one gets its identity."""


class PreciseEncoder:
    """Encodes data of one type; `ignore_extra` leaves unknown fields of records out instead of refusing them."""

    def __init__(self, root: AvroType, *, ignore_extra: bool = False) -> None:
        self._root = root
        self._ignore_extra = ignore_extra

    def encode(self, datum: Any) -> bytes:
        """The Avro body. Raises RejectedError (`record.schema_mismatch`) that names the path of the field."""
        out = _Out()
        try:
            self._write(self._root, datum, out, (), 0)
        except _MismatchError as error:
            field = "".join(error.path).lstrip(".")
            place = f": field {field}" if field else ""
            found = f", found {shown(error.value)}" if error.value is not _ABSENT else ""
            raise RejectedError(
                f"{self._root.label if self._root.name else self._root.kind}{place}: {error.expected}{found}",
                code="record.schema_mismatch",
            ) from None
        except RecursionError:
            raise RejectedError("the datum is nested too deep", code="record.schema_mismatch") from None
        return bytes(out)

    def _write(self, node: AvroType, value: Any, out: _Out, path: tuple[str, ...], depth: int) -> None:
        kind = node.kind
        if kind == "union":
            self._write_union(node, value, out, path, depth)
        elif kind in {"record", "array", "map"}:
            if depth >= MAX_DEPTH:
                raise _MismatchError(f"nested more than {MAX_DEPTH} levels deep", _ABSENT, path[:20])
            if kind == "record":
                self._write_record(node, value, out, path, depth + 1)
            else:
                self._write_blocks(node, value, out, path, depth + 1)
        else:
            raw = to_raw(node, value)
            if raw is _ABSENT:
                raise _MismatchError(f"expected {expectation(node)}", value, path)
            write_raw(node, raw, out)

    def _write_record(self, node: AvroType, value: Any, out: _Out, path: tuple[str, ...], depth: int) -> None:
        if not isinstance(value, Mapping):
            raise _MismatchError(f"expected {expectation(node)}", value, path)
        known = 0
        for each in node.fields:
            below = (*path, f".{each.name}")
            if each.name in value:
                known += 1
                self._write(each.type, value[each.name], out, below, depth)
            elif each.has_default:
                self._write_default(each, out, below, depth)
            else:
                raise _MismatchError("is missing and has no default", _ABSENT, below)
        if known != len(value) and not self._ignore_extra:
            names = {each.name for each in node.fields}
            first = next(key for key in value if key not in names)
            raise _MismatchError(f"is not in the schema {node.label}", value[first], (*path, f".{first}"))

    def _write_default(self, each: Field, out: _Out, path: tuple[str, ...], depth: int) -> None:
        self._write(each.type, default_value(each.type, each.default), out, path, depth)

    def _write_blocks(self, node: AvroType, value: Any, out: _Out, path: tuple[str, ...], depth: int) -> None:
        if node.kind == "array":
            if not isinstance(value, list | tuple):
                raise _MismatchError(f"expected {expectation(node)}", value, path)
            if value:
                write_long(len(value), out)
                for index, item in enumerate(value):
                    self._write(node.element, item, out, (*path, f"[{index}]"), depth)
        else:
            if not isinstance(value, Mapping):
                raise _MismatchError(f"expected {expectation(node)}", value, path)
            if value:
                write_long(len(value), out)
                for key, item in value.items():
                    if not isinstance(key, str) or not _is_text(key):
                        raise _MismatchError("expected text as the map's key", key, path)
                    write_bytes(key.encode(), out)
                    self._write(node.element, item, out, (*path, f"[{key!r}]"), depth)
        out.append(0)

    def _write_union(self, node: AvroType, value: Any, out: _Out, path: tuple[str, ...], depth: int) -> None:
        ranked = sorted(
            (rank, index) for index, branch in enumerate(node.branches) if (rank := rank_of(branch, value)) is not None
        )
        if not ranked:
            raise _MismatchError(f"expected {expectation(node)}", value, path)
        first: _MismatchError | None = None
        for _, index in ranked:
            branch = node.branches[index]
            failed = out.failed.get((id(branch), id(value))) if out.failed else None
            if failed is not None:
                first = first or failed[1]
                continue
            mark = len(out)
            write_long(index, out)
            try:
                self._write(branch, value, out, path, depth)
            except _MismatchError as error:
                del out[mark:]
                first = first or error
                if len(ranked) > 1:
                    out.failed[id(branch), id(value)] = (value, error)
            else:
                return
        assert first is not None
        if len(ranked) == 1:
            raise first
        raise _MismatchError(
            f"matches none of {expectation(node)}: {''.join(first.path)}: {first.expected}", value, path
        )


_ABSENT: Any = object()


def rank_of(node: AvroType, value: Any) -> int | None:
    """How well a branch of a union fits a value: 0 is best, None is not at all. Structures are judged by their kind only."""
    kind = node.kind
    if kind == "array":
        return 0 if isinstance(value, list | tuple) else None
    if kind in {"record", "map"}:
        if not isinstance(value, Mapping):
            return None
        return 0 if kind == "record" else 1
    if to_raw(node, value) is _ABSENT:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        # Of two units the one that cuts nothing comes first.
        return 1 if node.logical and node.logical.endswith("-millis") else 0
    if isinstance(value, int):
        if node.logical:
            return 2
        return 0 if kind in {"int", "long"} else 1
    return 0 if kind == "double" else 1


def to_raw(node: AvroType, value: Any) -> Any:
    """The value that stands for `value` in Avro's own types, or a mark that it can't be one of this scalar type."""
    if node.logical is not None:
        value = _LOGICAL[node.logical](node, value)
        if value is _ABSENT:
            return _ABSENT
    return value if _SCALAR[node.kind](node, value) else _ABSENT


def _timestamp(epoch: dt.datetime, unit: int) -> Callable[[AvroType, Any], Any]:
    aware = epoch.tzinfo is not None

    def convert(_: AvroType, value: Any) -> Any:
        if isinstance(value, dt.datetime):
            if (value.tzinfo is not None) != aware:
                return _ABSENT
            value = (value - epoch) // _MICROSECOND // unit
        # What no reader could turn into a date again is refused here, where its producer learns of it.
        return value if isinstance(value, int) and MICROS_MIN <= value * unit <= MICROS_MAX else _ABSENT

    return convert


def _time(unit: int, day: int) -> Callable[[AvroType, Any], Any]:
    def convert(_: AvroType, value: Any) -> Any:
        if not isinstance(value, dt.time):
            return value if isinstance(value, int) and 0 <= value < day else _ABSENT
        if value.tzinfo is not None:
            return _ABSENT
        seconds = (value.hour * 60 + value.minute) * 60 + value.second
        return (seconds * 1_000_000 + value.microsecond) // unit

    return convert


def _date(_: AvroType, value: Any) -> Any:
    if isinstance(value, dt.date):
        return _ABSENT if isinstance(value, dt.datetime) else value.toordinal() - _DAY_ZERO
    return value if isinstance(value, int) and DAYS_MIN <= value <= DAYS_MAX else _ABSENT


def _uuid(_: AvroType, value: Any) -> Any:
    if isinstance(value, str):
        try:
            return str(UUID(value))
        except ValueError:
            return _ABSENT
    return str(value) if isinstance(value, UUID) else _ABSENT


def _decimal(node: AvroType, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        return _ABSENT
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    shift = exponent + node.scale
    if not any(digits):
        unscaled = 0
    elif shift > node.precision:
        return _ABSENT
    else:
        unscaled = int("".join(map(str, digits)))
        if shift >= 0:
            unscaled *= 10**shift
        else:
            if -shift > len(digits):
                return _ABSENT
            unscaled, rest = divmod(unscaled, 10**-shift)
            if rest:
                return _ABSENT
    if unscaled >= 10**node.precision:
        return _ABSENT
    unscaled = -unscaled if sign else unscaled
    size = node.size if node.kind == "fixed" else (unscaled.bit_length() + 8) // 8
    return unscaled.to_bytes(size, "big", signed=True)


_LOGICAL: dict[str, Callable[[AvroType, Any], Any]] = {
    "timestamp-millis": _timestamp(_EPOCH, 1000),
    "timestamp-micros": _timestamp(_EPOCH, 1),
    "local-timestamp-millis": _timestamp(_NAIVE_EPOCH, 1000),
    "local-timestamp-micros": _timestamp(_NAIVE_EPOCH, 1),
    "time-millis": _time(1000, 86_400_000),
    "time-micros": _time(1, 86_400_000_000),
    "date": _date,
    "uuid": _uuid,
    "decimal": _decimal,
}


def _is_int(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_real(value: Any, *, single: bool) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return not single or abs(value) <= FLOAT_MAX or not math.isfinite(value)
    if not isinstance(value, int):
        return False
    return abs(value) <= (1 << 24 if single else 1 << 53)


def _is_text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview)


_SCALAR: dict[str, Callable[[AvroType, Any], bool]] = {
    "null": lambda _, value: value is None,
    "boolean": lambda _, value: isinstance(value, bool),
    "int": lambda _, value: _is_int(value, INT_MIN, INT_MAX),
    "long": lambda _, value: _is_int(value, LONG_MIN, LONG_MAX),
    "float": lambda _, value: _is_real(value, single=True),
    "double": lambda _, value: _is_real(value, single=False),
    "string": lambda _, value: _is_text(value),
    "bytes": lambda _, value: _is_bytes(value),
    "fixed": lambda node, value: _is_bytes(value) and len(value) == node.size,
    "enum": lambda node, value: isinstance(value, str) and value in node.symbols,
}


def write_raw(node: AvroType, value: Any, out: bytearray) -> None:
    """Append a checked scalar."""
    kind = node.kind
    if kind == "boolean":
        out.append(1 if value else 0)
    elif kind in {"int", "long"}:
        write_long(value, out)
    elif kind == "float":
        out += pack("<f", value)
    elif kind == "double":
        out += pack("<d", value)
    elif kind == "string":
        write_bytes(value.encode(), out)
    elif kind == "bytes":
        write_bytes(bytes(value), out)
    elif kind == "fixed":
        out += bytes(value)
    elif kind == "enum":
        write_long(node.symbols.index(value), out)


def write_long(value: int, out: bytearray) -> None:
    """Append a number as Avro's zig-zag varint."""
    rest = (value << 1) ^ (value >> 63)
    while rest > 0x7F:
        out.append((rest & 0x7F) | 0x80)
        rest >>= 7
    out.append(rest)


def write_bytes(value: bytes, out: bytearray) -> None:
    """Append length and bytes."""
    write_long(len(value), out)
    out += value


def expectation(node: AvroType) -> str:
    """What a field takes, for a message: `int or null`, `one of UA, DL`."""
    if node.kind == "union":
        ordered = sorted(node.branches, key=lambda branch: branch.kind == "null")
        told = [expectation(branch) for branch in ordered[:8]]
        return " or ".join([*told, "…"] if len(ordered) > len(told) else told)
    if node.kind == "enum":
        return f"one of {', '.join(node.symbols[:8])}{', …' if len(node.symbols) > 8 else ''}"
    if node.kind == "fixed" and node.logical is None:
        return f"{node.size} bytes"
    if node.logical == "decimal":
        return f"a decimal of {node.precision} digits, {node.scale} of them after the point"
    if node.logical in {"timestamp-millis", "timestamp-micros"}:
        return f"{node.logical} (a datetime with a time zone)"
    if node.logical in {"local-timestamp-millis", "local-timestamp-micros"}:
        return f"{node.logical} (a datetime without a time zone)"
    if node.logical:
        return node.logical
    if node.kind == "record":
        return f"the record {node.name}"
    return node.kind


def shown(value: Any) -> str:
    """A value for a message: its type and, cut short, the value itself."""
    if value is None:
        return "null"
    name = type(value).__name__
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return f"{name} {text}" if len(text) <= 60 else f"{name} {text[:57]}..."
