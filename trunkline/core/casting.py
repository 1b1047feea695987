"""Casting text to what an Avro schema asks for, strictly: what is not plainly a value of the type is refused, never guessed.

Files and forms carry text; a topic has numbers, dates and enums. `compile_caster` builds one closure a field, once, because
a caster runs for every row. The accepted forms:

| Avro type | text |
| --- | --- |
| int, long | decimal digits with an optional minus; no blanks, plus, point or exponent; in the type's range |
| float, double | a decimal number, an exponent allowed; finite, so neither `NaN` nor an overflow |
| boolean | true, false, t, f, yes, no, y, n, 1, 0, in any case |
| timestamp-millis, -micros | ISO 8601 with `Z` or an offset |
| local-timestamp-* | ISO 8601 without one |
| date, time-millis, -micros | ISO 8601 |
| decimal | digits with at most the schema's scale and precision; nothing is rounded |
| bytes, fixed | Base64 (RFC 4648, section 4) |
| record, array, map | JSON |
| union | null for None, else the first branch that accepts |
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

import orjson

from trunkline.core.avro.choices import has_nested_choices
from trunkline.core.casting_scalars import FROM_JSON, FROM_TEXT, Cast, MismatchError, shown
from trunkline.core.errors import ConfigurationError, RejectedError

Caster = Callable[[Mapping[str, Any]], dict[str, Any]]
ExtraColumns = Literal["refuse", "ignore"]
Values = Literal["text", "json"]

_MISSING = object()
_MOST_ALTERNATIVES = 8
_OR = " or "
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


def compile_caster(schema_json: Any, *, extra_columns: ExtraColumns = "refuse", values: Values = "text") -> Caster:
    """A function from a row to the datum of the Avro record schema `schema_json` (a dict, or its JSON text).

    `values="text"` takes every scalar as text. `values="json"` takes numbers and booleans as they are and reads from strings only
    what JSON can't express (times, decimals, UUIDs, bytes, enums). A field that is absent gets its Avro default. Columns
    that the schema doesn't know are refused, or left out with `extra_columns="ignore"`.

    The function raises `RejectedError` (`record.cast`) naming the field, the expected type and the text found, shortened;
    this one raises `ConfigurationError` for a schema that is no record or names an unknown type.
    """
    schema = orjson.loads(schema_json) if isinstance(schema_json, (str, bytes)) else schema_json
    if not (isinstance(schema, Mapping) and schema.get("type") in ("record", "error")):
        raise ConfigurationError("rows can only be cast to an Avro record schema", code="schema.not_a_record")
    outcomes = _Outcomes() if has_nested_choices(schema) else None
    cast = _Compiler(values, extra_columns, outcomes).compile(schema, "")

    def cast_row(row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            result: dict[str, Any] = cast(row)
        except MismatchError as error:
            raise RejectedError(error.sentence(), code="record.cast") from None
        except RecursionError:
            raise RejectedError("the row is nested too deeply", code="record.cast") from None
        finally:
            if outcomes is not None:
                outcomes.known.clear()
        return result

    return cast_row


def cast_to_schema(
    value: Mapping[str, Any], schema_json: Any, *, extra_columns: ExtraColumns = "refuse", values: Values = "text"
) -> dict[str, Any]:
    """One row cast at once; for more than a few use `compile_caster`, whose errors it shares."""
    return compile_caster(schema_json, extra_columns=extra_columns, values=values)(value)


class _Outcomes(threading.local):
    """What each cast made of each value of the row under way, in this thread.

    A value inside unions inside unions is met once for each branch that is tried above it. Cast anew each time, N branches at
    each of d levels would cost N^d.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[int, int], tuple[Any, Any, MismatchError | None]] = {}
        """By cast and value, which is kept so that no other one gets its identity: what it became, or why it became nothing."""

    def once(self, cast: Cast) -> Cast:
        """`cast`, called once for each value of a row."""

        def cast_once(value: Any) -> Any:
            key = id(cast), id(value)
            found = self.known.get(key)
            if found is None:
                try:
                    made = cast(value)
                except MismatchError as error:
                    self.known[key] = value, None, error.copy()
                    raise
                self.known[key] = value, made, None
                return made
            _, made, fault = found
            if fault is not None:
                raise fault.copy()
            return made

        return cast_once


