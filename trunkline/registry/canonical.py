"""The forms of a schema that are compared: tidied text, the normalised form, Avro's Parsing Canonical Form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any, Final

from trunkline.registry.model import PRIMITIVES, RESERVED, AvroType, Parsed, parse_schema
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
    """The same schema in its shortest JSON: `{"type": "int"}` is `"int"`. Names and references stay as they were written.

    What Avro's own parser takes no notice of goes: the name of a primitive type, the fields of an array, attributes beside a type that is
    defined elsewhere, the order `ascending`, which is the default.
    """
    if isinstance(source, list):
        return [tidy(part) for part in source]
    if not isinstance(source, dict):
        return source
    kind = source.get("type")
    if isinstance(kind, dict | list) or (isinstance(kind, str) and kind not in _OWN):
        return tidy(kind)
    own = _OWN[kind] if isinstance(kind, str) else RESERVED
    made = {key: value for key, value in source.items() if key in own or key not in RESERVED}
    if set(made) == {"type"}:
        return kind
    for key in ("items", "values"):
        if key in made:
            made[key] = tidy(made[key])
    if isinstance(made.get("fields"), list):
        made["fields"] = [_tidy_field(each) for each in made["fields"]]
    return _without_nothing(made)


def _tidy_field(field: Any) -> Any:
    if not isinstance(field, dict):
        return field
    made = _without_nothing(field)
    if "type" in made:
        made["type"] = tidy(made["type"])
    if made.get("order") == "ascending":
        del made["order"]
    return made


def _without_nothing(source: dict[str, Any]) -> dict[str, Any]:
    """Without an empty list of aliases, and a documentation that is no text."""
    return {
        key: value
        for key, value in source.items()
        if not (key == "aliases" and value == []) and not (key == "doc" and not isinstance(value, str))
    }


_NAMING: Final = frozenset({"type", "name", "namespace", "doc", "aliases"})
_OWN: Final = {
    **{kind: frozenset({"type"}) for kind in PRIMITIVES},
    "array": frozenset({"type", "items"}),
    "map": frozenset({"type", "values"}),
    "record": _NAMING | {"fields"},
    "error": _NAMING | {"fields"},
    "enum": _NAMING | {"symbols"},
    "fixed": _NAMING | {"size"},
}
"""By kind the reserved attributes that mean something there."""


def canonical_text(source: Any) -> str:
    """The text that a registry stores: tidied, without spaces, keys in a fixed order. The order of fields is kept."""
    return json.dumps(_ordered(tidy(source)), ensure_ascii=False, separators=(",", ":"))


def normalised_text(source: Any, references: Iterable[Any] = ()) -> str:
    """The text under `normalize=true`: also with full names, and with references by name. Raises SchemaError."""
    return normalised(parse_schema(source, references))


def normalised(schema: Parsed) -> str:
    """See `normalised_text`."""
    return canonical_text(to_json(schema.type, borrowed=schema.borrowed))


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
