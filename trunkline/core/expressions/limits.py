"""How much an expression may be and do. Texts come from manifests, consoles and filters: all of them are input of others.

A text is bounded when it is compiled (`MAX_TEXT`, `MAX_NODES`, `MAX_DEPTH`), its work when it is evaluated: every evaluation
with a macro has a `Budget` of iterations, and of characters and elements that its calls read or make.
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
"""Characters, bytes and elements that calls inside macros may read and make in one evaluation."""

MAX_STRING = 1024 * 1024
"""Characters or bytes of a string that an expression makes."""

MAX_LIST = 100_000
"""Elements of a list that an expression makes."""

MAX_PATTERN = 1_000
"""Characters of a regular expression."""


class Budget:
    """What is left of the work that one evaluation may do."""

    __slots__ = ("iterations", "work")

    def __init__(self) -> None:
        self.iterations = MAX_ITERATIONS
        self.work = MAX_WORK

    def visit(self, count: int) -> None:
        """Charges `count` iterations. Raises `LimitError` when there are not so many left."""
        self.iterations -= count
        if self.iterations < 0:
            raise LimitError(f"the evaluation needs more than {MAX_ITERATIONS} iterations")

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
            raise LimitError("the evaluation reads and makes too much inside its macros")


_SIZED = frozenset({str, bytes, list, dict})
