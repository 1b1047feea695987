"""The rules of types: which operator is defined for what, and what a message may advise."""

from __future__ import annotations

from collections.abc import Iterable

from trunkline.core.expressions.functions import Function, Overload
from trunkline.core.expressions.types import (
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NUMBERS,
    SIMPLE,
    STRING,
    TIMESTAMP,
    UINT,
    CelType,
    fits,
    join,
    list_of,
)

_ARITHMETIC: dict[str, dict[tuple[str, str], CelType]] = {
    "+": {
        ("int", "int"): INT,
        ("uint", "uint"): UINT,
        ("double", "double"): DOUBLE,
        ("string", "string"): STRING,
        ("bytes", "bytes"): BYTES,
        ("timestamp", "duration"): TIMESTAMP,
        ("duration", "timestamp"): TIMESTAMP,
        ("duration", "duration"): DURATION,
    },
    "-": {
        ("int", "int"): INT,
        ("uint", "uint"): UINT,
        ("double", "double"): DOUBLE,
        ("timestamp", "timestamp"): DURATION,
        ("timestamp", "duration"): TIMESTAMP,
        ("duration", "duration"): DURATION,
    },
    "*": {("int", "int"): INT, ("uint", "uint"): UINT, ("double", "double"): DOUBLE},
    "/": {("int", "int"): INT, ("uint", "uint"): UINT, ("double", "double"): DOUBLE},
    "%": {("int", "int"): INT, ("uint", "uint"): UINT},
}


def arithmetic_results(operator: str, left: CelType, right: CelType) -> set[CelType]:
    """What `left operator right` may give; nothing where it is not defined."""
    if operator == "+" and left.kind == "list" and right.kind == "list":
        return {list_of(join(left.args[0], right.args[0]))}
    results = {
        result
        for (a, b), result in _ARITHMETIC[operator].items()
        if (left.is_dyn or left.kind == a) and (right.is_dyn or right.kind == b)
    }
    if operator == "+" and all(side.kind in {"list", "dyn"} for side in (left, right)):
        results.add(DYN)
    return results


def joined(types: Iterable[CelType]) -> CelType:
    """The type of elements of these types; dyn where there are none."""
    found: CelType | None = None
    for one in types:
        found = one if found is None else join(found, one)
    return DYN if found is None else found


def accepts(overload: Overload, types: list[CelType]) -> bool:
    """Whether arguments of these types fit a signature."""
    return len(types) == len(overload.parameters) and all(map(fits, types, overload.parameters))


def ordered(left: CelType, right: CelType) -> bool:
    """Whether `<` is defined between them."""
    if left.is_dyn or right.is_dyn:
        other = right if left.is_dyn else left
        return other.is_dyn or other.kind in SIMPLE
    return (left.kind == right.kind and left.kind in SIMPLE) or {left.kind, right.kind} <= NUMBERS


def signatures(function: Function) -> str:
    """What a function takes, for messages."""
    shown = []
    for one in function.overloads:
        names = [str(parameter) for parameter in one.parameters]
        shown.append(
            f"{names[0]}.{function.name}({', '.join(names[1:])})"
            if one.method
            else f"{function.name}({', '.join(names)})"
        )
    return "there is " + ", ".join(dict.fromkeys(shown))


def compare_hint(left: CelType, right: CelType) -> str | None:
    """What to do about a comparison of different types."""
    kinds = {left.kind, right.kind}
    if "string" in kinds and len(kinds) == 2:
        other = (kinds - {"string"}).pop()
        return (
            f"convert with {other}(…)" if other in {"int", "uint", "double", "timestamp", "duration", "bool"} else None
        )
    return None


def arithmetic_hint(left: CelType, right: CelType) -> str | None:
    """What to do about an operator that these types do not have."""
    kinds = {left.kind, right.kind}
    if kinds == {"int", "double"}:
        return "CEL mixes no numbers: write 2.0 for 2, or double(…)"
    if kinds <= NUMBERS:
        return "CEL mixes no numbers: convert one with int(…) or uint(…)"
    if "string" in kinds:
        return "convert the other with string(…)"
    return None
