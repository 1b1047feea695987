"""A type back in Avro's JSON form: full names, references resolved."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trunkline.registry.model import PRIMITIVES, AvroType, Field
from trunkline.registry.model_graph import walk


def to_json(root: AvroType, *, plain: bool = False, borrowed: Iterable[str] = ()) -> Any:
    """The JSON form with full names, each named type defined where it occurs first.

    `plain` is for libraries that know less: logical types that are not valid where they stand are left out, and a name
    without a namespace that is used inside one, which Avro's JSON can't express, gets the namespace `_`. Types whose names
    are `borrowed` are defined elsewhere and only named.
    """
    return _Writer(plain, _homeless(root) if plain else set(), set(borrowed)).write(root, "")


class _Writer:
    def __init__(self, plain: bool, homeless: set[str], defined: set[str]) -> None:
        self.plain = plain
        self.homeless = homeless
        self.defined = defined

    def write(self, node: AvroType, namespace: str) -> Any:
        if node.kind == "union":
            return [self.write(branch, namespace) for branch in node.branches]
        name = f"_.{node.name}" if node.name in self.homeless else node.name
        if name and name in self.defined:
            return name
        props = node.props
        if self.plain and node.logical is None and "logicalType" in props:
            props = {key: value for key, value in props.items() if key not in {"logicalType", "precision", "scale"}}
        if node.kind in PRIMITIVES and not props:
            return node.kind
        made: dict[str, Any] = {"type": node.kind}
        if name:
            self.defined.add(name)
            made["name"] = name
            if "." not in name and namespace:
                made["namespace"] = ""
            namespace = name.rpartition(".")[0]
            if node.doc is not None:
                made["doc"] = node.doc
            if node.aliases:
                made["aliases"] = list(node.aliases)
        if node.kind == "record":
            made["fields"] = [self.field(each, namespace) for each in node.fields]
        elif node.kind == "enum":
            made["symbols"] = list(node.symbols)
            if node.symbol_default is not None:
                made["default"] = node.symbol_default
        elif node.kind == "fixed":
            made["size"] = node.size
        elif node.kind in {"array", "map"}:
            made["items" if node.kind == "array" else "values"] = self.write(node.element, namespace)
        made.update(props)
        return made

    def field(self, each: Field, namespace: str) -> dict[str, Any]:
        made: dict[str, Any] = {"name": each.name, "type": self.write(each.type, namespace)}
        if each.doc is not None:
            made["doc"] = each.doc
        if each.has_default:
            made["default"] = each.default
        if each.aliases:
            made["aliases"] = list(each.aliases)
        made.update(each.props)
        return made


def _homeless(root: AvroType) -> set[str]:
    names = {node.name for node in walk(root) if node.name}
    return {name for name in names if "." not in name} if any("." in name for name in names) else set()
