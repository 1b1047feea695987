"""A compiled check of what fastavro's writer would take silently although it is wrong.

fastavro writes True and 1.5 as an int, an int of 40 bits as an int, anything as null or boolean, a float too large as
infinity, a naive datetime as local time, bytes as an array. The check answers whether a datum has none of that; it says
nothing of what fastavro refuses by itself. It is generated as Python code, one function a record, because it runs for every
event: a flat record of 20 fields costs about a microsecond.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

from trunkline.registry.model import INT_MAX, INT_MIN, AvroType
from trunkline.registry.model_graph import is_recursive, walk
from trunkline.registry.precise import DAYS_MAX, DAYS_MIN, FLOAT_MAX, MICROS_MAX, MICROS_MIN

_TYPES: dict[str, tuple[type, ...]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "int": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "string": (str,),
    "bytes": (bytes,),
    "fixed": (bytes,),
    "enum": (str,),
    "array": (list, tuple, bytes),
    "map": (dict,),
    "record": (dict,),
}
_LOGICAL_TYPES: dict[str, tuple[type, ...]] = {
    "timestamp-millis": (dt.datetime,),
    "timestamp-micros": (dt.datetime,),
    "local-timestamp-millis": (dt.datetime,),
    "local-timestamp-micros": (dt.datetime,),
    "date": (dt.date, dt.datetime, str),
    "time-millis": (dt.time,),
    "time-micros": (dt.time,),
    "decimal": (Decimal,),
    "uuid": (UUID,),
}
_MOST_TYPES = 20_000
"""Code for more takes seconds to make."""
_SAFE_IN_UNION = frozenset({"null", "boolean", "int", "long", "string", "bytes", "fixed", "enum"})
_NAMES: dict[str, Any] = {
    "MISSING": object(),
    "datetime": dt.datetime,
    "date": dt.date,
    "time": dt.time,
    "Decimal": Decimal,
    "UUID": UUID,
}


def compile_check(root: AvroType) -> Callable[[Any], bool] | None:
    """The check of one schema; None for a recursive one, whose data need a count of levels as well, and for one that is very large."""
    if is_recursive(root) or sum(1 for _ in itertools.islice(walk(root), _MOST_TYPES)) >= _MOST_TYPES:
        return None
    writer = _Writer()
    name = writer.function(root)
    source = "\n".join(writer.lines)
    namespace: dict[str, Any] = dict(_NAMES) | {table: {} for table in writer.tables}
    exec(compile(source, "<avro check>", "exec"), namespace)  # noqa: S102 (names are literals by repr, types from fixed tables)
    for table, functions in writer.tables.items():
        namespace[table].update({each: namespace[function] for each, function in functions.items()})
    check: Callable[[Any], bool] = namespace[name]
    return check


class _Writer:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.tables: dict[str, dict[type, str]] = {}
        self.made: dict[int, str] = {}
        self.count = 0

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"_{letter}{self.count}"

    def function(self, node: AvroType) -> str:
        """The name of a function of one argument that checks a datum of this type."""
        if id(node) in self.made:
            return self.made[id(node)]
        name = self.fresh("f")
        self.made[id(node)] = name
        if node.kind == "record":
            self.record(node, name)
        else:
            body = self.test(node) or "True"
            self.lines += [f"def {name}(x):", f"    return {body}"]
        return name

    def record(self, node: AvroType, name: str) -> None:
        body = []
        for each in node.fields:
            test = self.test(each.type)
            if test is None:
                continue
            if each.has_default:
                body += [
                    f"    x = get({each.name!r}, MISSING)",
                    f"    if x is not MISSING and not ({test}):",
                    "        return False",
                ]
            else:
                body += [f"    x = get({each.name!r})", f"    if not ({test}):", "        return False"]
        self.lines += [
            f"def {name}(d):",
            "    if type(d) is not dict:",
            "        return False",
            "    get = d.get",
            *body,
        ]
        self.lines.append("    return True")

    def test(self, node: AvroType, *, in_union: bool = False) -> str | None:
        """An expression over `x`, or None where fastavro needs no help. In a union it checks kinds and ranges itself."""
        kind = node.kind
        if kind == "union":
            return self.union(node)
        if node.logical is not None:
            return self.logical(node)
        if in_union and kind in _SAFE_IN_UNION:
            return None
        if kind == "int":
            return f"type(x) is int and {INT_MIN} <= x <= {INT_MAX}"
        if kind == "long":
            return "type(x) is int"
        if kind == "boolean":
            return "x is True or x is False"
        if kind == "null":
            return "x is None"
        if kind == "double":
            return f"type(x) is float or type(x) is int and {-(1 << 53)} <= x <= {1 << 53}"
        if kind == "float":
            return f"type(x) is float and {-FLOAT_MAX!r} <= x <= {FLOAT_MAX!r} or type(x) is int and {-(1 << 24)} <= x <= {1 << 24}"
        if kind == "record":
            return f"{self.function(node)}(x)"
        if kind in {"array", "map"}:
            below = self.test(node.element)
            values = "x" if kind == "array" else "x.values()"
            typed = "(type(x) is list or type(x) is tuple)" if kind == "array" else "type(x) is dict"
            return typed if below is None else f"{typed} and all(map({self.function(node.element)}, {values}))"
        return None

    def logical(self, node: AvroType) -> str:
        logical = node.logical or ""
        if logical in {"timestamp-millis", "timestamp-micros"}:
            return "type(x) is datetime and x.tzinfo is not None" + self.raw_time(logical)
        if logical in {"local-timestamp-millis", "local-timestamp-micros"}:
            return "type(x) is datetime and x.tzinfo is None" + self.raw_time(logical)
        if logical == "date":
            return f"type(x) is date or type(x) is int and {DAYS_MIN} <= x <= {DAYS_MAX}"
        if logical in {"time-millis", "time-micros"}:
            return "type(x) is time and x.tzinfo is None"
        if logical == "uuid":
            return "type(x) is UUID"
        assert logical == "decimal"
        return f"type(x) is Decimal and x.is_finite() and x.adjusted() < {node.precision - node.scale}"

    def raw_time(self, logical: str) -> str:
        unit = 1000 if logical.endswith("-millis") else 1
        return f" or type(x) is int and {-(-MICROS_MIN // unit)} <= x <= {MICROS_MAX // unit}"

    def union(self, node: AvroType) -> str | None:
        real = [branch for branch in node.branches if branch.kind != "null"]
        if len(real) == 1 and len(node.branches) == 2:
            test = self.test(real[0], in_union=True)
            return None if test is None else f"x is None or {test}"
        takers: dict[type, list[AvroType]] = {}
        for branch in node.branches:
            for each in {*_TYPES[branch.kind], *_LOGICAL_TYPES.get(branch.logical or "", ())}:
                takers.setdefault(each, []).append(branch)
        # A Python type that more than one branch takes is left to the precise encoder, which picks the best of them.
        alone = {each: branches[0] for each, branches in takers.items() if len(branches) == 1}
        table = self.fresh("t")
        self.tables[table] = {each: self.function(branch) for each, branch in alone.items()}
        name = self.fresh("f")
        self.lines += [
            f"def {name}(x):",
            f"    found = {table}.get(type(x))",
            "    return found is not None and found(x)",
        ]
        return f"{name}(x)"
