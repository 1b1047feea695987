"""Defaults: from the JSON form in a schema to a datum."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from fastavro.read import LOGICAL_READERS

from trunkline.registry.model import AvroType, default_fits


def default_value(node: AvroType, default: Any) -> Any:
    """The datum of a default in JSON form, with the Python types that decoding gives; fresh at each call.

    Bytes and fixed are text in JSON, one letter (U+0000 to U+00FF) a byte. Of a union the first branch that fits is taken.
    """
    kind = node.kind
    if kind == "union":
        branch = next((branch for branch in node.branches if default_fits(branch, default)), None)
        return default if branch is None else default_value(branch, default)
    if kind in {"bytes", "fixed"} and isinstance(default, str):
        raw = default.encode("latin-1", "replace")
        return (
            Decimal(int.from_bytes(raw, "big", signed=True)).scaleb(-node.scale) if node.logical == "decimal" else raw
        )
    if kind in {"float", "double"} and isinstance(default, int):
        return float(default)
    if kind == "array" and isinstance(default, list):
        return [default_value(node.element, item) for item in default]
    if kind == "map" and isinstance(default, dict):
        return {key: default_value(node.element, item) for key, item in default.items()}
    if kind == "record" and isinstance(default, dict):
        return {
            each.name: default_value(each.type, default.get(each.name, each.default))
            for each in node.fields
            if each.name in default or each.has_default
        }
    if node.logical is not None and default_fits(node, default):
        return LOGICAL_READERS[f"{kind}-{node.logical}"](default, {}, None)
    return default
