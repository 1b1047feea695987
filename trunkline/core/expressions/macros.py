"""The loops behind CEL's macros. Each visit is charged to the evaluation's budget before it begins: `parts` is what one evaluates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trunkline.core.expressions.limits import Budget
from trunkline.core.expressions.operators import ERRORS, PLAIN, truth
from trunkline.core.expressions.values import CelError, from_key, kind_of, normal

Body = Callable[[Any], Any]


def elements(of: Any, budget: Budget, parts: int) -> list[Any]:
    """What a macro visits: the elements of a list, the keys of a map."""
    of = normal(of)
    if type(of) is dict:
        budget.visit(len(of), parts)
        return [from_key(key) for key in of]
    if type(of) is list:
        budget.visit(len(of), parts)
        return [item if type(item) in PLAIN else normal(item) for item in of]
    raise CelError(f"no such overload: a macro needs a list or a map, found {kind_of(of)}")


def exists(of: Any, body: Body, budget: Budget, parts: int) -> bool:
    """Whether the body holds for any element; the first error ends it."""
    for item in elements(of, budget, parts):
        found = body(item)
        if found is True or (found is not False and truth(found)):
            return True
    return False


def every(of: Any, body: Body, budget: Budget, parts: int) -> bool:
    """Whether the body holds for all elements; the first error ends it."""
    for item in elements(of, budget, parts):
        found = body(item)
        if found is False or (found is not True and not truth(found)):
            return False
    return True


def exists_lenient(of: Any, body: Body, budget: Budget, parts: int) -> bool:
    """`exists` with CEL's rule of errors: one true decides, whatever the others do."""
    return _decide(of, body, budget, parts, decisive=True)


def every_lenient(of: Any, body: Body, budget: Budget, parts: int) -> bool:
    """`all` with CEL's rule of errors: one false decides, whatever the others do."""
    return _decide(of, body, budget, parts, decisive=False)


def _decide(of: Any, body: Body, budget: Budget, parts: int, *, decisive: bool) -> bool:
    trouble: Exception | None = None
    for item in elements(of, budget, parts):
        try:
            if truth(body(item)) is decisive:
                return decisive
        except ERRORS as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return not decisive


def exists_one(of: Any, body: Body, budget: Budget, parts: int) -> bool:
    """Whether the body holds for exactly one element; any error is one."""
    return sum(truth(body(item)) for item in elements(of, budget, parts)) == 1


def filtered(of: Any, body: Body, budget: Budget, parts: int) -> list[Any]:
    """The elements for which the body holds."""
    return [item for item in elements(of, budget, parts) if truth(body(item))]


def mapped(of: Any, body: Body, budget: Budget, parts: int) -> list[Any]:
    """What the body makes of each element."""
    return [body(item) for item in elements(of, budget, parts)]


def mapped_where(of: Any, condition: Body, body: Body, budget: Budget, parts: int) -> list[Any]:
    """What the body makes of each element for which the condition holds."""
    return [body(item) for item in elements(of, budget, parts) if truth(condition(item))]
