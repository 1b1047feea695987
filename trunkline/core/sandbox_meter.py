"""Templates that could work without an end on little input: their operations are charged to what one rendering may do.

A template without loops does each of its operations once, in the time that the size of its event takes, and is not counted at
work. One with loops, or with very many operations, runs in an environment whose filters, tests, methods and operators charge
the characters and items that they read and make: a hundred thousand rounds of `event.text|upper` would hold up everybody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import wraps
from types import NoneType
from typing import Any

from jinja2 import nodes

from trunkline.core.sandbox import Sandbox, as_text, counted, limits

MAX_UNCHARGED = 16
"""Operations whose time grows with the event that a template without loops may have before they are charged."""

JSON = 300
"""What writing a list, a map or a time costs beside what is in it, in characters."""

_FREE_FILTERS = frozenset(("abs", "count", "d", "default", "first", "items", "last", "length", "round"))
_LAZY_FILTERS = frozenset(("_counted", "map", "reject", "rejectattr", "select", "selectattr"))
"""These give their items one by one, and each is counted."""
_LINEAR_TESTS = frozenset(
    (
        "in",
        "lower",
        "upper",
        "==",
        "eq",
        "equalto",
        "!=",
        "ne",
        "<",
        "lt",
        "lessthan",
        "<=",
        "le",
        ">",
        "gt",
        "greaterthan",
        ">=",
        "ge",
    )
)
_FREE_METHODS = frozenset({"get", "items", "keys", "values"})
_REPEATING = {"map": 0, "select": 0, "reject": 0, "selectattr": 1, "rejectattr": 1}
"""Filters that do something for each item, by the arguments that say no more than which items or which field."""


def needs_meter(tree: nodes.Template) -> bool:
    """Whether a template has loops, or so many operations that each has to be charged."""
    operations = 0
    for node in tree.find_all((nodes.For, nodes.Filter, nodes.Call, nodes.Compare, nodes.Test)):
        if isinstance(node, nodes.For):
            return True
        if isinstance(node, nodes.Filter):
            if node.name in _REPEATING and len(node.args) > _REPEATING[node.name]:
                return True
            operations += node.name not in _FREE_FILTERS
        elif isinstance(node, nodes.Compare):
            operations += not _is_cheap(node)
        elif isinstance(node, nodes.Test):
            operations += node.name in _LINEAR_TESTS
        else:
            operations += 1
    return operations > MAX_UNCHARGED


def metered(tree: nodes.Template) -> nodes.Template:
    """The guarded template with comparisons and slices charged, which no environment sees."""
    for compare in tree.find_all(nodes.Compare):
        if not _is_cheap(compare):
            compare.expr = _charged(compare.expr)
            for operand in compare.ops:
                operand.expr = _charged(operand.expr)
    for holder in [tree, *tree.find_all(nodes.Node)]:
        for field, child in holder.iter_fields():
            if _is_slice(child):
                setattr(holder, field, _charged(child))
            elif isinstance(child, list):
                child[:] = [_charged(item) if _is_slice(item) else item for item in child]
    return tree


def _is_cheap(compare: nodes.Compare) -> bool:
    """Whether what is compared is looked at no further than a constant of the template goes."""
    sides = [compare.expr, *(operand.expr for operand in compare.ops)]
    if any(operand.op in {"in", "notin"} for operand in compare.ops):
        return isinstance(sides[-1], (nodes.Const, nodes.List, nodes.Tuple)) and len(sides) == 2
    return len(sides) == 2 and any(isinstance(side, nodes.Const) for side in sides)


def _is_slice(node: Any) -> bool:
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)


def _charged(node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, "_charged", [], [], None, None, lineno=node.lineno)


class MeteredSandbox(Sandbox):
    """The environment of templates that are charged for what they do."""

    def __init__(self, escape: Callable[[str], str] | None = None) -> None:
        super().__init__(escape)
        free = _FREE_FILTERS | _LAZY_FILTERS
        self.filters = {name: run if name in free else _charging(run) for name, run in self.filters.items()}
        for name in _REPEATING:
            self.filters[name] = _counting(self.filters[name])
        self.filters["_charged"] = _pass_on
        self.finalize = _charging_json(self.finalize or as_text)
        known: dict[str, Any] = dict(self.tests)
        self.tests = {name: _charging(run) if name in _LINEAR_TESTS else run for name, run in known.items()}

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls, and charges owner, arguments and result."""
        name = getattr(__obj, "__name__", "")
        if name in _FREE_METHODS:
            return super().call(__context, __obj, *args, **kwargs)
        used = limits.get()
        used.spend(getattr(__obj, "__self__", None), *args)
        result = super().call(__context, __obj, *args, **kwargs)
        used.spend(result)
        return result

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic, charged."""
        result = super().call_binop(context, operator, left, right)
        limits.get().spend(result)
        return result


def _charging(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with what it reads and makes charged. Without a rendering, as when the template is compiled, it raises."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        used = limits.get()
        used.spend(*args, *kwargs.values())
        result = function(*args, **kwargs)
        if isinstance(result, Iterator):
            return counted(result)
        used.spend(result)
        return result

    return run


def _charging_json(write: Callable[[Any], str]) -> Callable[[Any], str]:
    """As `write`, with what is written as JSON charged. Constants are written when the template is compiled, at nobody's cost."""

    def run(value: Any) -> str:
        used = limits.get(None)
        if used is not None and not isinstance(value, (str, int, float, Decimal, NoneType)):
            used.work -= JSON
            used.spend(value)
        return write(value)

    return run


def _counting(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose result comes item by item, with each item counted as a round."""

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        return counted(function(*args, **kwargs))

    return run


def _pass_on(value: Any) -> Any:
    limits.get().spend(value)
    return value
