"""Which fields a template reads that events of a schema do not have: its syntax tree walked with the types of the schema.

What only a rendering would tell (the items of a list of anything, what a filter gives) is of any type, and nothing is said of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jinja2 import nodes

from trunkline.core.expressions.types import DYN, STRING, CelType, list_of, map_of, type_of_avro
from trunkline.core.expressions.variables import META
from trunkline.core.sandbox import METHODS
from trunkline.core.template import parsed

Path = tuple[str, ...]

_MAPPING_METHODS = METHODS[dict]
_SAME_LIST = frozenset({"sort", "reverse", "unique", "list", "select", "reject", "selectattr", "rejectattr"})
_ONE_OF = frozenset({"first", "last", "min", "max"})
_BY_ATTRIBUTE = frozenset({"map", "selectattr", "rejectattr", "sort", "groupby", "sum", "unique", "min", "max", "join"})
_ASKING = frozenset({"default", "d"})
_TESTS = frozenset({"defined", "undefined"})


@dataclass(frozen=True, slots=True)
class Missing:
    """A field (`what`) called `name` that `owner` lacks, which has those `known`. `path` says where it would be.

    `asked_for` says that the template is prepared for its absence.
    """

    name: str
    owner: str
    what: str
    known: tuple[str, ...]
    path: Path
    line: int
    asked_for: bool


def missing_fields(text: str, schema: Any) -> Sequence[Missing]:
    """What the template reads that events of the Avro schema (JSON form) do not have. It must be a valid one."""
    return _missing_fields(text, json.dumps(schema))


@lru_cache(maxsize=4096)
def _missing_fields(text: str, schema: str) -> tuple[Missing, ...]:
    tree = parsed(text)
    walk = _Walk(frozenset(_asked(tree)))
    scope = {
        "event": _Typed(type_of_avro(json.loads(schema)), ("event",)),
        "meta": _Typed(META, ("meta",)),
        "headers": _Typed(map_of(STRING, STRING), ("headers",)),
    }
    walk.body(tree.body, scope)
    return tuple(dict.fromkeys(walk.missing))


@dataclass(frozen=True, slots=True)
class _Typed:
    """The type of an expression, and its way from a variable where it is one."""

    kind: CelType = DYN
    path: Path | None = None


_ANY = _Typed()
_Scope = dict[str, _Typed]


class _Walk:
    def __init__(self, asked: frozenset[Path]) -> None:
        self.missing: list[Missing] = []
        self._asked = asked

    def body(self, statements: Sequence[nodes.Node], scope: _Scope) -> None:
        """Walks statements in order: an assignment holds for those after it."""
        for statement in statements:
            if isinstance(statement, nodes.For):
                self._loop(statement, scope)
            elif isinstance(statement, nodes.Assign):
                self._bind(statement.target, self.typed(statement.node, scope), scope)
            elif isinstance(statement, nodes.If):
                self.typed(statement.test, scope)
                for part in (statement.body, statement.elif_, statement.else_):
                    self.body(part, scope)
            elif isinstance(statement, nodes.With):
                inner = dict(scope)
                for target, value in zip(statement.targets, statement.values, strict=True):
                    self._bind(target, self.typed(value, scope), inner)
                self.body(statement.body, inner)
            else:
                for child in statement.iter_child_nodes():
                    self.typed(child, scope)

    def typed(self, node: nodes.Node, scope: _Scope) -> _Typed:
        """The type of an expression; notes what it reads that is not there."""
        if isinstance(node, nodes.Name):
            return scope.get(node.name, _ANY)
        if isinstance(node, nodes.Getattr):
            return self._field(self.typed(node.node, scope), node.attr, node.lineno)
        if isinstance(node, nodes.Getitem):
            return self._item(node, scope)
        if isinstance(node, nodes.Filter):
            return self._filter(node, scope)
        if isinstance(node, nodes.Call):
            return self._call(node, scope)
        if isinstance(node, nodes.CondExpr):
            found = [self.typed(part, scope) for part in (node.test, node.expr1, node.expr2) if part is not None]
            return found[1] if len(found) > 2 and found[1].kind == found[2].kind else _ANY
        for child in node.iter_child_nodes():
            self.typed(child, scope)
        return _ANY

    def _loop(self, loop: nodes.For, scope: _Scope) -> None:
        over = self.typed(loop.iter, scope)
        inner = dict(scope)
        item = over.kind.args[0] if over.kind.kind == "list" else DYN
        self._bind(loop.target, _Typed(item, (*over.path, "[]") if over.path else None), inner)
        inner["loop"] = _ANY
        if loop.test is not None:
            self.typed(loop.test, inner)
        self.body(loop.body, inner)
        self.body(loop.else_, scope)

    def _bind(self, target: nodes.Node, value: _Typed, scope: _Scope) -> None:
        if isinstance(target, nodes.Name):
            scope[target.name] = value
            return
        for name in target.find_all(nodes.Name):
            scope[name.name] = _ANY

    def _field(self, owner: _Typed, name: str, line: int) -> _Typed:
        kind, path = owner.kind, (*owner.path, name) if owner.path else None
        if kind.kind == "object":
            if name in kind.fields:
                return _Typed(kind.fields[name], path)
            if name not in _MAPPING_METHODS:
                called = kind.name if kind.name and kind is not META else "the envelope"
                known = tuple(kind.fields)
                asked = path in self._asked
                self.missing.append(Missing(name, called, "field", known, path or (name,), line, asked))
            return _ANY
        if kind.kind == "map":
            return _Typed(kind.args[1], path)
        if kind.kind == "string" and not kind.foreign and name not in METHODS[str]:
            shown = ".".join(owner.path) if owner.path else "a text"
            self.missing.append(Missing(name, shown, "field", (), path or (name,), line, False))
        return _ANY

    def _item(self, node: nodes.Getitem, scope: _Scope) -> _Typed:
        owner = self.typed(node.node, scope)
        if isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return self._field(owner, node.arg.value, node.lineno)
        self.typed(node.arg, scope)
        is_list = owner.kind.kind == "list" and not isinstance(node.arg, nodes.Slice)
        return _Typed(owner.kind.args[0], (*owner.path, "[]") if owner.path else None) if is_list else _ANY

    def _filter(self, node: nodes.Filter, scope: _Scope) -> _Typed:
        over = self.typed(node.node, scope) if node.node is not None else _ANY
        for argument in [*node.args, *(pair.value for pair in node.kwargs)]:
            self.typed(argument, scope)
        item = over.kind.args[0] if over.kind.kind == "list" else DYN
        path = (*over.path, "[]") if over.path else None
        found = _Typed(item, path)
        for name in _attributes(node):
            for part in name.split("."):
                found = _ANY if part.isdigit() else self._field(found, part, node.lineno)
        if node.name == "map" and _attributes(node):
            return _Typed(list_of(found.kind))
        if node.name in _SAME_LIST:
            return over
        return _Typed(item, path) if node.name in _ONE_OF else _ANY

    def _call(self, node: nodes.Call, scope: _Scope) -> _Typed:
        for argument in [*node.args, *(pair.value for pair in node.kwargs)]:
            self.typed(argument, scope)
        if isinstance(node.node, nodes.Getattr):
            owner = self.typed(node.node.node, scope)
            if node.node.attr == "get" and node.args and isinstance(node.args[0], nodes.Const):
                return self._field(owner, str(node.args[0].value), node.lineno)
        self.typed(node.node, scope)
        return _ANY


def _attributes(node: nodes.Filter) -> list[str]:
    """The fields of each item that a filter names, such as `map(attribute='sku')` and `selectattr('sku')`."""
    if node.name not in _BY_ATTRIBUTE:
        return []
    named = [pair.value for pair in node.kwargs if pair.key == "attribute"]
    if not named and node.name in {"selectattr", "rejectattr", "groupby"} and node.args:
        named = [node.args[0]]
    return [one.value for one in named if isinstance(one, nodes.Const) and isinstance(one.value, str)]


def _asked(tree: nodes.Template) -> Iterator[Path]:
    """The paths of which the template asks whether they are there, or which it has another value for."""
    for test in tree.find_all(nodes.Test):
        if test.name in _TESTS:
            yield _path_of(test.node)
    for default in tree.find_all(nodes.Filter):
        if default.name in _ASKING and default.node is not None:
            yield _path_of(default.node)
    for call in tree.find_all(nodes.Call):
        first = call.args[0] if call.args else None
        if isinstance(call.node, nodes.Getattr) and call.node.attr == "get" and isinstance(first, nodes.Const):
            yield (*_path_of(call.node.node), str(first.value))


def _path_of(node: nodes.Node) -> Path:
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        return (*_path_of(node.node), node.attr)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return (*_path_of(node.node), str(node.arg.value))
    return ()
