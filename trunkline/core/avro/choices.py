"""Unions that leave a choice: more than one branch takes an object, and which one fits is known only after looking inside.

One such union costs one look for each branch. Where they stand inside each other, whoever tries the branches again and again
tries N^d of them for a value d levels deep: who meets such a schema keeps what was found of each value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

OBJECTS = frozenset({"record", "error", "map"})
"""Avro types whose values are objects."""
_NAMED = frozenset({"record", "error", "enum", "fixed"})


def has_nested_choices(schema: Any) -> bool:
    """Whether a union with more than one branch for objects stands in a branch of such a union, be it itself.

    `schema` is an Avro schema in its JSON form. What is wrong with it is for others to say: a name that it does not define
    leads nowhere. Every part is looked at once.
    """
    graph = _Graph()
    graph.add(schema, "")
    return graph.has_nested_choices()


class _Graph:
    """The parts of a schema as numbers, and which of them stand directly in which."""

    def __init__(self) -> None:
        self._below: list[list[int]] = []
        self._unions: dict[int, list[int]] = {}
        """The branches of each union."""
        self._objects: set[int] = set()
        self._stands_for: dict[int, int] = {}
        """Parts that are nothing but another one: a name, or a type around a type."""
        self._named: dict[str, int] = {}
        self._wanted: list[tuple[int, str, str]] = []
        """Parts that name a type, with the namespace that they stand in."""

    def add(self, schema: Any, namespace: str) -> int:
        """A schema with all that is in it. The number of the part itself."""
        waiting: list[tuple[Any, str, int | None]] = [(schema, namespace, None)]
        first = len(self._below)
        while waiting:
            kind, within, above = waiting.pop()
            number = len(self._below)
            self._below.append([])
            if above is not None:
                self._below[above].append(number)
            waiting.extend((inner, place, number) for inner, place in self._parts(kind, within, number))
        return first

    def _parts(self, kind: Any, namespace: str, number: int) -> Iterator[tuple[Any, str]]:
        if isinstance(kind, str):
            self._wanted.append((number, kind, namespace))
            return
        if isinstance(kind, list):
            self._unions[number] = self._below[number]
            yield from ((branch, namespace) for branch in kind)
            return
        if not isinstance(kind, Mapping):
            return
        name = kind.get("type")
        if isinstance(name, (dict, list)):
            self._stands_for[number] = len(self._below)  # the next part that is looked at
            yield name, namespace
            return
        if name in OBJECTS:
            self._objects.add(number)
        if name in _NAMED:
            full = _full(str(kind.get("name", "")), str(kind.get("namespace", namespace)))
            self._named.setdefault(full, number)
            namespace = full.rpartition(".")[0]
            fields = kind.get("fields")
            for field in fields if isinstance(fields, list) else ():
                if isinstance(field, Mapping):
                    yield field.get("type"), namespace
        elif name in ("array", "map"):
            yield kind.get("items" if name == "array" else "values"), namespace
        else:
            self._wanted.append((number, str(name), namespace))

    def has_nested_choices(self) -> bool:
        for number, name, namespace in self._wanted:
            found = self._named.get(_full(name, namespace), self._named.get(name))
            if found is not None:
                self._below[number].append(found)
                self._stands_for[number] = found
        choices = {
            number for number, branches in self._unions.items() if sum(self._is_object(one) for one in branches) > 1
        }
        leading = self._leading_to(choices)
        return any(branch in leading for number in choices for branch in self._below[number])

    def _is_object(self, number: int) -> bool:
        seen: set[int] = set()
        while number in self._stands_for and number not in seen:
            seen.add(number)
            number = self._stands_for[number]
        return number in self._objects

    def _leading_to(self, goals: set[int]) -> set[int]:
        above: list[list[int]] = [[] for _ in self._below]
        for number, parts in enumerate(self._below):
            for one in parts:
                above[one].append(number)
        found, waiting = set(goals), list(goals)
        while waiting:
            for one in above[waiting.pop()]:
                if one not in found:
                    found.add(one)
                    waiting.append(one)
        return found


def _full(name: str, namespace: str) -> str:
    return name if "." in name or not namespace else f"{namespace}.{name}"
