"""From a checked syntax tree to a Python one: what is inlined, and what calls a function of ours."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from trunkline.core.expressions import macros, metered, operators, patterns
from trunkline.core.expressions.conversions import to_duration, to_timestamp
from trunkline.core.expressions.cost import is_linear, weight
from trunkline.core.expressions.functions import FUNCTIONS
from trunkline.core.expressions.limits import Budget
from trunkline.core.expressions.patterns import compiled
from trunkline.core.expressions.syntax import (
    Binary,
    Call,
    Ident,
    Index,
    ListLiteral,
    Literal,
    Logic,
    Macro,
    MapLiteral,
    Node,
    Place,
    Select,
    Ternary,
    Unary,
)
from trunkline.core.expressions.times import PARTS
from trunkline.core.expressions.types import NUMBERS, SIMPLE, CelType
from trunkline.core.expressions.values import INT_MAX, INT_MIN, TypeValue, normal
from trunkline.core.expressions.variables import Variable

_COMPARE: dict[str, type[ast.cmpop]] = {
    "==": ast.Eq,
    "!=": ast.NotEq,
    "<": ast.Lt,
    "<=": ast.LtE,
    ">": ast.Gt,
    ">=": ast.GtE,
}
_GENERAL: dict[str, Callable[[Any, Any], Any]] = {
    "==": operators.equal,
    "!=": operators.not_equal,
    "<": operators.less,
    "<=": operators.less_equal,
    ">": operators.greater,
    ">=": operators.greater_equal,
    "in": operators.contained,
    "+": operators.add,
    "-": operators.subtract,
    "*": operators.multiply,
    "/": operators.divide,
    "%": operators.modulo,
}
_INLINE: dict[str, type[ast.operator]] = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult}
_DIRECT: dict[tuple[str, str], Callable[[Any, Any], Any]] = {
    ("+", "string"): operators.concatenate,
    ("+", "bytes"): operators.concatenate,
    ("/", "int"): operators.divide_ints,
    ("%", "int"): operators.modulo_ints,
    ("/", "double"): operators.divide_doubles,
}
_LOOPS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "exists": (macros.exists, macros.exists_lenient),
    "all": (macros.every, macros.every_lenient),
    "exists_one": (macros.exists_one, macros.exists_one),
    "filter": (macros.filtered, macros.filtered),
    "map": (macros.mapped, macros.mapped),
}
_METERED: dict[str, Callable[..., Any]] = {
    "==": metered.equal,
    "!=": metered.not_equal,
    "in": metered.contained,
    "== of texts": metered.equal_texts,
    "!= of texts": metered.not_equal_texts,
}
"""What charges the budget itself, for more than the sizes of its arguments."""
_METERED_TEXTS = {"==": "== of texts", "!=": "!= of texts"}


def load(name: str) -> ast.Name:
    """A name, read."""
    return ast.Name(name, ast.Load())


class Generator:
    """Makes Python nodes of CEL nodes. `namespace` collects the functions and constants that they name.

    With `crowded` all parts whose cost grows with the event are charged to the budget, and not only those in macros.
    """

    def __init__(self, *, exact: bool, crowded: bool = False) -> None:
        self._exact = exact
        self._crowded = crowded
        self._loops = 0
        self._temporaries = 0
        self._known: dict[int, str] = {}
        self.namespace: dict[str, Any] = {}

    # --- pieces ---

    def at(self, place: Place, node: ast.expr) -> ast.expr:
        """The node, placed where its part of the expression stands."""
        node.lineno = node.end_lineno = place.line
        node.col_offset = node.end_col_offset = place.column
        return node

    def constant(self, value: Any) -> ast.expr:
        """An object of ours as a global."""
        name = self._known.get(id(value))
        if name is None:
            name = self._known[id(value)] = f"k{len(self._known)}"
            self.namespace[name] = value
        return load(name)

    @property
    def _charges(self) -> bool:
        """Whether linear parts are charged here."""
        return bool(self._loops) or self._crowded

    def metered(self, function: Callable[..., Any], *args: ast.expr) -> ast.expr:
        """A call of a function of ours that charges the budget itself."""
        return ast.Call(self.constant(function), [load("budget"), *args], [])

    def call(self, function: Callable[..., Any], *args: ast.expr, linear: bool = False) -> ast.expr:
        """A call of a function of ours, charged to the budget where its cost grows and there is one."""
        if linear and self._charges:
            self.namespace["spend"] = Budget.call
            return ast.Call(load("spend"), [load("budget"), self.constant(function), *args], [])
        return ast.Call(self.constant(function), list(args), [])

    def _fast(self, *types: CelType) -> bool:
        """Whether inlined code may rely on these types."""
        return not self._exact and not any(found.is_dyn or found.kind == "null" for found in types)

    def truth(self, node: Node) -> ast.expr:
        """A node whose value must be a bool."""
        value = self.node(node)
        if self._fast(node.type) and node.type.kind == "bool" and not node.type.nullable:
            return value
        return self.at(node.place, self.call(operators.truth, value))

    def read(self, value: ast.expr, found: CelType) -> ast.expr:
        """A value that comes from the event, as CEL sees it."""
        return self.call(normal, value) if found.is_dyn or found.foreign else value

    # --- nodes ---

    def node(self, node: Node) -> ast.expr:
        """The Python node for any CEL node."""
        return self.at(node.place, self._make(node))

    def _make(self, node: Node) -> ast.expr:
        match node:
            case Literal():
                plain = type(node.value) in {int, float, str, bytes, bool, type(None)}
                return ast.Constant(node.value) if plain else self.constant(node.value)
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Index():
                return self._index(node)
            case Call():
                return self._call(node)
            case ListLiteral():
                return ast.List([self.node(item) for item in node.items], ast.Load())
            case MapLiteral():
                return self._map(node)
            case Logic():
                return self._logic(node)
            case Unary():
                return self._unary(node)
            case Binary():
                return self._binary(node)
            case Ternary():
                return ast.IfExp(self.truth(node.condition), self.node(node.yes), self.node(node.no))
            case Macro():
                return self._macro(node)
        raise AssertionError(node)

    def _operand(self, node: Node) -> ast.expr:
        """What stands before a dot or a bracket: `select`, `has` and `index` see to foreign values themselves."""
        return self.at(node.place, self._ident(node, inner=True)) if isinstance(node, Ident) else self.node(node)

    def _ident(self, node: Ident, *, inner: bool = False) -> ast.expr:
        if isinstance(node.binding, str):
            return load(node.binding)
        if isinstance(node.binding, TypeValue):
            return self.constant(node.binding)
        assert isinstance(node.binding, Variable)
        root, _, attribute = node.binding.access.partition(".")
        value: ast.expr = load(root)
        if attribute:
            value = ast.Attribute(value, attribute, ast.Load())
        return value if inner else self.call(normal, value) if self._exact else self.read(value, node.type)

    def _select(self, node: Select) -> ast.expr:
        if isinstance(node.binding, TypeValue):
            return self.constant(node.binding)
        operand, name = self._operand(node.operand), ast.Constant(node.name)
        known = self._fast(node.operand.type) and node.operand.type.kind in {"object", "map"}
        if node.test:
            if known and not node.operand.type.nullable:
                return ast.Compare(name, [ast.In()], [operand])
            return self.call(operators.has, operand, name)
        if known:
            return self.read(ast.Subscript(operand, name, ast.Load()), node.type)
        return self.call(operators.select, operand, name)

    def _index(self, node: Index) -> ast.expr:
        operand, at = self._operand(node.operand), self.node(node.index)
        if self._fast(node.operand.type, node.index.type) and node.index.type.kind == "string":
            if node.operand.type.kind == "map" and node.operand.type.args[0].kind == "string":
                return self.read(ast.Subscript(operand, at, ast.Load()), node.type)
            if node.operand.type.kind == "object" and isinstance(node.index, Literal):
                return self.read(ast.Subscript(operand, at, ast.Load()), node.type)
        return self.call(operators.index, operand, at)

    def _map(self, node: MapLiteral) -> ast.expr:
        if all(isinstance(key, Literal) and type(key.value) is str for key, _ in node.entries):
            return ast.Dict(
                [self.node(key) for key, _ in node.entries], [self.node(value) for _, value in node.entries]
            )
        return self.call(operators.make_map, *(self.node(part) for entry in node.entries for part in entry))

    def _logic(self, node: Logic) -> ast.expr:
        if not self._exact:
            operator: ast.boolop = ast.And() if node.operator == "&&" else ast.Or()
            return ast.BoolOp(operator, [self.truth(item) for item in node.items])
        decide = operators.all_of if node.operator == "&&" else operators.any_of
        return self.call(decide, *(self._lambda([], self.node(item)) for item in node.items))

    def _lambda(self, names: list[str], body: ast.expr) -> ast.expr:
        return ast.Lambda(ast.arguments([], [ast.arg(name) for name in names], None, [], [], None, []), body)

    def _unary(self, node: Unary) -> ast.expr:
        found = node.operand.type
        if node.operator == "!":
            if self._fast(found) and not found.nullable:
                return ast.UnaryOp(ast.Not(), self.node(node.operand))
            return self.call(operators.negation, self.node(node.operand))
        if self._fast(found) and found.kind == "double":
            return ast.UnaryOp(ast.USub(), self.node(node.operand))
        return self.call(operators.negate, self.node(node.operand))

    def _macro(self, node: Macro) -> ast.expr:
        target = self.node(node.target)
        name = self._macro_variable()
        self._loops += 1
        parts = [node.body] if node.condition is None else [node.condition, node.body]
        bodies = [self._lambda([name], self.node(part)) for part in parts]
        self._loops -= 1
        loop = macros.mapped_where if node.condition is not None else _LOOPS[node.name][self._exact]
        return self.call(loop, target, *bodies, load("budget"), ast.Constant(weight(*parts)))

    def _macro_variable(self) -> str:
        return f"v{self._loops}"

    # --- operators and calls ---

    def _binary(self, node: Binary) -> ast.expr:
        left, right, operator = node.left.type, node.right.type, node.operator
        if operator in {"==", "!="} and "null" in {left.kind, right.kind} and _is_null(node):
            other = node.left if right.kind == "null" else node.right
            if isinstance(other, Literal):
                return ast.Constant((other.value is None) == (operator == "=="))
            same: ast.cmpop = ast.Is() if operator == "==" else ast.IsNot()
            return ast.Compare(self.node(other), [same], [ast.Constant(None)])
        linear = is_linear(node)
        if self._fast(left, right) and not (linear and self._charges and operator != "+"):
            inlined = self._inline(node, left, right, operator)
            if inlined is not None:
                return inlined
        if linear and self._charges and operator in _METERED:
            if (
                self._fast(left, right)
                and operator in _METERED_TEXTS
                and left.kind == right.kind in {"string", "bytes"}
            ):
                operator = _METERED_TEXTS[operator]
            return self.metered(_METERED[operator], self.node(node.left), self.node(node.right))
        return self.call(_GENERAL[operator], self.node(node.left), self.node(node.right), linear=linear)

    def _inline(self, node: Binary, left: CelType, right: CelType, operator: str) -> ast.expr | None:
        """The code for an operator whose meaning Python's own has for these types, or None."""
        alike = left.kind == right.kind and left.kind in SIMPLE
        if operator in _COMPARE and (alike or {left.kind, right.kind} <= NUMBERS):
            return ast.Compare(self.node(node.left), [_COMPARE[operator]()], [self.node(node.right)])
        if operator == "in":
            return self._inline_in(node, left, right)
        if not alike:
            return None
        if operator in _INLINE and left.kind == "double":
            return ast.BinOp(self.node(node.left), _INLINE[operator](), self.node(node.right))
        if operator in _INLINE and left.kind == "int":
            return self._bounded(ast.BinOp(self.node(node.left), _INLINE[operator](), self.node(node.right)))
        direct = _DIRECT.get((operator, left.kind))
        if direct is None:
            return None
        return self.call(direct, self.node(node.left), self.node(node.right), linear=operator == "+")

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries - 1}"

    def _bounded(self, value: ast.expr) -> ast.expr:
        """An int result, which 64 bits must hold."""
        name = self._temporary()
        within = ast.Compare(
            ast.Constant(INT_MIN),
            [ast.LtE(), ast.LtE()],
            [ast.NamedExpr(ast.Name(name, ast.Store()), value), ast.Constant(INT_MAX)],
        )
        return ast.IfExp(within, load(name), self.call(operators.overflow))

    def _inline_in(self, node: Binary, left: CelType, right: CelType) -> ast.expr | None:
        if left.kind not in SIMPLE - {"double"}:
            return None
        if right.kind in {"map", "object"} and left.kind == "string":
            return ast.Compare(self.node(node.left), [ast.In()], [self.node(node.right)])
        if right.kind != "list" or right.args[0].kind != left.kind or right.args[0].foreign:
            return None
        if isinstance(node.right, ListLiteral) and all(isinstance(item, Literal) for item in node.right.items):
            values = frozenset(item.value for item in node.right.items if isinstance(item, Literal))
            return ast.Compare(self.node(node.left), [ast.In()], [self.constant(values)])
        return ast.Compare(self.node(node.left), [ast.In()], [self.node(node.right)])

    def _call(self, node: Call) -> ast.expr:
        function = FUNCTIONS[node.name]
        folded = self._folded(node)
        if folded is not None:
            return folded
        if node.name == "matches" and self._charges:
            return self.metered(metered.matches, *(self.node(arg) for arg in node.args))
        run = function.run
        # A null must meet the check of types: to an unchecked function it may look like an argument left out, or an empty one.
        if self._fast(*(arg.type for arg in node.args)) and not any(arg.type.nullable for arg in node.args):
            run = function.fast.get(tuple(arg.type.kind for arg in node.args), run)
        if node.name in PARTS and len(node.args) > 1 and not isinstance(node.args[1], Literal) and self._charges:
            return self.metered(metered.in_zone, self.constant(run), *(self.node(arg) for arg in node.args))
        return self.call(run, *(self.node(arg) for arg in node.args), linear=function.linear)

    def _folded(self, node: Call) -> ast.expr | None:
        """Constants of calls with literals: a moment, a duration, a compiled pattern."""
        last = node.args[-1] if node.args else None
        if not isinstance(last, Literal) or type(last.value) is not str:
            return None
        if node.name in {"timestamp", "duration"} and len(node.args) == 1:
            folded: datetime | timedelta = (
                to_timestamp(last.value) if node.name == "timestamp" else to_duration(last.value)
            )
            return self.constant(folded)
        if node.name == "matches" and self._fast(node.args[0].type) and not self._charges:
            return self._search(compiled(last.value), self.node(node.args[0]))
        return None

    def _search(self, pattern: Any, text: ast.expr) -> ast.expr:
        """A search, inlined for all texts but those that may be too long for the pattern."""
        name = self._temporary()
        self.namespace["len"] = len
        known = ast.NamedExpr(ast.Name(name, ast.Store()), text)
        short = ast.Compare(
            ast.Call(load("len"), [known], []), [ast.LtE()], [ast.Constant(patterns.most_characters(pattern))]
        )
        found = ast.Compare(self.call(pattern.search, load(name)), [ast.IsNot()], [ast.Constant(None)])
        return ast.IfExp(short, found, self.call(patterns.searched, load(name), self.constant(pattern)))


def _is_null(node: Binary) -> bool:
    return any(isinstance(side, Literal) and side.value is None for side in (node.left, node.right))
