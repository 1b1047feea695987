"""Readers generated for one schema: Python code that walks the bytes of a datum and keeps the fields that are wanted.

A call for each datum costs a library more than the datum: for flat records of texts and numbers the generated code takes half
the time of fastavro's reader, and a reader of two fields of twenty skips the others by their lengths. It is right or it raises:
whatever is unusual (a truncated or overlong datum, a negative length, an unknown branch, bytes that are no UTF-8 in a field that
is kept) ends in some exception, and the caller then has the guard and fastavro judge the datum. What is returned is what fastavro
returns; only fastavro takes a negative index of a union or an enum for one from the end, which here is unusual like the rest.

Source of the encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from typing import Any, Final

from fastavro.read import LOGICAL_READERS

from trunkline.registry.extent import Extents
from trunkline.registry.guard import needs_guard
from trunkline.registry.model import AvroType
from trunkline.registry.model_graph import walk
from trunkline.registry.wire import PREFIX_SIZE

Reader = Callable[[bytes], dict[str, Any]]
_MOST_FIELDS: Final = 200
_MOST_VALUES: Final = 1000
"""Code is written for a record wherever it is used."""
_MOST_BRANCHES: Final = 64
_ONE_BYTE: Final = 64
"""So many indexes take one byte."""
_MOST_ALTERNATIVES: Final = 80
"""Python nests no deeper than 100 levels."""
_MOST_NESTED: Final = 40
"""Levels of indentation: Python compiles at most 100, and at most 20 loops inside each other."""
_MOST_LOOPS: Final = 6
_WIDE: Final = frozenset({"long", "int"})
_REPEATED: Final = frozenset({"array", "map"})


class UnusualError(Exception):
    """The datum is not of the plain form: the library judges it."""


class _TooNestedError(Exception):
    """The schema has more levels than generated code may have."""


def has_index(root: AvroType) -> bool:
    """Whether its data hold an index: of a branch of a union, or of a symbol of an enum."""
    return any(node.kind in {"union", "enum"} for node in walk(root))


def compile_reader(root: AvroType, wanted: Collection[str] | None = None) -> Reader | None:
    """A function of a value in the wire format that gives the datum, with the `wanted` fields alone where they are named.

    Every length is followed to the last byte, also of fields that are skipped; of those neither UTF-8 nor ranges are looked at.
    The function raises for a datum that is not of the plain form: any exception. None where a library is as fast or needed: no
    record, recursion, items without a byte, hundreds of fields; and, where there is no index that has to be looked at, arrays, maps
    and numbers of many bytes.
    """
    if root.kind != "record" or needs_guard(root):
        return None
    nodes = list(walk(root))
    extent = Extents().of(root)
    if extent.values > _MOST_VALUES:
        return None
    if extent.alternatives > _MOST_ALTERNATIVES or any(len(node.branches) > _MOST_BRANCHES for node in nodes):
        return None
    if sum(len(node.fields) for node in nodes) > _MOST_FIELDS:
        return None
    if wanted is None and not has_index(root):
        wide = sum(node.kind in _WIDE or node.logical is not None for node in nodes) * 2 > len(root.fields)
        if wide or any(node.kind in _REPEATED for node in nodes):
            return None  # that is what the library is faster at
    writer = _Writer()
    try:
        result = writer.record(root, 1, None if wanted is None else frozenset(wanted))
    except _TooNestedError:
        return None
    source = "\n".join(
        [
            "def read(d):",
            f"    p = {PREFIX_SIZE}",
            *writer.lines,
            "    if p != len(d):",
            "        raise Unusual",
            f"    return {result}",
        ]
    )
    namespace: dict[str, Any] = {
        "Unusual": UnusualError,
        "number": _number,
        "unpack_double": struct.Struct("<d").unpack_from,
        "unpack_float": struct.Struct("<f").unpack_from,
        **writer.constants,
    }
    exec(compile(source, "<avro reader>", "exec"), namespace)  # noqa: S102 (names are literals by repr, all else is ours)
    reader: Reader = namespace["read"]
    return reader


class _Writer:
    """Collects the lines. `d` are the bytes, `p` is where the next value begins, `n` and `q` are for the moment."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.constants: dict[str, Any] = {}
        self.count = 0
        self.loops = 0

    def put(self, depth: int, *lines: str) -> None:
        if depth > _MOST_NESTED:
            raise _TooNestedError
        self.lines += ["    " * depth + line for line in lines]

    def fresh(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    def constant(self, value: Any) -> str:
        name = self.fresh("C")
        self.constants[name] = value
        return name

    def record(self, node: AvroType, depth: int, wanted: frozenset[str] | None) -> str:
        """Lines that read a record; the expression of its datum."""
        pairs = []
        for each in node.fields:
            if wanted is None or each.name in wanted:
                pairs.append(f"{each.name!r}: {self.value(each.type, depth)}")
            else:
                self.skip(each.type, depth)
        return "{" + ", ".join(pairs) + "}"

    def value(self, node: AvroType, depth: int) -> str:
        """Lines that read one value; an expression of it that is evaluated once and later."""
        kind = node.kind
        if kind == "null":
            return "None"
        if kind == "record":
            name = self.fresh("v")
            datum = self.record(node, depth, None)
            self.put(depth, f"{name} = {datum}")
            return name
        name = self.fresh("v")
        if kind == "union":
            self._branches(node, depth, name)
        elif kind in _REPEATED:
            self._items(node, depth, name)
        elif kind == "string":
            self._sized(depth)
            self.put(depth, f"{name} = d[q:p].decode()")
        elif kind == "bytes":
            self._sized(depth)
            self.put(depth, f"{name} = d[q:p]")
        elif kind in {"int", "long"}:
            self._number(depth)
            self.put(depth, f"{name} = (n >> 1) ^ -(n & 1)")
        elif kind == "boolean":
            self.put(depth, "n = d[p]", "if n > 1:", "    raise Unusual", f"{name} = n == 1", "p += 1")
        elif kind in {"double", "float"}:
            self.put(depth, f"{name} = unpack_{kind}(d, p)[0]", f"p += {8 if kind == 'double' else 4}")
        elif kind == "enum":
            self._index(depth, len(node.symbols))
            self.put(depth, f"{name} = {self.constant(node.symbols)}[n]")
        else:
            self.put(depth, "q = p", f"p += {node.size}", f"{name} = d[q:p]")
        if node.logical is not None:
            self._logical(node, depth, name)
        return name

    def skip(self, node: AvroType, depth: int) -> None:
        """Lines that go past one value."""
        kind = node.kind
        if kind == "record":
            for each in node.fields:
                self.skip(each.type, depth)
        elif kind == "union":
            self._branches(node, depth, None)
        elif kind in _REPEATED:
            self._items(node, depth, None)
        elif kind in {"string", "bytes"}:
            self._sized(depth, kept=False)
        elif kind in {"int", "long"}:
            self._number(depth)
        elif kind == "enum":
            self._index(depth, len(node.symbols))
        elif kind != "null":
            self.put(depth, f"p += {({'boolean': 1, 'double': 8, 'float': 4}).get(kind, node.size)}")

    def _branches(self, node: AvroType, depth: int, name: str | None) -> None:
        self._index(depth, len(node.branches))
        # The last alternative goes without a test: `n` is in range.
        chosen = self.fresh("b")
        self.put(depth, f"{chosen} = n")
        for index, branch in enumerate(node.branches):
            last = index == len(node.branches) - 1
            word = "if" if index == 0 else "elif"
            self.put(depth, "if True:" if last and index == 0 else "else:" if last else f"{word} {chosen} == {index}:")
            before = len(self.lines)
            if name is None:
                self.skip(branch, depth + 1)
            else:
                self.put(depth + 1, f"{name} = {self.value(branch, depth + 1)}")
            if len(self.lines) == before:
                self.put(depth + 1, "pass")

    def _items(self, node: AvroType, depth: int, name: str | None) -> None:
        """A block after another until one is empty. A block that says its size (a negative count) is left to the library."""
        self.loops += 1
        if self.loops > _MOST_LOOPS:
            raise _TooNestedError
        if name is not None:
            self.put(depth, f"{name} = {'[]' if node.kind == 'array' else '{}'}")
        self.put(depth, "while True:")
        self._number(depth + 1)
        self.put(depth + 1, "if n == 0:", "    break")
        # Every item has a byte, so a count beyond what is left is wrong before its items are made.
        self.put(depth + 1, "if n & 1 or n >> 1 > len(d) - p:", "    raise Unusual", "for _ in range(n >> 1):")
        key = self.fresh("m")
        if node.kind == "map":
            self._sized(depth + 2, kept=name is not None)
            if name is not None:
                self.put(depth + 2, f"{key} = d[q:p].decode()")
        if name is None:
            self.skip(node.element, depth + 2)
        else:
            item = self.value(node.element, depth + 2)
            self.put(depth + 2, f"{name}.append({item})" if node.kind == "array" else f"{name}[{key}] = {item}")
        self.loops -= 1

    def _number(self, depth: int) -> None:
        """`n` becomes the varint as it stands, before its sign is decoded."""
        self.put(depth, "n = d[p]", "if n < 128:", "    p += 1", "else:", "    n, p = number(d, p)")

    def _index(self, depth: int, count: int) -> None:
        if count <= _ONE_BYTE:
            self.put(depth, "n = d[p]", f"if n & 129 or n >= {2 * count}:", "    raise Unusual", "n >>= 1", "p += 1")
        else:
            self._number(depth)
            self.put(depth, f"if n & 1 or n >= {2 * count}:", "    raise Unusual", "n >>= 1")

    def _sized(self, depth: int, *, kept: bool = True) -> None:
        """`d[q:p]` becomes the content. A length beyond the end is found at the end, where `p` must be the end exactly."""
        self._number(depth)
        self.put(depth, "if n & 1:", "    raise Unusual", *(["q = p"] if kept else []), "p += n >> 1")

    def _logical(self, node: AvroType, depth: int, name: str) -> None:
        convert = LOGICAL_READERS.get(f"{node.kind}-{node.logical}")
        if convert is not None:
            schema = {"precision": node.precision, "scale": node.scale, "size": node.size}
            self.put(depth, f"{name} = {self.constant(convert)}({name}, {self.constant(schema)}, None)")


def _number(d: bytes, p: int) -> tuple[int, int]:
    """A varint of two bytes or more at `p`, unsigned, and the place after it."""
    n = d[p] & 127
    byte = d[p + 1]
    if byte < 128:
        return n | byte << 7, p + 2
    n |= (byte & 127) << 7
    shift = 14
    for place in range(p + 2, p + 10):
        byte = d[place]
        n |= (byte & 127) << shift
        if byte < 128:
            if n >> 64:
                raise UnusualError
            return n, place + 1
        shift += 7
    raise UnusualError
