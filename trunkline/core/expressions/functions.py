"""Every function that an expression may call: its signatures for the checker, and what runs.

The Python function behind a name takes whatever comes and raises CEL's "no such overload" itself; `fast` are those that need no check
where the static types say enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from trunkline.core.expressions import conversions, numbers, patterns, strings
from trunkline.core.expressions.formatting import format_text
from trunkline.core.expressions.times import PARTS
from trunkline.core.expressions.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    STRING,
    TIMESTAMP,
    TYPE,
    UINT,
    CelType,
    list_of,
    map_of,
)

_TYPES = {
    "bool": BOOL,
    "int": INT,
    "uint": UINT,
    "double": DOUBLE,
    "string": STRING,
    "bytes": BYTES,
    "timestamp": TIMESTAMP,
    "duration": DURATION,
    "type": TYPE,
    "dyn": DYN,
    "list": list_of(DYN),
    "strings": list_of(STRING),
    "map": map_of(DYN, DYN),
}
_SIGNATURE = re.compile(r"(?:(\w+)\.)?([\w.]+)\(([\w, ]*)\) -> (\w+)")


class Overload(NamedTuple):
    """One signature. `method` says that the first parameter stands before the name: `text.contains(part)`."""

    parameters: tuple[CelType, ...]
    result: CelType
    method: bool


@dataclass(frozen=True, slots=True)
class Function:
    """A function of CEL. `linear` says that its cost grows with its arguments, so that macros charge for it.

    `fast` maps the kinds of its arguments to a function that is right for just these. `variadic` takes any number of numbers.
    """

    name: str
    overloads: tuple[Overload, ...]
    run: Callable[..., Any]
    linear: bool = False
    variadic: bool = False
    fast: dict[tuple[str, ...], Callable[..., Any]] = field(default_factory=dict)


FUNCTIONS: dict[str, Function] = {}
"""By name, `math.` included."""


def _define(
    signatures: str,
    run: Callable[..., Any],
    *,
    linear: bool = False,
    variadic: bool = False,
    fast: dict[tuple[str, ...], Callable[..., Any]] | None = None,
) -> None:
    overloads = []
    name = ""
    for line in signatures.split(";"):
        found = _SIGNATURE.fullmatch(line.strip())
        assert found is not None, line
        target, name, parameters, result = found.groups()
        method = target is not None and target != "math"
        names = ([target] if method else []) + [part.strip() for part in parameters.split(",") if part.strip()]
        name = f"math.{name}" if target == "math" else name
        overloads.append(Overload(tuple(_TYPES[part] for part in names), _TYPES[result], method))
    quick = dict(fast or {})
    plain = getattr(run, "plain", None)
    if plain is not None:
        # Where the types are known already, the function without the check of its arguments does.
        for overload in overloads:
            if all(kind.kind in _CHECKED for kind in overload.parameters):
                quick.setdefault(tuple(kind.kind for kind in overload.parameters), plain)
    FUNCTIONS[name] = Function(name, tuple(overloads), run, linear, variadic, quick)


_CHECKED = frozenset({"string", "int"})


def _conversion(name: str, sources: Iterable[str], *, fast: dict[str, Callable[..., Any]] | None = None) -> None:
    quick: dict[tuple[str, ...], Callable[..., Any]] = {
        (source,): function for source, function in (fast or {}).items()
    }
    signatures = "; ".join(f"{name}({source}) -> {name}" for source in sources)
    _define(signatures, conversions.CONVERSIONS[name], linear=name in {"string", "bytes"}, fast=quick)


_SIZED: dict[tuple[str, ...], Callable[..., Any]] = {(kind,): len for kind in ("string", "bytes", "list", "map")}
_define(
    "size(string) -> int; size(bytes) -> int; size(list) -> int; size(map) -> int; "
    "string.size() -> int; bytes.size() -> int; list.size() -> int; map.size() -> int",
    strings.size,
    fast=_SIZED,
)
_define(
    "string.contains(string) -> bool",
    strings.contains,
    linear=True,
    fast={("string", "string"): str.__contains__},
)
_define(
    "string.startsWith(string) -> bool",
    strings.starts_with,
    linear=True,
    fast={("string", "string"): str.startswith},
)
_define("string.endsWith(string) -> bool", strings.ends_with, linear=True, fast={("string", "string"): str.endswith})
_define("matches(string, string) -> bool; string.matches(string) -> bool", patterns.matches, linear=True)
_define("string.charAt(int) -> string", strings.char_at)
_define("string.indexOf(string) -> int; string.indexOf(string, int) -> int", strings.index_of, linear=True)
_define("string.lastIndexOf(string) -> int; string.lastIndexOf(string, int) -> int", strings.last_index_of, linear=True)
_define("strings.join() -> string; strings.join(string) -> string", strings.join, linear=True)
_define("string.lowerAscii() -> string", strings.lower_ascii, linear=True)
_define("string.upperAscii() -> string", strings.upper_ascii, linear=True)
_define(
    "string.replace(string, string) -> string; string.replace(string, string, int) -> string",
    strings.replace,
    linear=True,
)
_define("string.split(string) -> strings; string.split(string, int) -> strings", strings.split, linear=True)
_define("string.substring(int) -> string; string.substring(int, int) -> string", strings.substring, linear=True)
_define("string.trim() -> string", strings.trim, linear=True)
_define("string.reverse() -> string", strings.reverse, linear=True)
_define("string.format(list) -> string", format_text, linear=True)

_conversion("int", ("int", "uint", "double", "string", "timestamp"))
_conversion("uint", ("uint", "int", "double", "string"))
_conversion("double", ("double", "int", "uint", "string"), fast={"int": float, "uint": float})
_conversion("bool", ("bool", "string"))
_conversion("string", ("string", "bool", "int", "uint", "double", "bytes", "timestamp", "duration"))
_conversion("bytes", ("bytes", "string"))
_conversion("timestamp", ("timestamp", "string", "int"))
_conversion("duration", ("duration", "string"))
_define("type(dyn) -> type", conversions.to_type)
_define("dyn(dyn) -> dyn", conversions.to_dyn)

for _name, _part in PARTS.items():
    _of_duration = _name in {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
    _define(
        f"timestamp.{_name}() -> int; timestamp.{_name}(string) -> int"
        + (f"; duration.{_name}() -> int" if _of_duration else ""),
        _part,
    )

_define("math.greatest(dyn) -> dyn", numbers.greatest, variadic=True, linear=True)
_define("math.least(dyn) -> dyn", numbers.least, variadic=True, linear=True)
_define("math.abs(int) -> int; math.abs(uint) -> uint; math.abs(double) -> double", numbers.absolute)
_define("math.ceil(double) -> double", numbers.ceil)
_define("math.floor(double) -> double", numbers.floor)
_define("math.round(double) -> double", numbers.round_half_away)
