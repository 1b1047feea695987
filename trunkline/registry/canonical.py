"""The forms of a schema that are compared: tidied text, the normalised form, Avro's Parsing Canonical Form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from trunkline.registry.model import PRIMITIVES, AvroType, parse_type
from trunkline.registry.model_graph import walk
from trunkline.registry.model_json import to_json

_ORDER = (
    "type",
    "name",
    "namespace",
    "doc",
    "aliases",
    "fields",
    "symbols",
    "items",
    "values",
    "size",
    "default",
    "order",
)


def tidy(source: Any) -> Any:
    """The same schema in its shortest JSON: `{"type": "int"}` is `"int"`. Names and references stay as they were written."""
    if isinstance(source, list):
        return [tidy(part) for part in source]
    if not isinstance(source, dict):
        return source
    if set(source) == {"type"}:
        return tidy(source["type"])
    made = {key: value for key, value in source.items() if not (key == "aliases" and value == [])}
    for key in ("type", "items", "values"):
        if key in made:
            made[key] = tidy(made[key])
    if isinstance(made.get("fields"), list):
        made["fields"] = [_tidy_field(each) for each in made["fields"]]
    return made


def _tidy_field(field: Any) -> Any:
    if not isinstance(field, dict):
        return field
    made = {key: value for key, value in field.items() if not (key == "aliases" and value == [])}
    if "type" in made:
        made["type"] = tidy(made["type"])
    return made


def canonical_text(source: Any) -> str:
    """The text that a registry stores: tidied, without spaces, keys in a fixed order. The order of fields is kept."""
    return json.dumps(_ordered(tidy(source)), ensure_ascii=False, separators=(",", ":"))


def normalised_text(source: Any, references: Iterable[Any] = ()) -> str:
    """The text under `normalize=true`: also with full names, and with references by name. Raises SchemaError."""
    borrowed = list(references)
    names = {node.name for reference in borrowed for node in walk(parse_type(reference, strict=False)) if node.name}
    return canonical_text(to_json(parse_type(source, borrowed), borrowed=names))


def parsing_canonical_form(root: AvroType) -> str:
    """What matters for reading and nothing else, in the form that every Avro library agrees on.

    Source: https://avro.apache.org/docs/1.12.0/specification/#parsing-canonical-form-for-schemas
    """
    return json.dumps(_canonical(root, set()), ensure_ascii=False, separators=(",", ":"))


def fingerprint(root: AvroType) -> str:
    """SHA-256 of the Parsing Canonical Form, in hex."""
    return hashlib.sha256(parsing_canonical_form(root).encode()).hexdigest()


def _canonical(node: AvroType, defined: set[str]) -> Any:
    if node.kind == "union":
        return [_canonical(branch, defined) for branch in node.branches]
    if node.kind in PRIMITIVES:
        return node.kind
    if node.kind == "array":
        return {"type": "array", "items": _canonical(node.element, defined)}
    if node.kind == "map":
        return {"type": "map", "values": _canonical(node.element, defined)}
    if node.name in defined:
        return node.name
    defined.add(node.name)
    made: dict[str, Any] = {"name": node.name, "type": node.kind}
    if node.kind == "record":
        made["fields"] = [{"name": each.name, "type": _canonical(each.type, defined)} for each in node.fields]
    elif node.kind == "enum":
        made["symbols"] = list(node.symbols)
    else:
        made["size"] = node.size
    return made


def _ordered(source: Any) -> Any:
    """Structural keys first, in the order that Avro's own libraries write, then the rest by name."""
    if isinstance(source, list):
        return [_ordered(part) for part in source]
    if not isinstance(source, dict):
        return source
    made: dict[str, Any] = {}
    for key in [key for key in _ORDER if key in source] + sorted(key for key in source if key not in _ORDER):
        value = source[key]
        if key in {"type", "items", "values"}:
            value = _ordered(value)
        elif key == "fields" and isinstance(value, list):
            value = [{"name": each.get("name"), **_ordered(each)} if isinstance(each, dict) else each for each in value]
        made[key] = value
    return made
