"""What keeps data from being an Avro schema in form: a text that is none, a list that is a mapping, a part that is missing.

Schemas stand in manifests, and YAML reads some words as something else: a field called `no` is false, the type `null` is nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trunkline.core.avro.names import PRIMITIVES, type_hint

_TEXTS = ("name", "namespace", "doc", "logicalType", "order")
_LISTS = ("symbols", "aliases")
_NAMED = frozenset({"record", "error", "enum", "fixed"})
_NEEDED = {"record": "fields", "error": "fields", "enum": "symbols", "fixed": "size", "array": "items", "map": "values"}
_DEEPEST = 100
_MOST_TOLD = 100
_MOST_HINTS = 10

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """A part of a schema that has not its form: at `path` should be what is `expected`, or beneath it a part is `missing`, or
    there is no type called `unknown`.
    """

    path: Path
    expected: str = ""
    missing: str = ""
    unknown: str = ""
    hint: str | None = None

    def __str__(self) -> str:
        place = "/" + "/".join(map(str, self.path))
        if self.unknown:
            return f"there is no type {self.unknown[:60]!r} at {place}"
        return f"there is no {self.missing!r} at {place}" if self.missing else f"{self.expected} is expected at {place}"


def faults_of_schema(schema: Any) -> Iterator[SchemaFault]:
    """The parts of a schema (in JSON form) that have not their form, and names of types that are not defined before: the first hundred.

    Whether names are well-formed and defaults fit is not looked at.
    """
    yield from itertools.islice(_Walk().type(schema, (), "", 0), _MOST_TOLD)


class _Walk:
    """One way through a schema, with the names of the types that it defines."""

    def __init__(self) -> None:
        self._defined: set[str] = set()
        self._unknown = 0

    def type(self, schema: Any, path: Path, namespace: str, depth: int) -> Iterator[SchemaFault]:
        """The faults of what should be a type."""
        if depth > _DEEPEST:
            yield SchemaFault(path, f"a type that is nested less than {_DEEPEST} levels deep")
        elif isinstance(schema, str):
            yield from self._named(schema, path, namespace)
        elif isinstance(schema, list):
            for index, branch in enumerate(schema):
                yield from self.type(branch, (*path, index), namespace, depth + 1)
        elif isinstance(schema, Mapping):
            yield from self._mapping(schema, path, namespace, depth)
        else:
            yield SchemaFault(path, "a type")

    def _named(self, name: str, path: Path, namespace: str) -> Iterator[SchemaFault]:
        if name not in PRIMITIVES and not {name, f"{namespace}.{name}"} & self._defined:
            self._unknown += 1
            # What was meant is looked for among all names, which takes its time.
            hint = type_hint(name, sorted(self._defined)) if self._unknown <= _MOST_HINTS else None
            yield SchemaFault(path, unknown=name, hint=hint)

    def _mapping(self, schema: Mapping[str, Any], path: Path, namespace: str, depth: int) -> Iterator[SchemaFault]:
        if "type" not in schema:
            yield SchemaFault(path, missing="type")
            return
        kind = schema["type"]
        for name in _TEXTS:
            if name in schema and not isinstance(schema[name], str):
                yield SchemaFault((*path, name), "text")
        for name in _LISTS:
            if name in schema:
                yield from _texts(schema[name], (*path, name))
        if not isinstance(kind, str):
            yield from self.type(kind, (*path, "type"), namespace, depth + 1)
            return
        needed = _NEEDED.get(kind)
        if needed is not None and needed not in schema:
            yield SchemaFault(path, missing=needed)
        if kind in _NAMED:
            if "name" not in schema:
                yield SchemaFault(path, missing="name")
            namespace = self._define(schema, namespace)
        if kind in ("record", "error") and "fields" in schema:
            yield from self._fields(schema["fields"], (*path, "fields"), namespace, depth)
        elif kind in ("array", "map"):
            part = _NEEDED[kind]
            if part in schema:
                yield from self.type(schema[part], (*path, part), namespace, depth + 1)
        elif kind not in _NAMED:
            yield from self._named(kind, (*path, "type"), namespace)

    def _define(self, schema: Mapping[str, Any], namespace: str) -> str:
        """Notes a named type; the namespace of what is in it."""
        name, own = str(schema.get("name", "")), str(schema.get("namespace", namespace) or "")
        full = name if "." in name or not own else f"{own}.{name}"
        self._defined.add(full)
        return full.rpartition(".")[0]

    def _fields(self, found: Any, path: Path, namespace: str, depth: int) -> Iterator[SchemaFault]:
        if not isinstance(found, list):
            yield SchemaFault(path, "a list of fields such as {name: id, type: long}")
            return
        for index, field in enumerate(found):
            place = (*path, index)
            if not isinstance(field, Mapping):
                yield SchemaFault(place, "a field such as {name: id, type: long}")
                continue
            for name in ("name", "type"):
                if name not in field:
                    yield SchemaFault(place, missing=name)
            for name in ("name", "doc", "order"):
                if name in field and not isinstance(field[name], str):
                    yield SchemaFault((*place, name), "text")
            if "aliases" in field:
                yield from _texts(field["aliases"], (*place, "aliases"))
            if "type" in field:
                yield from self.type(field["type"], (*place, "type"), namespace, depth + 1)


def _texts(found: Any, path: Path) -> Iterator[SchemaFault]:
    if not isinstance(found, list):
        yield SchemaFault(path, "a list of names")
        return
    for index, one in enumerate(found):
        if not isinstance(one, str):
            yield SchemaFault((*path, index), "text")
