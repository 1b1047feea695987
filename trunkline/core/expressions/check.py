"""The type checker: fills in the type of every node and finds what could never work, before anything runs.

Where the types are known an operator must have an overload for them, as in CEL's own checker; `dyn` fits everything. It is more lenient
than cel-go's in three points whose meaning CEL defines: numbers of different types may be compared with `==`, anything may be
compared with null, and a value that may be null fits where one without null is asked for (the evaluation decides).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from trunkline.core.errors import did_you_mean, nearest
from trunkline.core.expressions.conversions import to_duration, to_timestamp
from trunkline.core.expressions.functions import FUNCTIONS, Function
from trunkline.core.expressions.limits import MAX_NODES
from trunkline.core.expressions.parse import MACROS, SyntaxProblem
from trunkline.core.expressions.patterns import compiled
from trunkline.core.expressions.rules import (
    accepts,
    arithmetic_hint,
    arithmetic_results,
    compare_hint,
    joined,
    ordered,
    signatures,
)
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
from trunkline.core.expressions.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DYN,
    INT,
    NULL,
    NUMBERS,
    STRING,
    TYPE,
    UINT,
    CelType,
    comparable,
    fits,
    join,
    list_of,
    map_of,
)
from trunkline.core.expressions.values import INT_MAX, CelError, TypeValue, Uint, as_key
from trunkline.core.expressions.variables import Variable

Path = tuple[str, ...]

_LITERALS: dict[type, CelType] = {
    int: INT,
    Uint: UINT,
    float: DOUBLE,
    bool: BOOL,
    str: STRING,
    bytes: BYTES,
    type(None): NULL,
}
_TYPE_NAMES = frozenset({"bool", "bytes", "double", "int", "uint", "string", "list", "map", "null_type", "type"})
_QUALIFIED = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})
_KEYS = frozenset({"string", "int", "uint", "bool"})


class Checker:
    """Checks one tree. `names` are the paths of the variables it reads, `macros` whether it has any."""

    def __init__(self, variables: Sequence[Variable]) -> None:
        self._variables = {variable.name: variable for variable in variables}
        self._scopes: list[tuple[str, str, CelType]] = []
        self._nodes = 0
        self.names: set[Path] = set()
        self.macros = False

    def check(self, node: Node, *, inner: bool = False) -> CelType:
        """The type of a node, which it notes there. `inner` says that a select stands around it. Raises `SyntaxProblem`."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise SyntaxProblem(
                f"the expression has more than {MAX_NODES} parts", node.place, code="expression.too_large"
            )
        node.type = self._type_of(node)
        if not inner and (path := self.path_of(node)) is not None:
            self.names.add(path)
        return node.type

    def path_of(self, node: Node) -> Path | None:
        """`("event", "a", "b")` for `event.a.b` and `event["a"].b`, None for what is no path from a variable."""
        if isinstance(node, Ident):
            return (node.name,) if isinstance(node.binding, Variable) else None
        if isinstance(node, Select):
            before = self.path_of(node.operand)
            return (*before, node.name) if before is not None and node.binding is None else None
        if isinstance(node, Index) and _literal_text(node.index) is not None:
            before = self.path_of(node.operand)
            return (*before, str(_literal_text(node.index))) if before is not None else None
        return None

    def _type_of(self, node: Node) -> CelType:
        match node:
            case Literal():
                return self._literal(node)
            case Ident():
                return self._ident(node)
            case Select():
                return self._select(node)
            case Index():
                return self._index(node)
            case Call():
                return self._call(node)
            case ListLiteral():
                return list_of(joined(self.check(item) for item in node.items))
            case MapLiteral():
                return self._map(node)
            case Logic():
                for item in node.items:
                    self._bool(item, node.operator)
                return BOOL
            case Unary():
                return self._unary(node)
            case Binary():
                return self._binary(node)
            case Ternary():
                return self._ternary(node)
            case Macro():
                return self._macro(node)
        raise AssertionError(node)

    # --- names and fields ---

    def _literal(self, node: Literal) -> CelType:
        if type(node.value) is int and node.value > INT_MAX:
            raise SyntaxProblem("this int is beyond 64 bits", node.place)
        return _LITERALS[type(node.value)]

    def _ident(self, node: Ident) -> CelType:
        if not node.absolute:
            for name, local, found in reversed(self._scopes):
                if name == node.name:
                    node.binding = local
                    return found
        if node.name in self._variables:
            node.binding = self._variables[node.name]
            return self._variables[node.name].type
        if node.name in _TYPE_NAMES:
            node.binding = TypeValue(node.name)
            return TYPE
        locals_ = [name for name, _, _ in self._scopes]
        raise SyntaxProblem(
            f"there is no {node.name!r}",
            node.place,
            hint=self._name_hint(node.name, [*self._variables, *locals_]),
            code="expression.unknown_name",
        )

    def _name_hint(self, name: str, known: Iterable[str]) -> str:
        event = self._variables.get("event")
        if nearest(name, known) is None and event is not None and name in event.type.fields:
            return f"did you mean 'event.{name}'?"
        return did_you_mean(name, known)

    def _select(self, node: Select) -> CelType:
        dotted = _dotted(node)
        if dotted in _QUALIFIED and "google" not in self._variables:
            node.binding = TypeValue(dotted)
            return TYPE
        operand = self.check(node.operand, inner=True)
        found = self._field(operand, node.name, node.place)
        return BOOL if node.test else found

    def _field(self, operand: CelType, name: str, place: Place) -> CelType:
        if operand.kind == "object":
            if name not in operand.fields:
                raise SyntaxProblem(
                    f"{operand.name or 'the record'} has no field {name!r}",
                    place,
                    hint=did_you_mean(name, operand.fields),
                    code="expression.unknown_field",
                )
            return operand.fields[name]
        if operand.kind == "map" and fits(STRING, operand.args[0]):
            return operand.args[1]
        if operand.is_dyn:
            return DYN
        raise self._mismatch(f"a {operand} has no fields", place)

    def _index(self, node: Index) -> CelType:
        operand = self.check(node.operand, inner=_literal_text(node.index) is not None)
        at = self.check(node.index)
        name = _literal_text(node.index)
        if operand.kind == "object":
            if name is not None:
                return self._field(operand, name, node.index.place)
            if not fits(at, STRING):
                self._mismatch(f"a field of {operand} is named by a string, not by {at}", node.place)
            return DYN
        if operand.kind == "list":
            if not fits(at, INT):
                self._mismatch(f"an element of a list is found by an int, not by {at}", node.place)
            return operand.args[0]
        if operand.kind == "map":
            if not fits(at, operand.args[0]) and not {at.kind, operand.args[0].kind} <= NUMBERS:
                self._mismatch(f"the keys of this map are {operand.args[0]}, not {at}", node.place)
            return operand.args[1]
        if not operand.is_dyn:
            self._mismatch(f"a {operand} has no elements", node.place)
        return DYN

    def _map(self, node: MapLiteral) -> CelType:
        keys, values, seen = [], [], set()
        for key, value in node.entries:
            keys.append(self.check(key))
            values.append(self.check(value))
            if not keys[-1].is_dyn and keys[-1].kind not in _KEYS:
                self._mismatch(f"a {keys[-1]} can't be the key of a map", key.place)
            if isinstance(key, Literal):
                if as_key(key.value) in seen:
                    self._mismatch("the same key comes twice in a map", key.place)
                seen.add(as_key(key.value))
        return map_of(joined(keys), joined(values))

    # --- operators ---

    def _bool(self, node: Node, what: str) -> None:
        found = self.check(node)
        if not fits(found, BOOL):
            self._mismatch(f"{what} needs a bool, found {found}", node.place)

    def _unary(self, node: Unary) -> CelType:
        if node.operator == "!":
            self._bool(node.operand, "!")
            return BOOL
        found = self.check(node.operand)
        if found.is_dyn:
            return DYN
        if found.kind not in {"int", "double"}:
            self._mismatch(f"- of {found} is not defined", node.place)
        return INT if found.kind == "int" else DOUBLE

    def _binary(self, node: Binary) -> CelType:
        left, right = self.check(node.left), self.check(node.right)
        match node.operator:
            case "==" | "!=":
                if not comparable(left, right):
                    self._mismatch(
                        f"{left} {node.operator} {right} compares different types",
                        node.place,
                        hint=compare_hint(left, right),
                    )
                return BOOL
            case "<" | "<=" | ">" | ">=":
                if not ordered(left, right):
                    self._mismatch(
                        f"{left} {node.operator} {right} is not defined", node.place, hint=compare_hint(left, right)
                    )
                return BOOL
            case "in":
                self._membership(left, right, node)
                return BOOL
        return self._arithmetic(node, left, right)

    def _membership(self, left: CelType, right: CelType, node: Binary) -> None:
        if right.kind not in {"list", "map", "object", "dyn"}:
            self._mismatch(
                f"'in' needs a list or a map, found {right}",
                node.place,
                hint="a part of a string is found with contains()" if right.kind == "string" else None,
            )
        item = STRING if right.kind == "object" else right.args[0] if right.args else DYN
        if not comparable(left, item):
            self._mismatch(f"a {left} can't be in a {right}", node.place)

    def _arithmetic(self, node: Binary, left: CelType, right: CelType) -> CelType:
        results = arithmetic_results(node.operator, left, right)
        if not results:
            self._mismatch(
                f"{left} {node.operator} {right} is not defined",
                node.place,
                hint=arithmetic_hint(left, right),
            )
        return results.pop() if len(results) == 1 else DYN

    def _ternary(self, node: Ternary) -> CelType:
        self._bool(node.condition, "?:")
        yes, no = self.check(node.yes), self.check(node.no)
        found = join(yes, no)
        if found.is_dyn and not yes.is_dyn and not no.is_dyn:
            self._mismatch(
                f"the branches of ?: are a {yes} and a {no}",
                node.place,
                hint="make both of one type, or say dyn(…) of one",
            )
        return found

    # --- calls ---

    def _call(self, node: Call) -> CelType:
        if (
            isinstance(node.target, Ident)
            and node.target.name == "math"
            and f"math.{node.name}" in FUNCTIONS
            and "math" not in self._variables
            and not any(name == "math" for name, _, _ in self._scopes)
        ):
            node.name, node.target = f"math.{node.name}", None
        function = FUNCTIONS.get(node.name)
        method = node.target is not None
        if function is None:
            if method:
                self.check(node.target or node)
            self._unknown(node.name, node.place, method=method)
        if node.target is not None:
            node.args.insert(0, node.target)
            node.target = None
        types = [self.check(arg) for arg in node.args]
        self._literals(node)
        return self._resolve(function, types, node, method=method)

    def _resolve(self, function: Function, types: list[CelType], node: Call, *, method: bool) -> CelType:
        if function.variadic:
            return self._extreme(function, types, node)
        fitting = [one for one in function.overloads if one.method == method and accepts(one, types)]
        if not fitting:
            shown = ", ".join(map(str, types[1:] if method else types))
            text = f"{types[0]}.{node.name}({shown})" if method else f"{node.name}({shown})"
            self._mismatch(f"{text} is not defined", node.place, hint=signatures(function))
        results = {one.result for one in fitting}
        return results.pop() if len(results) == 1 else DYN

    def _extreme(self, function: Function, types: list[CelType], node: Call) -> CelType:
        items = list(types[0].args) if len(types) == 1 and types[0].kind == "list" else types
        for found in items:
            if not (found.is_dyn or found.kind in NUMBERS):
                self._mismatch(f"{node.name} needs numbers, found {found}", node.place)
        if not items or (isinstance(node.args[0], ListLiteral) and not node.args[0].items):
            self._mismatch(f"{node.name} needs at least one number", node.place)
        return joined(item.bare for item in items)

    def _unknown(self, name: str, place: Place, *, method: bool) -> NoReturn:
        known = {
            one for one, function in FUNCTIONS.items() if any(over.method == method for over in function.overloads)
        }
        hint = did_you_mean(name, known | (MACROS - {"existsOne"} if method else {"has"}))
        if name in MACROS:
            hint = f"{name} is written list.{name}(x, …)"
        raise SyntaxProblem(f"there is no function {name!r}", place, hint=hint, code="expression.unknown_function")

    def _literals(self, node: Call) -> None:
        """Reads constant timestamps, durations and patterns now, so that a bad one is found before anything runs."""
        last = node.args[-1] if node.args else None
        if not isinstance(last, Literal) or type(last.value) is not str:
            return
        reader: Any = {"timestamp": to_timestamp, "duration": to_duration, "matches": compiled}.get(node.name)
        if reader is None or len(node.args) != (2 if node.name == "matches" else 1):
            return
        try:
            reader(last.value)
        except CelError as error:
            self._mismatch(str(error), last.place)

    def _macro(self, node: Macro) -> CelType:
        self.macros = True
        target = self.check(node.target)
        if target.kind not in {"list", "map", "object", "dyn"}:
            self._mismatch(f"{node.name} needs a list or a map, found {target}", node.place)
        item = STRING if target.kind == "object" else target.args[0] if target.args else DYN
        local = f"v{len(self._scopes)}"
        self._scopes.append((node.variable, local, item))
        if node.condition is not None:
            self._bool(node.condition, node.name)
        if node.name == "map":
            body = self.check(node.body)
        else:
            self._bool(node.body, node.name)
        self._scopes.pop()
        if node.name == "map":
            return list_of(body)
        return list_of(item) if node.name == "filter" else BOOL

    def _mismatch(self, message: str, place: Place, *, hint: str | None = None) -> NoReturn:
        raise SyntaxProblem(message, place, hint=hint, code="expression.wrong_type")


def _dotted(node: Node) -> str:
    parts = []
    while isinstance(node, Select) and not node.test:
        parts.append(node.name)
        node = node.operand
    return ".".join([node.name, *reversed(parts)]) if isinstance(node, Ident) and parts else ""


def _literal_text(node: Node) -> str | None:
    return node.value if isinstance(node, Literal) and type(node.value) is str else None
