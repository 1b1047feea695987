"""From text to syntax tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from trunkline.core.errors import ConfigurationError
from trunkline.core.expressions import literals
from trunkline.core.expressions.grammar import GRAMMAR, RESERVED, TOKENS
from trunkline.core.expressions.limits import MAX_DEPTH, MAX_TEXT
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
from trunkline.core.expressions.values import INT_MAX

MACROS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})


class SyntaxProblem(Exception):  # noqa: N818 - never leaves this package: `compile_expression` makes a ConfigurationError of it
    """What is wrong with a text, and where. `hint` says what to do, `code` is the error's."""

    def __init__(self, message: str, place: Place, *, hint: str | None = None, code: str = "expression.syntax") -> None:
        super().__init__(message)
        self.message, self.place, self.hint, self.code = message, place, hint, code


def parse(text: str) -> Node:
    """The syntax tree of an expression. Raises `SyntaxProblem`, and `ConfigurationError` for a text that is too long."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_TEXT:
        raise ConfigurationError(
            f"the expression has {size} bytes, more than {MAX_TEXT}",
            code="expression.too_large",
            hint="split it into steps",
        )
    try:
        tree = _parser().parse(text)
    except UnexpectedToken as error:
        raise SyntaxProblem(_unexpected(error), _place(error, text), hint=_expected(error.expected)) from None
    except UnexpectedCharacters as error:
        raise SyntaxProblem(
            _stray(text, error.pos_in_stream or 0), _place(error, text), hint=_expected(error.allowed)
        ) from None
    assert isinstance(tree, Node)
    return tree


@cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", lexer="contextual", transformer=_Builder(), maybe_placeholders=True)


def _place(error: UnexpectedInput, text: str) -> Place:
    ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
    if error.line > 0 and not ended:
        return Place(error.line, error.column)
    return Place(text.count("\n") + 1, len(text) - text.rfind("\n"))


def _unexpected(error: UnexpectedToken) -> str:
    token = error.token
    if token.type == "$END":
        return "the expression ends too early"
    return f"unexpected {str(token)[:30]!r}"


def _stray(text: str, position: int) -> str:
    char = text[position]
    if char in "\"'":
        return "the string is not closed"
    if char == "=":
        return "'=' is no operator: equality is =="
    return f"unexpected {char!r}"


def _expected(names: Sequence[str] | set[str] | None) -> str | None:
    known = sorted({TOKENS[name] for name in names or () if name in TOKENS})
    return f"expected {' or '.join(known)}" if known and len(known) <= 6 else None


def _at(token: Token) -> Place:
    return Place(token.line or 1, token.column or 1)


def _raised(node: Node, *children: Node) -> Node:
    """The node with its depth noted. Raises `SyntaxProblem` for a tree that is too deep."""
    node.depth = 1 + max((child.depth for child in children), default=0)
    if node.depth > MAX_DEPTH:
        raise SyntaxProblem(
            f"the expression is nested more than {MAX_DEPTH} levels deep",
            node.place,
            hint="split it into steps",
            code="expression.too_large",
        )
    return node


@v_args(inline=True)
class _Builder(Transformer[Token, Any]):
    """Makes nodes as the parser reduces, so that no depth of nesting recurses here. The methods are the rules of the grammar."""

    def start(self, tree: Node) -> Node:
        return tree

    def ternary(self, condition: Node, yes: Node, no: Node) -> Node:
        return _raised(Ternary(condition.place, condition, yes, no), condition, yes, no)

    def logic(self, left: Node, operator: Token, right: Node) -> Node:
        if isinstance(left, Logic) and left.operator == str(operator) and not _grouped(left):
            left.items.append(right)
            return _raised(left, *left.items[:1], right) if right.depth >= left.depth else left
        return _raised(Logic(_at(operator), str(operator), [left, right]), left, right)

    def binary(self, left: Node, operator: Token, right: Node) -> Node:
        return _raised(Binary(_at(operator), str(operator), left, right), left, right)

    def unary(self, operator: Token, operand: Node) -> Node:
        if str(operator) == "-" and isinstance(operand, Literal) and type(operand.value) in {int, float}:
            plain = operand.value >= 0 and str(operand.value) != "-0.0"
            if plain and operand.depth == 1:
                negative = Literal(_at(operator), -operand.value)
                negative.depth = 2
                return negative
        return _raised(Unary(_at(operator), str(operator), operand), operand)

    def select(self, operand: Node, name: Token) -> Node:
        return _raised(Select(_at(name), operand, str(name).strip("`")), operand)

    def selector(self, name: Token) -> Token:
        return name

    def index(self, operand: Node, bracket: Token, index: Node) -> Node:
        return _raised(Index(_at(bracket), operand, index), operand, index)

    def method(self, target: Node, name: Token, arguments: list[Node] | None) -> Node:
        args = arguments or []
        if str(name) in MACROS and _is_macro(str(name), args):
            return _macro(target, name, args)
        return _raised(Call(_at(name), str(name), target, args), target, *args)

    def call(self, name: Token, arguments: list[Node] | None) -> Node:
        args = arguments or []
        if str(name) == "has":
            return _has(name, args)
        _check_name(name)
        return _raised(Call(_at(name), str(name), None, args), *args)

    def ident(self, name: Token) -> Node:
        _check_name(name)
        return Ident(_at(name), str(name))

    def absolute(self, name: Token) -> Node:
        _check_name(name)
        return Ident(_at(name), str(name), absolute=True)

    def group(self, inner: Node) -> Node:
        if isinstance(inner, Literal) and type(inner.value) is int and inner.value > INT_MAX:
            raise SyntaxProblem("this int is beyond 64 bits", inner.place)
        inner.depth += 1
        if inner.depth > MAX_DEPTH:
            return _raised(inner, inner)
        return inner

    def arguments(self, *items: Node) -> list[Node]:
        return list(items)

    def elements(self, *items: Node) -> list[Node]:
        return list(items)

    def entry(self, key: Node, value: Node) -> tuple[Node, Node]:
        return key, value

    def entries(self, *items: tuple[Node, Node]) -> list[tuple[Node, Node]]:
        return list(items)

    def list_literal(self, bracket: Token, items: list[Node] | None = None) -> Node:
        return _raised(ListLiteral(_at(bracket), items or []), *(items or []))

    def map_literal(self, brace: Token, entries: list[tuple[Node, Node]] | None = None) -> Node:
        return _raised(MapLiteral(_at(brace), entries or []), *(node for entry in entries or [] for node in entry))

    def int_literal(self, token: Token) -> Node:
        # One beyond int64 may yet get its minus sign; the checker refuses it where it did not.
        return Literal(_at(token), abs(_value(token, lambda text: literals.int_value(text, negative=True))))

    def uint_literal(self, token: Token) -> Node:
        return Literal(_at(token), _value(token, literals.uint_value))

    def float_literal(self, token: Token) -> Node:
        return Literal(_at(token), _value(token, literals.float_value))

    def string_literal(self, token: Token) -> Node:
        return Literal(_at(token), _value(token, literals.string_value))

    def bytes_literal(self, token: Token) -> Node:
        return Literal(_at(token), _value(token, literals.bytes_value))

    def true_literal(self, token: Token) -> Node:
        return Literal(_at(token), True)

    def false_literal(self, token: Token) -> Node:
        return Literal(_at(token), False)

    def null_literal(self, token: Token) -> Node:
        return Literal(_at(token), None)


def _grouped(node: Logic) -> bool:
    """Whether parentheses stand around it: its depth is then more than its items make it."""
    return node.depth > 1 + max(item.depth for item in node.items)


def _value(token: Token, read: Callable[[str], Any]) -> Any:
    try:
        return read(str(token))
    except ValueError as error:
        raise SyntaxProblem(str(error), _at(token)) from None


def _check_name(name: Token) -> None:
    if str(name) in RESERVED:
        raise SyntaxProblem(f"{str(name)!r} is a reserved word", _at(name), hint="a field of that name is event.NAME")


def _is_macro(name: str, args: list[Node]) -> bool:
    return len(args) == 2 or (name == "map" and len(args) == 3)


def _macro(target: Node, name: Token, args: list[Node]) -> Node:
    variable = args[0]
    if not isinstance(variable, Ident) or variable.absolute:
        raise SyntaxProblem(f"the first argument of {name} must be a simple name", variable.place)
    condition = args[1] if len(args) == 3 else None
    kind = "exists_one" if str(name) == "existsOne" else str(name)
    return _raised(Macro(_at(name), kind, target, variable.name, args[-1], condition), target, *args)


def _has(name: Token, args: list[Node]) -> Node:
    if len(args) != 1 or not isinstance(args[0], Select) or args[0].test:
        place = args[0].place if args else _at(name)
        raise SyntaxProblem("has() takes one field, as in has(event.name)", place)
    args[0].test = True
    return args[0]
