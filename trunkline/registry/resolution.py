"""Avro's schema resolution: a datum written with one schema, brought to another.

The datum is decoded with the writer's schema and then converted by functions compiled once for the pair. So a default is a
fresh value of the right Python type for every event, and the rules are those that `compatibility` promises.

Source: https://avro.apache.org/docs/1.12.0/specification/#schema-resolution
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastavro.read import LOGICAL_READERS

from trunkline.core.errors import RejectedError
from trunkline.registry.comparison import Comparison
from trunkline.registry.defaults import default_value, fresh
from trunkline.registry.matching import PROMOTIONS, Branches, field_of_writer, logical_conflict, names_match
from trunkline.registry.model import INT_MAX, INT_MIN, AvroType, SchemaError, parse_type
from trunkline.registry.model_graph import walk
from trunkline.registry.schema import WRAPPED, Schema, parsed_by_library
from trunkline.registry.steps import Steps

Convert = Callable[[Any], Any]


class Resolution:
    """How data of `writer` become data of `reader`.

    `parsed` is the library's form of the schema to decode with, `convert` takes what that gives. Where `named`, records, enums and fixed
    inside unions must come as (name, datum) pairs, which is how `convert` knows the branch. It raises RejectedError
    (`record.schema_mismatch`) for a datum that the reader can't take: a branch or symbol that it lacks, a field without a default.
    """

    def __init__(self, writer: Schema, reader: Schema, *, steps: Steps | None = None) -> None:
        """Raises RejectedError (`record.schema_mismatch`) for two schemas that can't be brought together."""
        self._names = (writer, reader)
        self._steps = steps or Steps()
        self._comparison = Comparison(self._steps)
        self._branches: dict[int, Branches] = {}
        # Logical types are decoded by the reader's schema (a plain long may have become a timestamp, or the other way).
        raw = parse_type(writer.json, strict=False)
        for node in walk(raw):
            node.logical = None
        self.parsed, wrapped = parsed_by_library(raw)
        self.named = any(branch.name for node in walk(raw) for branch in node.branches)
        self._made: dict[tuple[int, int], Convert] = {}
        try:
            convert = self._compile(reader.type, writer.type)
        except SchemaError as error:
            raise self._error(error.message) from error
        except RecursionError as error:
            raise self._error("their types are nested too deep together") from error
        self.convert: Convert = (lambda datum: convert(datum[WRAPPED])) if wrapped else convert

    def _compile(self, reader: AvroType, writer: AvroType) -> Convert:
        pair = (id(reader), id(writer))
        self._steps.take()
        if pair not in self._made:
            # A recursive type meets itself before its converter is finished: it calls what stands here by then.
            def later(datum: Any) -> Any:
                return self._made[pair](datum)

            self._made[pair] = later
            self._made[pair] = self._by_kind(reader, writer)
        return self._made[pair]

    def _by_kind(self, reader: AvroType, writer: AvroType) -> Convert:
        if writer.kind == "union":
            return self._from_union(reader, writer)
        if reader.kind == "union":
            branch = self._branch_for(reader, writer)
            return (
                self._fail(f"the reader has no branch for {writer.label}")
                if branch is None
                else self._compile(branch, writer)
            )
        if not _may_match(reader, writer) or (reader.kind != "record" and logical_conflict(reader, writer)):
            return self._fail(f"the reader's {reader.label} can't take {writer.label}")
        if reader.kind == "record":
            return self._record(reader, writer)
        if reader.kind == "array":
            item = self._compile(reader.element, writer.element)
            return lambda datum: [item(each) for each in datum]
        if reader.kind == "map":
            value = self._compile(reader.element, writer.element)
            return lambda datum: {key: value(each) for key, each in datum.items()}
        if reader.kind == "enum":
            return self._enum(reader)
        return _scalar(reader, writer)

    def _from_union(self, reader: AvroType, writer: AvroType) -> Convert:
        by_name: dict[str, Convert] = {}
        by_type: dict[type, Convert] = {}
        # Of int and long (float and double) Python tells no difference; an int reader must still get what fits it.
        small: Convert | None = None
        for branch in writer.branches:
            convert = self._compile(reader, branch)
            if branch.name:
                by_name[branch.name] = by_name[f"_.{branch.name}"] = convert
            elif branch.kind == "int":
                small = convert
            elif branch.kind != "float" or float not in by_type:
                by_type[_PYTHON[branch.kind]] = convert
        if small is not None:
            by_type.setdefault(int, small)

        def from_union(datum: Any) -> Any:
            if type(datum) is tuple:
                name, datum = datum
                return by_name[name](datum)
            if small is not None and type(datum) is int and INT_MIN <= datum <= INT_MAX:
                return small(datum)
            return by_type[type(datum)](datum)

        return from_union

    def _branch_for(self, union: AvroType, writer: AvroType) -> AvroType | None:
        """The branch that reads what `writer` wrote: of the same kind and name first, then one that promotion reaches."""
        branches = self._branches.get(id(union))
        if branches is None:
            branches = self._branches[id(union)] = Branches(union, self._steps)
        first: AvroType | None = None
        for branch in branches.reading(writer):
            if not _may_match(branch, writer):
                continue
            if branch.name == writer.name or self._comparison.can_read(branch, writer):
                return branch
            first = first or branch
        return first

    def _record(self, reader: AvroType, writer: AvroType) -> Convert:
        moved: list[tuple[str, str, Convert]] = []
        filled: list[tuple[str, Any]] = []
        self._steps.take(len(reader.fields))
        for field in reader.fields:
            source = field_of_writer(field, writer)
            if source is not None:
                moved.append((field.name, source.name, self._compile(field.type, source.type)))
            elif field.has_default:
                filled.append((field.name, default_value(field.type, field.default)))
            else:
                return self._fail(f"the reader's field {field.name} has no default and the writer does not have it")

        def record(datum: dict[str, Any]) -> dict[str, Any]:
            made = {name: convert(datum[source]) for name, source, convert in moved}
            for name, value in filled:
                made[name] = fresh(value)
            return made

        return record

    def _enum(self, reader: AvroType) -> Convert:
        symbols, default = frozenset(reader.symbols), reader.symbol_default

        def enum(datum: str) -> str:
            if datum in symbols:
                return datum
            if default is None:
                raise self._error(f"the reader's enum {reader.name} has no symbol {datum} and no default")
            return default

        return enum

    def _fail(self, reason: str) -> Convert:
        def fail(_: Any) -> Any:
            raise self._error(reason)

        return fail

    def _error(self, reason: str) -> RejectedError:
        writer, reader = self._names
        return RejectedError(
            f"what was written as {writer.name} (schema id {writer.id}) can't be read as {reader.name}: {reason}",
            code="record.schema_mismatch",
        )


def _may_match(reader: AvroType, writer: AvroType) -> bool:
    if reader.kind != writer.kind:
        return reader.kind in PROMOTIONS.get(writer.kind, ())
    return (not reader.name or names_match(reader, writer)) and reader.size == writer.size


def _scalar(reader: AvroType, writer: AvroType) -> Convert:
    promote: Convert | None = None
    if reader.kind in {"float", "double"} and writer.kind in {"int", "long"}:
        promote = float
    elif reader.kind == "bytes" and writer.kind == "string":
        promote = str.encode
    elif reader.kind == "string" and writer.kind == "bytes":
        promote = bytes.decode
    if reader.logical is None:
        return promote or _same
    read = LOGICAL_READERS[f"{reader.kind}-{reader.logical}"]
    form = {"precision": reader.precision, "scale": reader.scale}
    if promote is None:
        return lambda datum: read(datum, form, None)
    first = promote
    return lambda datum: read(first(datum), form, None)


def _same(datum: Any) -> Any:
    return datum


_PYTHON: dict[str, type] = {
    "null": type(None),
    "boolean": bool,
    "long": int,
    "float": float,
    "double": float,
    "string": str,
    "bytes": bytes,
    "array": list,
    "map": dict,
}
