"""Schemas and data made up by hypothesis."""

from __future__ import annotations

import datetime as dt
import itertools
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

_counter = itertools.count()
_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "string": st.text(st.characters(codec="utf-8"), max_size=8),
    "bytes": st.binary(max_size=8),
}
_MOMENTS = st.datetimes(dt.datetime(1, 1, 2), dt.datetime(9999, 12, 30))  # noqa: DTZ001
_LOGICAL: list[tuple[dict[str, Any], st.SearchStrategy[Any]]] = [
    ({"type": "long", "logicalType": "timestamp-micros"}, _MOMENTS.map(lambda each: each.replace(tzinfo=dt.UTC))),
    ({"type": "long", "logicalType": "local-timestamp-micros"}, _MOMENTS),
    ({"type": "int", "logicalType": "date"}, st.dates()),
    ({"type": "long", "logicalType": "time-micros"}, st.times()),
    ({"type": "string", "logicalType": "uuid"}, st.uuids()),
    (
        {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 3},
        st.integers(-(10**8) + 1, 10**8 - 1).map(lambda each: Decimal(each).scaleb(-3)),
    ),
]

Pair = tuple[Any, st.SearchStrategy[Any]]


@st.composite
def pairs(draw: st.DrawFn, depth: int = 3, in_union: bool = False) -> Pair:
    """A schema and a strategy for its data. Unions hold one type for each Python type, so that no branch is forgotten."""
    kinds = ["scalar", "scalar", "logical", "enum", "fixed"]
    if depth > 0:
        kinds += ["array", "map", "record", "record"] + ([] if in_union else ["union", "union"])
    kind = draw(st.sampled_from(kinds))
    name = f"n{next(_counter)}"
    if kind == "scalar":
        return draw(st.sampled_from(list(_SCALARS.items())))
    if kind == "logical":
        return draw(st.sampled_from(_LOGICAL))
    if kind == "enum":
        symbols = draw(st.lists(st.sampled_from(["A", "B", "C", "D"]), min_size=1, unique=True))
        return {"type": "enum", "name": name, "symbols": symbols}, st.sampled_from(symbols)
    if kind == "fixed":
        size = draw(st.integers(0, 5))
        return {"type": "fixed", "name": name, "size": size}, st.binary(min_size=size, max_size=size)
    if kind == "array":
        schema, data = draw(pairs(depth - 1))
        return {"type": "array", "items": schema}, st.lists(data, max_size=3)
    if kind == "map":
        schema, data = draw(pairs(depth - 1))
        return {"type": "map", "values": schema}, st.dictionaries(_SCALARS["string"], data, max_size=3)
    if kind == "record":
        fields = draw(st.lists(pairs(depth - 1), max_size=4))
        made = [{"name": f"f{index}", "type": schema} for index, (schema, _) in enumerate(fields)]
        data = st.fixed_dictionaries({f"f{index}": data for index, (_, data) in enumerate(fields)})
        return {"type": "record", "name": f"ns.{name}", "fields": made}, data
    found = draw(st.lists(pairs(depth - 1, in_union=True), min_size=1, max_size=4))
    chosen: dict[str, Pair] = {}
    for each in found:
        chosen.setdefault(_family(each[0]), each)
    branches = list(chosen.values())
    return [schema for schema, _ in branches], st.one_of([data for _, data in branches])


def _family(schema: Any) -> str:
    kind = schema if isinstance(schema, str) else schema["type"]
    same = {"int": "long", "float": "long", "double": "long", "enum": "string", "fixed": "bytes", "map": "record"}
    return same.get(kind, kind)
