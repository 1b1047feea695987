"""Defaults: whether the JSON form in a schema fits its type, how much it stands for, and the datum that it means.

A default may be small and mean much: `{}` for a record whose fields have defaults of their own means all of them, and where those are
records with defaults again, twice as many at each level. So what a default stands for is counted before anybody makes it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from fastavro.read import LOGICAL_READERS

from trunkline.registry.avrotype import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN, AvroType
from trunkline.registry.schema_error import SchemaError
from trunkline.registry.steps import Steps

MAX_DEFAULT_VALUES: Final = 10_000
"""The most values that a default may stand for: they are made for every record that lacks the field."""
MAX_DEFAULT_NESTING: Final = 64
_LATIN: Final = "latin-1"


class Defaults:
    """Judges the defaults of one schema. What was found of a type and a default is kept while this lives.

    Each method raises SchemaError for a default that is nested too deep, and TooCostlyError.
    """

    def __init__(self, steps: Steps | None = None) -> None:
        self._steps = steps or Steps()
        self._fits: dict[tuple[int, int], bool] = {}
        self._counts: dict[tuple[int, int], int | None] = {}
        """How many values; None while they are counted."""

    def fits(self, expected: AvroType, default: Any, depth: int = 0) -> bool:
        """Whether a default matches its type; of a union any branch may match (Avro 1.12), the first by habit."""
        self._steps.take()
        if not isinstance(default, dict | list):
            return self._scalar_fits(expected, default)
        if depth > MAX_DEFAULT_NESTING:
            raise SchemaError(f"a default is nested more than {MAX_DEFAULT_NESTING} levels deep")
        pair = (id(expected), id(default))
        found = self._fits.get(pair)
        if found is None:
            found = self._fits[pair] = self._container_fits(expected, default, depth)
        return found

    def _scalar_fits(self, expected: AvroType, default: Any) -> bool:
        kind = expected.kind
        if kind == "union":
            self._steps.take(len(expected.branches))
            return any(self._scalar_fits(branch, default) for branch in expected.branches)
        if kind == "null":
            return default is None
        if kind == "boolean":
            return isinstance(default, bool)
        if kind in {"int", "long"}:
            low, high = (INT_MIN, INT_MAX) if kind == "int" else (LONG_MIN, LONG_MAX)
            return isinstance(default, int) and not isinstance(default, bool) and low <= default <= high
        if kind in {"float", "double"}:
            return isinstance(default, float) or _is_finite(default)
        if kind == "string":
            return isinstance(default, str)
        if kind in {"bytes", "fixed"}:
            if not isinstance(default, str) or (kind == "fixed" and len(default) != expected.size):
                return False
            self._steps.take(len(default) // 1024)
            return default.isascii() or max(default) <= "\xff"
        return kind == "enum" and expected.has_symbol(default)

    def _container_fits(self, expected: AvroType, default: Any, depth: int) -> bool:
        kind = expected.kind
        if kind == "union":
            return any(self.fits(branch, default, depth) for branch in expected.branches)
        if isinstance(default, list):
            if kind != "array":
                return False
            return all(self.fits(expected.element, item, depth + 1) for item in default)
        if kind == "map":
            return all(self.fits(expected.element, item, depth + 1) for item in default.values())
        if kind != "record":
            return False
        self._steps.take(len(expected.fields))
        for each in expected.fields:
            if each.name in default:
                if not self.fits(each.type, default[each.name], depth + 1):
                    return False
            elif not each.has_default:
                return False
        return True

    def require_small(self, expected: AvroType, default: Any) -> None:
        """Raises SchemaError for a default that stands for too many values, or for itself."""
        if self._count(expected, default, 0) > MAX_DEFAULT_VALUES:
            raise SchemaError(f"a default stands for more than {MAX_DEFAULT_VALUES} values")

    def _count(self, node: AvroType, default: Any, depth: int) -> int:
        self._steps.take()
        if not isinstance(default, dict | list):
            return 1
        if depth > MAX_DEFAULT_NESTING:
            raise SchemaError(f"a default is nested more than {MAX_DEFAULT_NESTING} levels deep")
        branch = self.branch(node, default) if node.kind == "union" else node
        pair = (id(branch), id(default))
        if pair in self._counts:
            known = self._counts[pair]
            if known is None:
                raise SchemaError(f"a default of {node.label} stands for itself again, without end")
            return known
        self._counts[pair] = None
        count = 1
        for below, value in _parts(branch, default):
            count += self._count(below, value, depth + 1)
            if count > MAX_DEFAULT_VALUES:
                break  # the exact number is of no interest
        self._counts[pair] = count
        return count

    def branch(self, union: AvroType, default: Any) -> AvroType | None:
        """The first branch of a union that a default fits."""
        for each in union.branches:
            if self.fits(each, default):
                return each
        return None


def default_value(node: AvroType, default: Any, judge: Defaults | None = None) -> Any:
    """The datum of a default in JSON form, with the Python types that decoding gives; fresh at each call.

    Bytes and fixed are text in JSON, one letter (U+0000 to U+00FF) a byte. Of a union the first branch that fits is taken.
    """
    kind = node.kind
    if kind in {"union", "record", "array", "map"}:
        judge = judge or Defaults()
    if kind == "union":
        assert judge is not None
        branch = judge.branch(node, default)
        return default if branch is None else default_value(branch, default, judge)
    if kind in {"bytes", "fixed"} and isinstance(default, str):
        raw = default.encode(_LATIN, "replace")
        return (
            Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-node.scale) if node.logical == "decimal" else raw
        )
    if kind in {"float", "double"} and _is_finite(default):
        return float(default)
    if kind == "array" and isinstance(default, list):
        return [default_value(node.element, item, judge) for item in default]
    if kind == "map" and isinstance(default, dict):
        return {key: default_value(node.element, item, judge) for key, item in default.items()}
    if kind == "record" and isinstance(default, dict):
        return {
            each.name: default_value(each.type, default.get(each.name, each.default), judge)
            for each in node.fields
            if each.name in default or each.has_default
        }
    if node.logical is not None and (judge or Defaults()).fits(node, default):
        try:
            return LOGICAL_READERS[f"{kind}-{node.logical}"](default, {}, None)
        except (ValueError, OverflowError):
            return default  # no day or moment that Python knows
    return default


def fresh(value: Any) -> Any:
    """A default's datum again, of which nobody else has a list or a dictionary."""
    if isinstance(value, dict):
        return {key: fresh(item) for key, item in value.items()}
    return [fresh(item) for item in value] if isinstance(value, list) else value


def _is_finite(default: Any) -> bool:
    """Whether it is a whole number that a double can hold."""
    return isinstance(default, int) and not isinstance(default, bool) and default.bit_length() < 1024


def _parts(node: AvroType | None, default: Any) -> list[tuple[AvroType, Any]]:
    """The values that a default stands for one level below, each with its type."""
    if node is None:
        return []
    if node.kind == "array" and isinstance(default, list):
        return [(node.element, item) for item in default]
    if node.kind == "map" and isinstance(default, dict):
        return [(node.element, item) for item in default.values()]
    if node.kind == "record" and isinstance(default, dict):
        return [
            (each.type, default.get(each.name, each.default))
            for each in node.fields
            if each.name in default or each.has_default
        ]
    return []
