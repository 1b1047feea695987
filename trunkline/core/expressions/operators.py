"""CEL's operators on values whose types only the evaluation knows.

Equality is heterogeneous (values of different types are unequal, numbers compare across types); order and arithmetic are
defined for pairs of types, and an error for all others. ints are 64 bits wide and overflow is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from trunkline.core.expressions.limits import MAX_LIST, MAX_STRING
from trunkline.core.expressions.values import (
    INT_MAX,
    INT_MIN,
    NO_KEY,
    UINT_MAX,
    CelError,
    TypeValue,
    Uint,
    as_key,
    kind_of,
    no_overload,
    normal,
)

MAX_DURATION = timedelta(seconds=315_576_000_000)
"""The range of protobuf's Duration (google/protobuf/duration.proto), either way."""

_NUMBER = frozenset({int, Uint, float})
_SCALAR = frozenset({int, Uint, float, str, bytes, bool, datetime, timedelta, type(None), TypeValue})
PLAIN = frozenset({int, float, str, bool, type(None), dict, list})
"""Types of a datum that are CEL's own: what most fields hold, and `normal` need not see."""

_ORDERED = frozenset({int, Uint, float, str, bytes, bool, datetime, timedelta})


# --- equality and order -------------------------------------------------------------------------------------------------


def equal(left: Any, right: Any) -> bool:
    """CEL's `==`."""
    a, b = type(left), type(right)
    if a is b and a in _SCALAR and a is not datetime:
        return bool(left == right)
    if a in _NUMBER and b in _NUMBER:
        return bool(left == right)
    if a is list and b is list:
        return len(left) == len(right) and all(map(equal, left, right))
    if a is dict and b is dict:
        return _equal_maps(left, right)
    if a in _SCALAR and b in _SCALAR and datetime not in {a, b}:
        return False
    new_left, new_right = normal(left), normal(right)
    if new_left is left and new_right is right:
        return a is b and bool(left == right)
    return equal(new_left, new_right)