class _Compiler:
    """Walks a schema once. Named types are compiled at their definition and looked up late, so that a type may hold itself."""

    def __init__(self, values: Values, extra_columns: ExtraColumns, outcomes: _Outcomes | None) -> None:
        self._scalars = FROM_TEXT if values == "text" else FROM_JSON
        self._values: Values = values
        self._extra: ExtraColumns = extra_columns
        self._outcomes = outcomes
        self._named: dict[str, Cast] = {}

    def compile(self, schema: Any, namespace: str) -> Cast:
        if isinstance(schema, str):
            return self._by_name(schema, namespace)
        if isinstance(schema, list):
            return self._union([(branch, self.compile(branch, namespace)) for branch in schema])
        kind = schema.get("type")
        if isinstance(kind, (dict, list)):
            return self.compile(kind, namespace)
        if kind in ("record", "error"):
            return self._record(schema, namespace)
        if kind == "array":
            return self._nested(_array(self._in_json().compile(schema["items"], namespace)), list, "a JSON list")
        if kind == "map":
            return self._nested(_map(self._in_json().compile(schema["values"], namespace)), dict, "a JSON object")
        if kind in ("enum", "fixed"):
            cast = self._scalars[kind](schema)
            self._remember(schema, namespace, cast)
            return cast
        logical = schema.get("logicalType")
        if logical is not None and f"{kind}:{logical}" in self._scalars:
            return self._scalars[f"{kind}:{logical}"](schema)
        return self._by_name(kind, namespace)

    def _by_name(self, name: Any, namespace: str) -> Cast:
        if name in _PRIMITIVES:
            return self._scalars[name]({})
        full = name if "." in str(name) or not namespace else f"{namespace}.{name}"
        if full not in self._named and name in self._named:
            full = name
        if full not in self._named:
            raise ConfigurationError(f"the Avro schema names an unknown type {name!r}", code="schema.unknown_type")
        return lambda value: self._named[full](value)  # noqa: PLW0108 (a type that holds itself is not compiled yet)

    def _remember(self, schema: Mapping[str, Any], namespace: str, cast: Cast) -> str:
        name = str(schema["name"])
        full = name if "." in name else ".".join(part for part in (schema.get("namespace", namespace), name) if part)
        self._named[full] = cast
        return full

    def _in_json(self) -> _Compiler:
        """The same names, for what stands inside JSON: there a number is a number and not text."""
        if self._values == "json":
            return self
        inner = _Compiler("json", self._extra, self._outcomes)
        inner._named = self._named
        return inner

    def _record(self, schema: Mapping[str, Any], namespace: str) -> Cast:
        outermost = not self._named
        full = self._remember(schema, namespace, _not_ready)
        inner_namespace = full.rpartition(".")[0]
        plan: list[tuple[str, Cast, Any]] = []
        for field in schema["fields"]:
            # Only the columns of the row itself are text; a record inside a column came as JSON.
            compiler = self if outermost else self._in_json()
            cast = compiler.compile(field["type"], inner_namespace)
            plan.append((field["name"], cast, _default(field)))
        record = _record_cast(plan, self._extra)
        if outermost:
            self._named[full] = record
            return record
        nested = self._nested(record, dict, "a JSON object")
        self._named[full] = nested
        return nested

    def _nested(self, cast: Cast, kind: type, expected: str) -> Cast:
        """A list or an object as it is, or as JSON text."""

        def nested(value: Any) -> Any:
            if isinstance(value, str):
                try:
                    value = orjson.loads(value)
                except orjson.JSONDecodeError:
                    raise MismatchError(expected, shown(value)) from None
            if not isinstance(value, kind):
                raise MismatchError(expected, shown(value))
            return cast(value)

        return nested if self._outcomes is None else self._outcomes.once(nested)

    @staticmethod
    def _union(branches: list[tuple[Any, Cast]]) -> Cast:
        nullable = any(branch == "null" for branch, _ in branches)
        casts = [cast for branch, cast in branches if branch != "null"]
        if len(casts) == 1:
            only = casts[0]
            if not nullable:
                return only
            return lambda value: None if value is None else only(value)

        def first_that_accepts(value: Any) -> Any:
            if value is None and nullable:
                return None
            expected: dict[str, None] = {}
            for cast in casts:
                try:
                    return cast(value)
                except MismatchError as error:
                    expected.update(dict.fromkeys(error.expected.split(_OR)))
            raise MismatchError(_alternatives(list(expected)), shown(value))

        return first_that_accepts


def _alternatives(expected: list[str]) -> str:
    """What a union takes, in words. The branches of unions inside it are among them, so they could be any number."""
    told = [one for one in expected if one != "…"]
    return _OR.join([*told[:_MOST_ALTERNATIVES], "…"] if len(told) > _MOST_ALTERNATIVES else told) or "null"


def _not_ready(_value: Any) -> Any:
    raise AssertionError("a record schema is used before its fields are compiled")


def _default(field: Mapping[str, Any]) -> Any:
    if "default" not in field:
        return _MISSING
    default, kind = field["default"], field["type"]
    first = kind[0] if isinstance(kind, list) and kind else kind
    bare = first.get("type") if isinstance(first, Mapping) else first
    # The Avro specification writes the default of bytes and fixed as a string of code points 0-255.
    return default.encode("latin-1") if bare in ("bytes", "fixed") and isinstance(default, str) else default


def _record_cast(plan: list[tuple[str, Cast, Any]], extra: ExtraColumns) -> Cast:
    names = frozenset(name for name, _, _ in plan)

    def record(value: Any) -> dict[str, Any]:
        datum: dict[str, Any] = {}
        absent = 0
        name = ""
        try:
            for name, cast, default in plan:
                found = value.get(name, _MISSING)
                if found is not _MISSING:
                    datum[name] = cast(found)
                elif default is not _MISSING:
                    absent += 1
                    datum[name] = copy.copy(default) if isinstance(default, (dict, list)) else default
                else:
                    raise MismatchError("a value, as the schema has no default for it", "nothing")
        except MismatchError as error:
            error.inside(name)
            raise
        if extra == "refuse" and len(value) + absent > len(plan):
            unknown = sorted(str(key) for key in value if key not in names)
            raise MismatchError("only the schema's fields", "also " + ", ".join(unknown[:5]))
        return datum

    return record


def _array(cast: Cast) -> Cast:
    def array(value: Any) -> list[Any]:
        items: list[Any] = []
        try:
            for item in value:
                items.append(cast(item))  # noqa: PERF401 (the length tells where an error was)
        except MismatchError as error:
            error.inside(f"[{len(items)}]")
            raise
        return items

    return array


def _map(cast: Cast) -> Cast:
    def mapped(value: Any) -> dict[str, Any]:
        datum: dict[str, Any] = {}
        key = ""
        try:
            for key, item in value.items():
                datum[key] = cast(item)
        except MismatchError as error:
            error.inside(key)
            raise
        return datum

    return mapped
