"""`compile_expression` and what it gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.expressions.check import Checker
from trunkline.core.expressions.compile import build, place_of, result_check
from trunkline.core.expressions.parse import SyntaxProblem, parse
from trunkline.core.expressions.syntax import Node, Place
from trunkline.core.expressions.types import DYN, SIMPLE, CelType, cel_to_avro, fits, type_of_avro
from trunkline.core.expressions.values import CelError, LimitError
from trunkline.core.expressions.variables import STANDARD, Variable

_SHOWN = 200


class ExpressionError(RejectedError):
    """An expression failed on one event. Names the expression, the column and the reason, never the event's values."""

    code = "expression.failed"


class Expression:
    """A compiled expression: `expression(event, ctx)`, or `expression.fn(event, ctx)` where every nanosecond counts.

    `type` is its static type, `names` the paths of the variables it reads, `("event", "dep_delay")` for one. `path` is its own path
    if it is nothing but one. `fn` raises `ExpressionError`.
    """

    __slots__ = ("_avro", "fn", "names", "path", "text", "type")

    def __init__(
        self,
        text: str,
        fn: Callable[[Any, Any], Any],
        type_: CelType,
        names: frozenset[tuple[str, ...]],
        path: tuple[str, ...] | None,
        avro: Any,
    ) -> None:
        self.text = text
        self.fn = fn
        self.type = type_
        self.names = names
        self.path = path
        self._avro = avro

    def __call__(self, event: Any, ctx: Any = None) -> Any:
        return self.fn(event, ctx)

    def datum(self, event: Any, ctx: Any = None) -> Any:
        """The result as an Avro datum of `avro_schema`: a bare field of the event comes as it is there, a Decimal for one."""
        if self.path is None or self.path[0] != "event":
            return self.fn(event, ctx)
        value = event
        for index, name in enumerate(self.path[1:]):
            if type(value) is not dict or name not in value:
                raise _failed(self.text, f"no such key: {name!r}", Place(1, 1 + len(".".join(self.path[: index + 1]))))
            value = value[name]
        return value

    @property
    def avro_schema(self) -> Any:
        """The Avro schema (JSON form) of what `datum` gives. Raises `ConfigurationError` where the type has none."""
        if self.path is not None and self.path[0] == "event" and self._avro is not None:
            branches = self._avro if isinstance(self._avro, list) else [self._avro]
            return ["null", *(one for one in branches if one != "null")] if self.type.nullable else self._avro
        return cel_to_avro(self.type)

    def __repr__(self) -> str:
        return f"<Expression {self.text!r}: {self.type}>"


def compile_expression(
    text: str,
    *,
    schema: Any = None,
    variables: Sequence[Variable] = STANDARD,
    expect: CelType | None = None,
    where: str | None = None,
) -> Expression:
    """Parses, checks and compiles an expression.

    `schema` is the Avro schema of `event` (JSON form); without one its fields are known at evaluation only. `expect` is the type
    that the result must have: where the static type leaves it open, every result is checked. `where` says in messages which
    place of a manifest the expression stands in.

    Raises `ConfigurationError` with line, column and the nearest valid name: `expression.syntax`, `.unknown_field`, `.unknown_name`,
    `.unknown_function`, `.wrong_type`, `.too_large`, `.bad_schema`.
    """
    try:
        # The same text stands in a check and in what is built, and again after each change of another manifest.
        if variables is STANDARD and (expect is None or expect.kind in SIMPLE):
            return _remembered(text, None if schema is None else json.dumps(schema), expect)
        return _compiled(text, schema, variables, expect)
    except ConfigurationError as error:
        error.where = error.where or where
        raise


@lru_cache(maxsize=8192)
def _remembered(text: str, schema: str | None, expect: CelType | None) -> Expression:
    """As `_compiled`, of the standard variables and a schema as JSON text."""
    return _compiled(text, None if schema is None else json.loads(schema), STANDARD, expect)


def _compiled(text: str, schema: Any, variables: Sequence[Variable], expect: CelType | None) -> Expression:
    if schema is not None:
        event = type_of_avro(schema)
        variables = [one._replace(type=event) if one.name == "event" else one for one in variables]
    checker = Checker(variables)
    try:
        tree = parse(text)
        found = checker.check(tree)
        if expect is not None and not fits(found, expect):
            raise SyntaxProblem(
                f"the expression must be {expect}, and is {found}", tree.place, code="expression.wrong_type"
            )
        fn = _function(text, tree, found, expect, loops=checker.macros)
    except SyntaxProblem as problem:
        raise ConfigurationError(
            _placed(text, problem.message, problem.place), hint=problem.hint, code=problem.code
        ) from None
    except RecursionError:
        raise ConfigurationError(
            "the expression is nested too deep", hint="split it into steps", code="expression.too_large"
        ) from None
    return Expression(text, fn, found, frozenset(checker.names), checker.path_of(tree), found.avro)


def _function(
    text: str, tree: Node, found: CelType, expect: CelType | None, *, loops: bool
) -> Callable[[Any, Any], Any]:
    """The fast function, which falls back to the exact one (made at the first error) when it raises."""
    check = None
    if expect is not None and expect != DYN and (found.is_dyn or (found.nullable and not expect.nullable)):
        check = result_check(expect)
    fast, namespace = build(tree, exact=False, loops=loops, result=check)
    exact: list[Callable[[Any, Any], Any]] = []

    def recover(error: Exception, event: Any, ctx: Any) -> Any:
        if isinstance(error, LimitError):
            raise _failed(text, str(error), place_of(error.__traceback__)) from None
        if not exact:
            exact.append(build(tree, exact=True, loops=loops, result=check)[0])
        try:
            return exact[0](event, ctx)
        except (CelError, LimitError) as trouble:
            raise _failed(text, str(trouble), place_of(trouble.__traceback__)) from None
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as trouble:
            raise _failed(text, _reason(trouble), place_of(trouble.__traceback__)) from None
        except RecursionError:
            raise _failed(text, "the value is nested too deep", None) from None

    namespace["recover"] = recover
    return fast  # type: ignore[no-any-return]


def _reason(error: Exception) -> str:
    """Of an error that Python raised: what it is, without its text, which may quote a value."""
    return {KeyError: "no such key", TypeError: "no such overload"}.get(type(error), type(error).__name__)


def _failed(text: str, reason: str, place: Place | None) -> ExpressionError:
    return ExpressionError(_placed(text, reason, place))


def _placed(text: str, message: str, place: Place | None) -> str:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    if place is None:
        return f"{message}, in: {shown}"
    where = f"column {place.column}" if "\n" not in text else f"line {place.line}, column {place.column}"
    return f"{message}, at {where} of: {shown}"
