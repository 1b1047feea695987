"""The functions `math.*`, of cel-go's `math` extension."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from trunkline.core.expressions.operators import as_int, greater, less
from trunkline.core.expressions.values import CelError, Uint, no_overload, normal

_NUMBERS = frozenset({int, Uint, float})


def greatest(*args: Any) -> Any:
    """The greatest of numbers, or of a list of them; the first where several are equal."""
    return _extreme("math.greatest", greater, args)


def least(*args: Any) -> Any:
    """The least of numbers, or of a list of them; the first where several are equal."""
    return _extreme("math.least", less, args)


def _extreme(name: str, better: Callable[[Any, Any], bool], args: tuple[Any, ...]) -> Any:
    values = normal(args[0]) if len(args) == 1 and type(args[0]) not in _NUMBERS else args
    if type(values) not in {list, tuple} or any(type(value) not in _NUMBERS for value in values):
        raise no_overload(name, *args)
    if not values:
        raise CelError(f"{name} of an empty list")
    best = values[0]
    for value in values:
        if type(value) is float and math.isnan(value):
            raise CelError(f"{name} of NaN")
        if better(value, best):
            best = value
    return best


def absolute(value: Any) -> Any:
    """The value without its sign."""
    if type(value) is int:
        return as_int(abs(value))
    if type(value) is Uint:
        return value
    if type(value) is float:
        return abs(value)
    raise no_overload("math.abs", value)


def ceil(value: Any) -> float:
    """The double rounded up."""
    return _rounded("math.ceil", math.ceil, value)


def floor(value: Any) -> float:
    """The double rounded down."""
    return _rounded("math.floor", math.floor, value)


def round_half_away(value: Any) -> float:
    """The double rounded to the nearest whole one, halves away from zero."""
    return _rounded("math.round", _nearest, value)


def _nearest(value: float) -> float:
    whole = math.trunc(value)
    return whole + math.copysign(1, value) if abs(value - whole) >= 0.5 else whole


def _rounded(name: str, how: Callable[[float], float], value: Any) -> float:
    if type(value) is not float:
        raise no_overload(name, value)
    return math.copysign(float(how(value)), value) if math.isfinite(value) else value
