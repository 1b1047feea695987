"""The syntax tree of an expression. Every node knows its place in the text; the type checker fills in its type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trunkline.core.expressions.types import DYN, CelType


class Place(NamedTuple):
    """A place in the text, both counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Node:
    """Base of all nodes. `depth` is the height of the tree below, itself included."""

    place: Place
    type: CelType = field(default=DYN, init=False)
    depth: int = field(default=1, init=False)


@dataclass(slots=True)
class Literal(Node):
    """A constant."""

    value: Any


@dataclass(slots=True)
class Ident(Node):
    """A name. `absolute` is one with a leading dot, which no macro variable hides. `binding` is what the checker found it to be."""

    name: str
    absolute: bool = False
    binding: Any = None


@dataclass(slots=True)
class Select(Node):
    """`operand.name`, or with `test` the macro `has(operand.name)`. `binding` is set where it is the qualified name of a type."""

    operand: Node
    name: str
    test: bool = False
    binding: Any = None


@dataclass(slots=True)
class Index(Node):
    """`operand[index]`."""

    operand: Node
    index: Node


@dataclass(slots=True)
class Call(Node):
    """`name(args)` or `target.name(args)`. The checker moves the target of a method into `args`."""

    name: str
    target: Node | None
    args: list[Node]


@dataclass(slots=True)
class ListLiteral(Node):
    """`[a, b]`."""

    items: list[Node]


@dataclass(slots=True)
class MapLiteral(Node):
    """`{a: b}`."""

    entries: list[tuple[Node, Node]]


@dataclass(slots=True)
class Logic(Node):
    """`a && b && c` or `a || b || c`: flat, so that a long chain is no deep tree."""

    operator: str
    items: list[Node]


@dataclass(slots=True)
class Unary(Node):
    """`!a` or `-a`."""

    operator: str
    operand: Node


@dataclass(slots=True)
class Binary(Node):
    """Arithmetic, comparison or membership; its place is the operator's."""

    operator: str
    left: Node
    right: Node


@dataclass(slots=True)
class Ternary(Node):
    """`condition ? yes : no`."""

    condition: Node
    yes: Node
    no: Node


@dataclass(slots=True)
class Macro(Node):
    """`target.name(variable, body)`; `condition` is the predicate of the three-argument `map`."""

    name: str
    target: Node
    variable: str
    body: Node
    condition: Node | None = None
