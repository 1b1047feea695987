"""Operators and functions whose cost their arguments' sizes do not tell: they charge a budget for what they really do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.core.expressions import operators, patterns
from trunkline.core.expressions.limits import Budget
from trunkline.core.expressions.values import CelError, as_key, no_overload, normal

_TEXTS = frozenset({str, bytes})
_ZONE = 1_000
"""What it costs to look for a time zone among the system's files, in units of a budget."""
_REFUSED = 100_000
"""What a pattern costs that RE2 refuses, which may be when it has got far with it."""
_COMPILED, _INSTRUCTION = 1_000, 10
"""What a pattern costs that is compiled, and each instruction of its program."""
_STEPS_OF_A_UNIT = 10
_PAIR = 10
"""What it costs to compare two elements."""
_SHORT = 32


def equal(budget: Budget, left: Any, right: Any) -> bool:
    """`==`, charged for every pair of elements that is compared, and for the characters of equally long texts."""
    a, b = type(left), type(right)
    if a is b and a in _TEXTS:
        budget.charge(len(left) + _PAIR if len(left) == len(right) else _PAIR)
    elif a is list and b is list:
        budget.charge(_PAIR)
        if len(left) != len(right):
            return False
        return all(equal(budget, one, other) for one, other in zip(left, right, strict=True))
    elif a is dict and b is dict:
        budget.charge(_PAIR)
        if len(left) != len(right):
            return False
        return all(key in right and equal(budget, value, right[key]) for key, value in left.items())
    else:
        budget.charge(_PAIR)
    return operators.equal(left, right)


def equal_texts(budget: Budget, left: Any, right: Any) -> bool:
    """`==` of two strings, or of two bytes."""
    if len(left) != len(right):
        return False
    budget.charge(len(left))
    return bool(left == right)


def not_equal_texts(budget: Budget, left: Any, right: Any) -> bool:
    """`!=` of two strings, or of two bytes."""
    return not equal_texts(budget, left, right)


def not_equal(budget: Budget, left: Any, right: Any) -> bool:
    """`!=`, charged as `==`."""
    return not equal(budget, left, right)


def contained(budget: Budget, item: Any, within: Any) -> bool:
    """`in`, charged for every element that is looked at."""
    within = normal(within)
    if type(within) is dict:
        return as_key(item) in within
    if type(within) is list:
        if type(item) is str and len(item) <= _SHORT:
            budget.charge(2 * len(within))
            return any(type(other) is str and item == other for other in within)
        return any(equal(budget, item, other) for other in within)
    raise no_overload("in", item, within)


def matches(budget: Budget, text: Any, pattern: Any) -> bool:
    """`matches`, charged for the steps that the search may take, and once for compiling the pattern."""
    if type(text) is not str or type(pattern) is not str:
        raise no_overload("matches", text, pattern)
    found = budget.patterns.get(pattern)
    if found is None:
        try:
            found = patterns.compiled(pattern)
        except CelError:
            budget.charge(_REFUSED)
            raise
        budget.charge(_COMPILED + _INSTRUCTION * found.programsize)
        budget.patterns[pattern] = found
    budget.charge(1 + patterns.steps(text, found) // _STEPS_OF_A_UNIT)
    return patterns.searched(text, found)


def in_zone(budget: Budget, part: Callable[..., Any], *args: Any) -> Any:
    """A part of a timestamp in a zone that an event names, which may have to be looked for."""
    budget.charge(_ZONE)
    return part(*args)
