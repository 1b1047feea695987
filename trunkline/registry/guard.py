"""The walk over untrusted Avro bytes that stands before fastavro.

fastavro takes a negative union or enum index as the last branch, over-long varints, and ints beyond 32 bits; a datum some
5,000 records deep ends the process, and a few bytes that announce 2³¹ nulls hang it. The walk decodes nothing: it visits
every byte, follows the writer's schema, and raises where a limit is passed or a rule of the encoding is broken.

Source of the encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.core.errors import RejectedError
from trunkline.registry.extent import Extents
from trunkline.registry.model import INT_MAX, INT_MIN, AvroType
from trunkline.registry.model_graph import is_recursive, walk


@dataclass(frozen=True, slots=True)
class Limits:
    """What one datum may cost. Sizes are bytes; `depth` counts records, arrays and maps inside each other."""

    size: int = 16 * 1024 * 1024
    depth: int = 200
    elements: int = 1_000_000
    string: int = 8 * 1024 * 1024


DEFAULT_LIMITS = Limits()
_MOST_EMPTY = 10_000
_MOST_EMPTY_IN_ITEM = 16
"""Values without bytes that a datum, and an item of an array, may have without a guard."""

_Skip = Callable[["_Walk", int, int], int]


class _Walk:
    __slots__ = ("data", "end", "left", "limits")

    def __init__(self, data: bytes, limits: Limits) -> None:
        self.data = data
        self.end = len(data)
        self.left = limits.elements
        self.limits = limits


class BrokenError(Exception):
    """Why the walk stopped; the codec says of which schema."""


class Guard:
    """Checks data of one writer's schema."""

    def __init__(self, writer: AvroType, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._skip = _compile(writer, {})

    def check(self, data: bytes, start: int = 0) -> None:
        """Raises RejectedError (`record.undecodable`, `record.too_large`) unless `data[start:]` is exactly one good datum."""
        if len(data) - start > self._limits.size:
            raise RejectedError(
                f"the value has {len(data) - start} bytes, more than the {self._limits.size} allowed",
                code="record.too_large",
            )
        try:
            stop = self._skip(_Walk(data, self._limits), start, 0)
        except BrokenError as error:
            raise RejectedError(f"the value is no valid Avro: {error}", code="record.undecodable") from None
        except RecursionError:
            raise RejectedError("the value is nested too deep", code="record.undecodable") from None
        if stop != len(data):
            raise RejectedError(f"{len(data) - stop} bytes are left after the value", code="record.undecodable")


def needs_guard(writer: AvroType) -> bool:
    """Whether a few bytes of this schema can cost without bound: recursion, items that take no bytes, or many values that take none."""
    if is_recursive(writer):
        return True
    extents = Extents()
    if extents.of(writer).empty > _MOST_EMPTY:
        return True
    for node in walk(writer):
        if node.items is not None:
            if extents.of(node.items).empty > _MOST_EMPTY_IN_ITEM:
                return True
            if node.kind == "array" and is_zero_width(node.items):
                return True
    return False


def is_zero_width(node: AvroType) -> bool:
    """Whether some datum of this type takes no bytes at all."""
    # All that it is made of without a union, an array or a map, each of which takes a byte: none of that may take one.
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        if found.kind == "record":
            waiting.extend(each.type for each in found.fields)
        elif not (found.kind == "null" or (found.kind == "fixed" and found.size == 0)):
            return False
    return True


def _varint(w: _Walk, at: int) -> tuple[int, int]:
    data = w.data
    try:
        byte = data[at]
        if byte < 0x80:
            return (byte >> 1) ^ -(byte & 1), at + 1
        value = byte & 0x7F
        shift = 7
        for place in range(at + 1, at + 10):
            byte = data[place]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if place == at + 9 and byte > 1:
                    raise BrokenError("a number has more than 64 bits")
                return (value >> 1) ^ -(value & 1), place + 1
            shift += 7
    except IndexError:
        raise BrokenError("it ends inside a number") from None
    raise BrokenError("a number takes more than 10 bytes")


def _skip_long(w: _Walk, at: int, depth: int) -> int:
    return _varint(w, at)[1]


def _skip_int(w: _Walk, at: int, depth: int) -> int:
    value, at = _varint(w, at)
    if not INT_MIN <= value <= INT_MAX:
        raise BrokenError(f"the int {value} has more than 32 bits")
    return at


def _skip_boolean(w: _Walk, at: int, depth: int) -> int:
    if at >= w.end:
        raise BrokenError("it ends before a boolean")
    if w.data[at] > 1:
        raise BrokenError(f"a boolean is byte 0x{w.data[at]:02x}")
    return at + 1


def _skip_null(w: _Walk, at: int, depth: int) -> int:
    return at


def _skip_fixed(size: int) -> _Skip:
    def skip(w: _Walk, at: int, depth: int) -> int:
        if at + size > w.end:
            raise BrokenError(f"it ends inside a value of {size} bytes")
        return at + size

    return skip


def _sized(w: _Walk, at: int) -> tuple[int, int]:
    size, at = _varint(w, at)
    if size < 0 or size > w.limits.string:
        raise BrokenError(f"a string or bytes value announces {size} bytes")
    if at + size > w.end:
        raise BrokenError(f"it ends inside a value of {size} bytes")
    return at, at + size


def _skip_bytes(w: _Walk, at: int, depth: int) -> int:
    return _sized(w, at)[1]


def _skip_string(w: _Walk, at: int, depth: int) -> int:
    start, stop = _sized(w, at)
    try:
        codecs.utf_8_decode(w.data[start:stop], "strict", True)
    except UnicodeDecodeError:
        raise BrokenError("a string is no UTF-8") from None
    return stop


def _skip_enum(count: int) -> _Skip:
    def skip(w: _Walk, at: int, depth: int) -> int:
        index, at = _varint(w, at)
        if not 0 <= index < count:
            raise BrokenError(f"symbol {index} of an enum with {count}")
        return at

    return skip


def _skip_decimal(precision: int, size: int | None) -> _Skip:
    bound = 10**precision if precision <= 10_000 else None
    fixed = None if size is None else _skip_fixed(size)

    def skip(w: _Walk, at: int, depth: int) -> int:
        start, stop = _sized(w, at) if fixed is None else (at, fixed(w, at, depth))
        if bound is not None and abs(int.from_bytes(w.data[start:stop], "big", signed=True)) >= bound:
            raise BrokenError(f"a decimal has more than {precision} digits")
        return stop

    return skip


def _skip_time(day: int) -> _Skip:
    def skip(w: _Walk, at: int, depth: int) -> int:
        value, at = _varint(w, at)
        if not 0 <= value < day:
            raise BrokenError(f"{value} is no time of a day")
        return at

    return skip


def _compile(node: AvroType, made: dict[int, _Skip]) -> _Skip:
    found = made.get(id(node))
    if found is not None:
        return found
    kind = node.kind
    if node.logical == "decimal":
        return _skip_decimal(node.precision, node.size if kind == "fixed" else None)
    if node.logical in {"time-millis", "time-micros"}:
        return _skip_time(86_400_000 if node.logical == "time-millis" else 86_400_000_000)
    if kind == "record":
        return _compile_record(node, made)
    if kind == "union":
        branches = tuple(_compile(branch, made) for branch in node.branches)
        count = len(branches)

        def skip_union(w: _Walk, at: int, depth: int) -> int:
            index, at = _varint(w, at)
            if not 0 <= index < count:
                raise BrokenError(f"branch {index} of a union with {count}")
            return branches[index](w, at, depth)

        return skip_union
    if kind in {"array", "map"}:
        return _compile_blocks(_compile(node.element, made), kind == "map")
    if kind == "enum":
        return _skip_enum(len(node.symbols))
    if kind == "fixed":
        return _skip_fixed(node.size)
    return _PRIMITIVE[kind]


def _compile_record(node: AvroType, made: dict[int, _Skip]) -> _Skip:
    parts: list[_Skip] = []
    empty = sum(_is_empty(each.type) for each in node.fields)

    def skip_record(w: _Walk, at: int, depth: int) -> int:
        depth += 1
        if depth > w.limits.depth:
            raise BrokenError(f"it is nested more than {w.limits.depth} levels deep")
        for part in parts:
            at = part(w, at, depth)
        return at

    def skip_with_empty(w: _Walk, at: int, depth: int) -> int:
        # Nothing in the data bounds what takes no bytes.
        w.left -= empty
        if w.left < 0:
            raise BrokenError(f"it has more than {w.limits.elements} values that take no bytes")
        return skip_record(w, at, depth)

    skip = skip_with_empty if empty else skip_record
    made[id(node)] = skip
    parts.extend(_compile(each.type, made) for each in node.fields)
    return skip


def _is_empty(node: AvroType) -> bool:
    """Whether it takes no bytes by itself; of a record with fields those are asked."""
    return (
        node.kind == "null" or (node.kind == "fixed" and node.size == 0) or (node.kind == "record" and not node.fields)
    )


def _compile_blocks(item: _Skip, keyed: bool) -> _Skip:
    def skip_blocks(w: _Walk, at: int, depth: int) -> int:
        depth += 1
        if depth > w.limits.depth:
            raise BrokenError(f"it is nested more than {w.limits.depth} levels deep")
        while True:
            count, at = _varint(w, at)
            if count == 0:
                return at
            stop = -1
            if count < 0:
                count = -count
                size, at = _varint(w, at)
                stop = at + size
                if size < 0 or stop > w.end:
                    raise BrokenError(f"a block announces {size} bytes")
            w.left -= count
            if w.left < 0:
                raise BrokenError(f"it announces more than {w.limits.elements} elements")
            for _ in range(count):
                if keyed:
                    at = _skip_string(w, at, depth)
                at = item(w, at, depth)
            if stop >= 0 and at != stop:
                raise BrokenError("a block's size is not that of its items")

    return skip_blocks


_PRIMITIVE: dict[str, _Skip] = {
    "null": _skip_null,
    "boolean": _skip_boolean,
    "int": _skip_int,
    "long": _skip_long,
    "float": _skip_fixed(4),
    "double": _skip_fixed(8),
    "bytes": _skip_bytes,
    "string": _skip_string,
}
