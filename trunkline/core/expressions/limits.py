"""How much an expression may be and do. Texts come from manifests, consoles and filters: all of them are input of others.

A text is bounded when it is compiled (`MAX_TEXT`, `MAX_NODES`, `MAX_DEPTH`), its work when it is evaluated: every evaluation
with a macro, or with many parts whose cost grows with the event, has a `Budget` of iterations, and of characters and elements that
its calls read or make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.core.expressions.values import LimitError

MAX_TEXT = 8 * 1024
"""Bytes of UTF-8 of one expression."""

MAX_NODES = 4_000
MAX_DEPTH = 80
"""Levels of nesting, parentheses included. Each level costs a few frames of the Python compiler, whose own limit is 1,000."""

MAX_ITERATIONS = 100_000
"""Elements that all macros of one evaluation may visit together, nested ones counted for each round."""

MAX_WORK = 5_000_000
"""Characters, bytes and elements that the calls of one evaluation may read and make, and parts that its macros may evaluate."""

MAX_UNCHARGED = 8
"""Parts of an expression without macros whose cost grows with the event, and which need no budget: more of them have one."""

MAX_RESULT = 16 * 1024 * 1024
"""Characters, bytes and elements of a list or map that an expression gives, a part that it holds twice counted twice."""

MAX_STRING = 1024 * 1024
"""Characters or bytes of a string that an expression makes."""

MAX_LIST = 100_000
"""Elements of a list that an expression makes."""

MAX_PATTERN = 1_000
"""Characters of a regular expression."""

MAX_STEPS = 20_000_000
"""Bytes of a text times instructions of the compiled pattern that is searched for in it: what RE2 takes at worst, at some 7 ns each."""


class Budget:
    """What is left of the work that one evaluation may do."""

    __slots__ = ("iterations", "patterns", "work")

    def __init__(self) -> None:
        self.iterations = MAX_ITERATIONS
        self.patterns: dict[str, Any] = {}
        """The compiled patterns that this evaluation has paid for."""
        self.work = MAX_WORK

    def visit(self, count: int, parts: int) -> None:
        """Charges `count` iterations of that many parts each. Raises `LimitError` when there are not so many left."""
        self.iterations -= count
        if self.iterations < 0:
            raise LimitError(f"the evaluation needs more than {MAX_ITERATIONS} iterations")
        self.charge(count * parts)

    def charge(self, units: int) -> None:
        """Charges work. Raises `LimitError` when it is used up."""
        self.work -= units
        if self.work < 0:
            raise LimitError(_USED_UP)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Calls a function whose cost grows with its arguments, and charges what it reads and what it makes."""
        self.spend(args)
        result = function(*args)
        self.spend((result,))
        return result

    def spend(self, values: tuple[Any, ...]) -> None:
        """Charges the sizes of `values`. Raises `LimitError` when the work is used up."""
        for value in values:
            if type(value) in _SIZED:
                self.work -= len(value)
        self.work -= 1
        if self.work < 0:
            raise LimitError(_USED_UP)


_SIZED = frozenset({str, bytes, list, dict})
_CONTAINERS = frozenset({list, tuple, dict})
_USED_UP = f"the evaluation reads, compares and makes more than {MAX_WORK} characters and elements: compare less, or smaller parts"


def check_result(value: Any) -> Any:
    """`value`, if it is not larger than `MAX_RESULT`. Raises `LimitError`."""
    if is_larger(value, MAX_RESULT):
        raise LimitError(f"the result has more than {MAX_RESULT} characters and elements")
    return value


def is_larger(value: Any, limit: int) -> bool:
    """Whether a value has more characters, bytes and elements than that: a small list can hold a large text many times."""
    left = limit
    waiting = [value]
    while waiting:
        part = waiting.pop()
        kind = type(part)
        if kind in _SIZED:
            left -= len(part)
            if left < 0:
                return True
            if kind in _CONTAINERS:
                waiting.extend(part.values() if kind is dict else part)
    return False
