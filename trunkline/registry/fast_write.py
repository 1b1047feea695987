"""Writers generated for one schema: Python code that makes the bytes of a datum that is plainly what the schema says.

For flat records of texts and numbers it takes half the time of a library's call with `fast_check` before it. It is right or it
raises: a value of another Python type than the schema's own, a missing field or one too many, a number out of range ends in
some exception, and the caller then takes the long way, which has the last word.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from trunkline.registry.extent import Extents
from trunkline.registry.model import INT_MAX, INT_MIN, LONG_MAX, LONG_MIN, AvroType
from trunkline.registry.model_graph import is_recursive, walk
from trunkline.registry.precise import FLOAT_MAX

Writer = Callable[[Any], bytes]
_KINDS: Final = frozenset(
    {"null", "boolean", "int", "long", "float", "double", "bytes", "string", "enum", "union", "record"}
)
_MOST_FIELDS: Final = 200
_MOST_VALUES: Final = 1000
"""Code is written for a record wherever it is used."""
_SHORT: Final = 4096
_TESTS: Final = {
    "null": "{0} is not None",
    "boolean": "{0} is not True and {0} is not False",
    "int": f"type({{0}}) is not int or not {INT_MIN} <= {{0}} <= {INT_MAX}",
    "long": f"type({{0}}) is not int or not {LONG_MIN} <= {{0}} <= {LONG_MAX}",
    "float": f"type({{0}}) is not float or not {-FLOAT_MAX!r} <= {{0}} <= {FLOAT_MAX!r}",
    "double": "type({0}) is not float",
    "bytes": "type({0}) is not bytes",
    "string": "type({0}) is not str",
    "enum": "type({0}) is not str",
}


class UnusualError(Exception):
    """The datum is not plainly one of the schema: the long way judges it."""


def compile_writer(root: AvroType, prefix: bytes) -> Writer | None:
    """A function of a datum that gives its value in the wire format, or raises: any exception.

    None for what is no record of plain types (and null or one of them).
    """
    if root.kind != "record" or is_recursive(root):
        return None
    nodes = list(walk(root))
    if any(node.kind not in _KINDS or node.logical is not None for node in nodes):
        return None
    if any(node.kind == "union" and not _is_optional(node) for node in nodes):
        return None
    if sum(len(node.fields) for node in nodes) > _MOST_FIELDS or Extents().of(root).values > _MOST_VALUES:
        return None
    code = _Code()
    code.record(root, "x", 1)
    source = "\n".join(["def write(x):", *code.lines, f"    return join(({', '.join(['PREFIX', *code.parts])},))"])
    namespace: dict[str, Any] = {
        "Unusual": UnusualError,
        "PREFIX": prefix,
        "join": b"".join,
        "number": varint,
        "SIZES": _SIZES,
        "pack_double": struct.Struct("<d").pack,
        "pack_float": struct.Struct("<f").pack,
        **code.constants,
    }
    exec(compile(source, "<avro writer>", "exec"), namespace)  # noqa: S102 (names are literals by repr, all else is ours)
    writer: Writer = namespace["write"]
    return writer


def varint(number: int) -> bytes:
    """A whole number as Avro writes it: zigzag, then seven bits a byte, the lowest first."""
    left = (number << 1) ^ (number >> 63)
    found = bytearray()
    while left > 127:
        found.append(left & 127 | 128)
        left >>= 7
    found.append(left)
    return bytes(found)


_SIZES: Final = tuple(varint(size) for size in range(_SHORT))


def _is_optional(node: AvroType) -> bool:
    kinds = [branch.kind for branch in node.branches]
    return len(kinds) == 2 and kinds.count("null") == 1 and "record" not in kinds


class _Code:
    """Collects the lines that check and convert, and the names of the parts in their order."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.parts: list[str] = []
        self.constants: dict[str, Any] = {}
        self.count = 0

    def put(self, depth: int, *lines: str) -> None:
        self.lines += ["    " * depth + line for line in lines]

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def record(self, node: AvroType, source: str, depth: int) -> None:
        count = len(node.fields)
        self.put(depth, f"if type({source}) is not dict or len({source}) != {count}:", "    raise Unusual")
        for each in node.fields:
            name = self.fresh("v")
            self.put(depth, f"{name} = {source}[{each.name!r}]")
            if each.type.kind == "record":
                self.record(each.type, name, depth)
            elif each.type.kind == "union":
                self.optional(each.type, name, depth)
            else:
                self.parts += self.plain(each.type, name, depth)

    def optional(self, node: AvroType, name: str, depth: int) -> None:
        null = 0 if node.branches[0].kind == "null" else 1
        branch = self.fresh("p")
        self.put(depth, f"if {name} is None:")
        empty = len(self.lines)
        self.put(depth, "else:", f"    {branch} = {varint(1 - null)!r}")
        found = self.plain(node.branches[1 - null], name, depth + 1)
        nothing = [f"{branch} = {varint(null)!r}", *(f"{part} = b''" for part in found)]
        self.lines[empty:empty] = ["    " * (depth + 1) + line for line in nothing]
        self.parts += [branch, *found]

    def plain(self, node: AvroType, name: str, depth: int) -> list[str]:
        """Lines that check a value and make its parts; the parts' names."""
        kind, part = node.kind, self.fresh("p")
        self.put(depth, f"if {_TESTS[kind].format(name)}:", "    raise Unusual")
        if kind == "null":
            return []
        if kind in {"string", "bytes"}:
            size = self.fresh("p")
            self.put(
                depth,
                f"{part} = {name}.encode()" if kind == "string" else f"{part} = {name}",
                f"n = len({part})",
                f"{size} = SIZES[n] if n < {_SHORT} else number(n)",
            )
            return [size, part]
        if kind == "enum":
            table = self.fresh("C")
            self.constants[table] = {symbol: varint(index) for index, symbol in enumerate(node.symbols)}
            self.put(depth, f"{part} = {table}[{name}]")
        elif kind in {"int", "long"}:
            self.put(depth, f"{part} = SIZES[{name}] if 0 <= {name} < {_SHORT} else number({name})")
        elif kind == "boolean":
            self.put(depth, f"{part} = b'\\x01' if {name} else b'\\x00'")
        else:
            self.put(depth, f"{part} = pack_{kind}({name})")
        return [part]
