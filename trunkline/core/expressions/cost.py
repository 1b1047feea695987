"""What an expression can cost, as far as its text tells: which of its parts take longer the larger an event is.

A part that takes the time of the event's size does so once for each time that it stands in the text. A few of them cost no more than
decoding the event did, and are not counted at work; more of them, and those that a macro repeats, are charged to a budget.
"""

from __future__ import annotations

from collections.abc import Iterator

from trunkline.core.expressions.functions import FUNCTIONS
from trunkline.core.expressions.limits import MAX_UNCHARGED
from trunkline.core.expressions.syntax import (
    Binary,
    Call,
    Index,
    ListLiteral,
    Literal,
    Logic,
    Macro,
    MapLiteral,
    Node,
    Select,
    Ternary,
    Unary,
)

_COMPARING = frozenset({"==", "!=", "<", "<=", ">", ">="})
_GROWING = frozenset({"string", "bytes", "list", "map", "object", "dyn"})
"""The kinds of values that have a size."""


def is_crowded(tree: Node) -> bool:
    """Whether there are so many linear parts that each has to be charged, also outside of macros."""
    return sum(map(_counts, parts(tree))) > MAX_UNCHARGED


def makes_containers(tree: Node) -> bool:
    """Whether the result may hold the same part of an event many times: a list or a map is made somewhere."""
    return any(
        isinstance(node, (MapLiteral, Macro)) or (isinstance(node, ListLiteral) and not _is_constant_list(node))
        for node in parts(tree)
    )


def weight(*bodies: Node) -> int:
    """The number of parts that one round of a macro evaluates. Macros in it are charged for their own rounds."""
    return sum(1 for body in bodies for _ in parts(body))


def is_linear(node: Node) -> bool:
    """Whether the time of this part alone, without those below, grows with the size of its operands."""
    if isinstance(node, Call):
        return FUNCTIONS[node.name].linear
    if not isinstance(node, Binary):
        return False
    if node.operator in _COMPARING:
        # What is compared with a constant is looked at no further than the constant goes.
        constant = isinstance(node.left, Literal) or isinstance(node.right, Literal)
        return not constant and node.left.type.kind in _GROWING and node.right.type.kind in _GROWING
    if node.operator == "in":
        return node.right.type.kind in {"list", "dyn"} and not _is_constant_list(node.right)
    return node.operator == "+" and node.left.type.kind in _GROWING


def _counts(node: Node) -> int:
    """How much a part adds to what makes an expression crowded."""
    if isinstance(node, Binary) and node.operator == "+" and node.left.type.kind in {"string", "bytes"}:
        return 0  # a copy of a megabyte, which is all that a text may have, takes no time
    if isinstance(node, Call) and node.name in {"startsWith", "endsWith"} and isinstance(node.args[-1], Literal):
        return 0
    if isinstance(node, Call) and node.name == "matches":
        return 2
    return int(is_linear(node))


def _is_constant_list(node: Node) -> bool:
    return isinstance(node, ListLiteral) and all(isinstance(item, Literal) for item in node.items)


def parts(tree: Node) -> Iterator[Node]:
    """Every node of a tree."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(_below(node))


def _below(node: Node) -> list[Node]:
    match node:
        case Select():
            return [node.operand]
        case Index():
            return [node.operand, node.index]
        case Call():
            return node.args
        case ListLiteral() | Logic():
            return node.items
        case MapLiteral():
            return [part for entry in node.entries for part in entry]
        case Unary():
            return [node.operand]
        case Binary():
            return [node.left, node.right]
        case Ternary():
            return [node.condition, node.yes, node.no]
        case Macro():
            return [node.target, node.body, *([node.condition] if node.condition is not None else [])]
    return []