def _equal_maps(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    if len(left) != len(right):
        return False
    return all(key in right and equal(value, right[key]) for key, value in left.items())


def not_equal(left: Any, right: Any) -> bool:
    """CEL's `!=`."""
    return not equal(left, right)


def less(left: Any, right: Any) -> bool:
    """CEL's `<`."""
    if not (type(left) is type(right) and type(left) in _ORDERED):
        _check_ordered("<", left, right)
    return left < right  # type: ignore[no-any-return]


def less_equal(left: Any, right: Any) -> bool:
    """CEL's `<=`."""
    if not (type(left) is type(right) and type(left) in _ORDERED):
        _check_ordered("<=", left, right)
    return left <= right  # type: ignore[no-any-return]


def greater(left: Any, right: Any) -> bool:
    """CEL's `>`."""
    if not (type(left) is type(right) and type(left) in _ORDERED):
        _check_ordered(">", left, right)
    return left > right  # type: ignore[no-any-return]


def greater_equal(left: Any, right: Any) -> bool:
    """CEL's `>=`."""
    if not (type(left) is type(right) and type(left) in _ORDERED):
        _check_ordered(">=", left, right)
    return left >= right  # type: ignore[no-any-return]


def _check_ordered(operator: str, left: Any, right: Any) -> None:
    if not (type(left) in _NUMBER and type(right) in _NUMBER):
        raise no_overload(operator, left, right)


# --- arithmetic ---------------------------------------------------------------------------------------------------------


def as_int(value: int) -> int:
    """`value`, if 64 bits hold it."""
    if INT_MIN <= value <= INT_MAX:
        return value
    raise CelError("int overflow: the result is beyond 64 bits")


def as_uint(value: int) -> Uint:
    """`value` as a uint, if 64 bits hold it."""
    if 0 <= value <= UINT_MAX:
        return Uint(value)
    raise CelError("uint overflow: the result is beyond 64 bits")


def overflow() -> Any:
    """What inlined arithmetic calls for a result beyond 64 bits."""
    raise CelError("int overflow: the result is beyond 64 bits")


def as_duration(value: timedelta) -> timedelta:
    """`value`, if it is in the range of durations."""
    if -MAX_DURATION <= value <= MAX_DURATION:
        return value
    raise CelError("duration overflow: the result is beyond 10,000 years")


def add(left: Any, right: Any) -> Any:
    """CEL's `+`."""
    return _apply(_ADD, "+", left, right)


def subtract(left: Any, right: Any) -> Any:
    """CEL's `-`."""
    return _apply(_SUBTRACT, "-", left, right)


def multiply(left: Any, right: Any) -> Any:
    """CEL's `*`."""
    return _apply(_MULTIPLY, "*", left, right)


def divide(left: Any, right: Any) -> Any:
    """CEL's `/`: ints are cut towards zero, doubles follow IEEE 754."""
    return _apply(_DIVIDE, "/", left, right)


def modulo(left: Any, right: Any) -> Any:
    """CEL's `%`: the sign is the dividend's."""
    return _apply(_MODULO, "%", left, right)


def negate(value: Any) -> Any:
    """CEL's unary `-`."""
    if type(value) is int:
        return as_int(-value)
    if type(value) is float:
        return -value
    raise no_overload("-", value)


_Table = Mapping[tuple[type, type], Callable[[Any, Any], Any]]


def _apply(table: _Table, operator: str, left: Any, right: Any) -> Any:
    function = table.get((type(left), type(right)))
    if function is None:
        raise no_overload(operator, left, right)
    return function(left, right)


def concatenate(left: Any, right: Any) -> Any:
    """Two strings, or two bytes, as one of limited size."""
    if len(left) + len(right) > MAX_STRING:
        raise CelError(f"the result is longer than {MAX_STRING}")
    return left + right


def _join_lists(left: list[Any], right: list[Any]) -> list[Any]:
    if len(left) + len(right) > MAX_LIST:
        raise CelError(f"the result has more than {MAX_LIST} elements")
    return left + right


def _shift(moment: datetime, by: timedelta) -> datetime:
    try:
        return moment + by
    except OverflowError:
        raise CelError("timestamp overflow: the result is not in the years 1 to 9999") from None


def divide_ints(left: int, right: int) -> int:
    """Integer division towards zero."""
    if right == 0:
        raise CelError("division by zero")
    quotient = abs(left) // abs(right)
    return as_int(quotient if (left < 0) == (right < 0) else -quotient)


def modulo_ints(left: int, right: int) -> int:
    """The remainder with the sign of `left`."""
    if right == 0:
        raise CelError("modulus by zero")
    if left == INT_MIN and right == -1:
        raise CelError("int overflow: the result is beyond 64 bits")
    rest = abs(left) % abs(right)
    return -rest if left < 0 else rest


def divide_doubles(left: float, right: float) -> float:
    """IEEE 754 division."""
    if right != 0.0:
        return left / right
    if left == 0.0 or math.isnan(left) or math.isnan(right):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _divide_uints(left: int, right: int) -> Uint:
    return Uint(divide_unsigned(left, right, "division"))


def _modulo_uints(left: int, right: int) -> Uint:
    if right == 0:
        raise CelError("modulus by zero")
    return Uint(int(left) % int(right))


def divide_unsigned(left: int, right: int, what: str) -> int:
    """Integer division of two uints."""
    if right == 0:
        raise CelError(f"{what} by zero")
    return int(left) // int(right)


_ADD: _Table = {
    (int, int): lambda a, b: as_int(a + b),
    (Uint, Uint): lambda a, b: as_uint(int(a) + int(b)),
    (float, float): lambda a, b: a + b,
    (str, str): concatenate,
    (bytes, bytes): concatenate,
    (list, list): _join_lists,
    (datetime, timedelta): _shift,
    (timedelta, datetime): lambda a, b: _shift(b, a),
    (timedelta, timedelta): lambda a, b: as_duration(a + b),
}
_SUBTRACT: _Table = {
    (int, int): lambda a, b: as_int(a - b),
    (Uint, Uint): lambda a, b: as_uint(int(a) - int(b)),
    (float, float): lambda a, b: a - b,
    (datetime, datetime): lambda a, b: as_duration(a - b),
    (datetime, timedelta): lambda a, b: _shift(a, -b),
    (timedelta, timedelta): lambda a, b: as_duration(a - b),
}
_MULTIPLY: _Table = {
    (int, int): lambda a, b: as_int(a * b),
    (Uint, Uint): lambda a, b: as_uint(int(a) * int(b)),
    (float, float): lambda a, b: a * b,
}
_DIVIDE: _Table = {(int, int): divide_ints, (Uint, Uint): _divide_uints, (float, float): divide_doubles}
_MODULO: _Table = {(int, int): modulo_ints, (Uint, Uint): _modulo_uints}


# --- logic --------------------------------------------------------------------------------------------------------------


def truth(value: Any) -> bool:
    """`value`, which must be a bool."""
    if value is True or value is False:
        return value
    raise CelError(f"no such overload: expected bool, found {kind_of(value)}")


def negation(value: Any) -> bool:
    """CEL's `!`."""
    if value is True or value is False:
        return not value
    raise no_overload("!", value)


ERRORS = (CelError, KeyError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)
"""What the evaluation of a compiled expression may raise: all are errors in CEL's sense."""


def any_of(*items: Callable[[], Any]) -> bool:
    """`||` with CEL's rule of errors: one true decides, whatever the others do."""
    return _decide(items, decisive=True)


def all_of(*items: Callable[[], Any]) -> bool:
    """`&&` with CEL's rule of errors: one false decides, whatever the others do."""
    return _decide(items, decisive=False)


def _decide(items: tuple[Callable[[], Any], ...], *, decisive: bool) -> bool:
    trouble: Exception | None = None
    for item in items:
        try:
            if truth(item()) is decisive:
                return decisive
        except ERRORS as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return not decisive


# --- fields, elements, members ------------------------------------------------------------------------------------------


def select(operand: Any, name: str) -> Any:
    """`operand.name`. Raises `CelError` for a key that is not there."""
    if type(operand) is not dict:
        operand = normal(operand)
        if type(operand) is not dict:
            raise CelError(f"a {kind_of(operand)} has no field {name!r}")
    try:
        value = operand[name]
    except KeyError:
        raise CelError(f"no such key: {name!r}") from None
    return value if type(value) in PLAIN else normal(value)


def has(operand: Any, name: str) -> bool:
    """`has(operand.name)`: whether the key is there, were its value null. Null has no fields."""
    operand = normal(operand)
    if type(operand) is dict:
        return name in operand
    if operand is None:
        return False
    raise CelError(f"a {kind_of(operand)} has no field {name!r}")


def index(operand: Any, at: Any) -> Any:
    """`operand[at]`."""
    operand = normal(operand)
    if type(operand) is list:
        place = at
        if type(at) is float and at.is_integer():
            place = int(at)
        if type(place) not in {int, Uint}:
            raise no_overload("[]", operand, at)
        if not 0 <= place < len(operand):
            raise CelError(f"index out of bounds: {int(place)} in a list of {len(operand)}")
        return normal(operand[place])
    if type(operand) is dict:
        key = as_key(at)
        if key is NO_KEY or key not in operand:
            raise CelError(f"no such key: {str(at)[:40]!r}" if key is not NO_KEY else "no such key")
        return normal(operand[key])
    raise no_overload("[]", operand, at)


def contained(item: Any, within: Any) -> bool:
    """CEL's `in`."""
    within = normal(within)
    if type(within) is dict:
        return as_key(item) in within
    if type(within) is list:
        kind = type(item)
        for other in within:  # noqa: SIM110 - a generator would cost more than the comparisons
            if (item == other) if kind is str and type(other) is str else equal(item, other):
                return True
        return False
    raise no_overload("in", item, within)


def make_map(*parts: Any) -> dict[Any, Any]:
    """A map literal from its keys and values in turn. Raises `CelError` for a key that comes twice or can't be one."""
    made: dict[Any, Any] = {}
    for key, value in zip(parts[::2], parts[1::2], strict=True):
        known = as_key(key)
        if known is NO_KEY or type(key) is float:
            raise CelError(f"a {kind_of(key)} can't be the key of a map")
        if known in made:
            raise CelError("the same key comes twice in a map")
        made[known] = value
    return made
