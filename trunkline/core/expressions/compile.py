"""From a checked tree to a Python function.

Two forms of every expression. The fast one inlines what the static types allow, and stops at the first error; it is right whenever it
ends without one, as `&&`, `||`, `all` and `exists` only absorb errors. When it raises, the exact one evaluates the whole
again, with CEL's rules of errors and checks of every type, and gives the result or the error that counts.

The code is built as Python syntax nodes of an allow-list: no text of a user becomes Python text, names are ours, and no attribute of any
value is read but those of the context that `Variable.access` declares. Line and column of every node are those of the
expression, so that a traceback tells where an error arose.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from types import TracebackType
from typing import Any

from trunkline.core.expressions import operators
from trunkline.core.expressions.cost import is_crowded, makes_containers
from trunkline.core.expressions.generate import Generator, load
from trunkline.core.expressions.limits import Budget, check_result
from trunkline.core.expressions.syntax import Node, Place
from trunkline.core.expressions.types import SIMPLE, CelType
from trunkline.core.expressions.values import CelError, LimitError, kind_of, normal

FILE = "<expression>"
"""What the code objects call their file: how the place of an error is found in a traceback."""

_ALLOWED = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Try, ast.ExceptHandler, ast.Return, ast.Assign,
    ast.Name, ast.Load, ast.Store, ast.Constant, ast.Call, ast.Lambda, ast.Subscript, ast.Attribute,
    ast.List, ast.Dict, ast.Compare, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.NamedExpr,
    ast.And, ast.Or, ast.Not, ast.USub, ast.Add, ast.Sub, ast.Mult,
    ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.Is, ast.IsNot,
)  # fmt: skip


def build(tree: Node, *, exact: bool, loops: bool, result: Callable[[Any], Any] | None) -> tuple[Any, dict[str, Any]]:
    """The function for a checked tree, and the globals it runs with: what it calls, its constants, and no builtins.

    The fast form hands its errors to the global `recover`, which the caller puts there. `result` checks what comes out.
    """
    crowded = is_crowded(tree)
    generator = Generator(exact=exact, crowded=crowded)
    value = generator.node(tree)
    if tree.type.kind not in SIMPLE and makes_containers(tree):
        value = generator.at(tree.place, generator.call(check_result, value))
    if result is not None:
        value = generator.at(tree.place, generator.call(result, value))
    body: list[ast.stmt] = [ast.Return(value)]
    if loops or crowded:
        body.insert(0, ast.Assign([ast.Name("budget", ast.Store())], generator.call(Budget)))
    if not exact:
        generator.namespace["ERRORS"] = (*operators.ERRORS, LimitError)
        recover = ast.Call(load("recover"), [load("error"), load("event"), load("ctx")], [])
        handler = ast.ExceptHandler(load("ERRORS"), "error", [ast.Return(recover)])
        body = [ast.Try(body, [handler], [], [])]
    parameters = ast.arguments([], [ast.arg("event"), ast.arg("ctx")], None, [], [], None, [ast.Constant(None)])
    function = ast.FunctionDef("evaluate", parameters, body, [], lineno=1, col_offset=0)
    module = ast.Module([function], [])
    ast.fix_missing_locations(module)
    _verify(module, generator.namespace)
    namespace = {"__builtins__": {}, **generator.namespace}
    exec(compile(module, FILE, "exec"), namespace)  # noqa: S102 - of verified nodes, without builtins
    return namespace["evaluate"], namespace


def place_of(traceback: TracebackType | None) -> Place | None:
    """Where in its expression an error arose, told by the innermost frame of compiled code."""
    found = None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == FILE:
            found = traceback
        traceback = traceback.tb_next
    if found is None:
        return None
    positions = list(found.tb_frame.f_code.co_positions())
    line, _, column, _ = positions[found.tb_lasti // 2]
    return Place(line, column) if line is not None and column is not None else None


def result_check(expected: CelType) -> Callable[[Any], Any]:
    """What checks a result whose type only the evaluation knows."""
    if expected.kind == "bool" and not expected.nullable:
        return operators.truth
    kinds = {"map" if expected.kind == "object" else expected.kind} | ({"null"} if expected.nullable else set())

    def check(value: Any) -> Any:
        value = normal(value)
        if kind_of(value) not in kinds:
            raise CelError(f"the result must be {expected}, and is {kind_of(value)}")
        return value

    return check


def _verify(module: ast.Module, namespace: dict[str, Any]) -> None:
    """Refuses to run what the generator must never make: the last fence, should it have a fault."""
    own = {"event", "ctx", "budget", "error", "recover"}
    for node in ast.walk(module):
        if not isinstance(node, _ALLOWED):
            raise AssertionError(f"{type(node).__name__} is not on the allow-list")  # noqa: TRY004 - a fault of ours
        if isinstance(node, ast.Name):
            local = node.id[:1] in "vt" and node.id[1:].isdigit()
            if not (local or node.id in own or node.id in namespace):
                raise AssertionError(f"the name {node.id!r} is not on the allow-list")
        if isinstance(node, ast.Attribute):
            context = isinstance(node.value, ast.Name) and node.value.id == "ctx"
            if not context or node.attr.startswith("_"):
                raise AssertionError("only attributes of the context are on the allow-list")
