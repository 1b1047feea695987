"""What JSON and CSV can't say, said by the schema: text becomes a time, a UUID or a decimal where the schema wants one.

Nothing is guessed and nothing is lost: a value that can't become what the schema wants is left as it is, and the encoder, which
knows the path, refuses it.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal
from uuid import UUID

from trunkline.registry.model import AvroType
from trunkline.registry.precise import rank_of

JSON_NAME: Final = "jsonName"
"""The attribute of a field that names the key in JSON or the column, where that is no valid Avro name."""
NULL_TEXTS: Final = frozenset({"", "NA", "N/A", "NULL", "null", "None", "NaN"})
"""What rows of text write for null."""
_INTEGER: Final = re.compile(r"[+-]?(0|[1-9][0-9]{0,18})")
_NUMBER: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_TIMESTAMP: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})")
_BOOLEANS: Final = {"true": True, "false": False}


def conform(node: AvroType, value: Any, *, text: bool = False) -> Any:
    """The datum that `value`, decoded JSON, means under a schema; with `text` a row of text, such as CSV has.

    Unknown fields are kept, for the encoder to refuse or ignore. Bytes are taken from base64.
    """
    kind = node.kind
    if kind == "union":
        return _conform_union(node, value, text)
    if kind == "record" and isinstance(value, dict):
        made = dict(value)
        for each in node.fields:
            key = each.props.get(JSON_NAME, each.name)
            if key in value:
                if key != each.name:
                    made.pop(key, None)
                made[each.name] = conform(each.type, value[key], text=text)
        return made
    if kind == "array" and isinstance(value, list):
        return [conform(node.element, item, text=text) for item in value]
    if kind == "map" and isinstance(value, dict):
        return {key: conform(node.element, item, text=text) for key, item in value.items()}
    return _conform_scalar(node, value, text)


def _conform_union(node: AvroType, value: Any, text: bool) -> Any:
    branches = node.branches
    if text and isinstance(value, str) and value in NULL_TEXTS and any(each.kind == "null" for each in branches):
        return None
    if not text and any(
        rank_of(each, value) == 0 and each.logical is None for each in branches if each.kind not in _DEEP
    ):
        return value
    for branch in sorted(branches, key=lambda each: each.kind == "string" and each.logical is None):
        made = conform(branch, value, text=text)
        if rank_of(branch, made) is not None:
            return made
    return value


def _conform_scalar(node: AvroType, value: Any, text: bool) -> Any:
    if node.logical is not None:
        made = _logical(node, value)
        if made is not value:
            return made
    if isinstance(value, float) and node.kind in {"int", "long"} and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    if node.kind in {"bytes", "fixed"}:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return value
    if text and node.kind in {"int", "long"} and _INTEGER.fullmatch(value.strip()):
        return int(value)
    if text and node.kind in {"float", "double"} and _NUMBER.fullmatch(value.strip()):
        return float(value)
    if text and node.kind == "boolean":
        return _BOOLEANS.get(value.strip().lower(), value)
    return value


def _logical(node: AvroType, value: Any) -> Any:
    try:
        if node.logical == "decimal":
            if isinstance(value, float):
                return Decimal(repr(value))
            return Decimal(value) if isinstance(value, str) else value
        if not isinstance(value, str):
            return value
        if node.logical in {"timestamp-millis", "timestamp-micros"}:
            return parse_timestamp(value) or value
        if node.logical in {"local-timestamp-millis", "local-timestamp-micros"}:
            found = dt.datetime.fromisoformat(value)
            return value if found.tzinfo is not None else found
        if node.logical == "date":
            return dt.date.fromisoformat(value)
        if node.logical in {"time-millis", "time-micros"}:
            return dt.time.fromisoformat(value)
        return UUID(value)
    except (ValueError, InvalidOperation):
        return value


def parse_timestamp(value: str) -> dt.datetime | None:
    """The moment that an ISO 8601 text with a zone names, or None where it is none."""
    if not _TIMESTAMP.fullmatch(value):
        return None
    try:
        return dt.datetime.fromisoformat(value)
    except ValueError:
        return None


def text_kind(value: str) -> Literal["boolean", "long", "double", "string"]:
    """What a text of a row is: `007` and `1e999` stay text, because as numbers they would lose something."""
    stripped = value.strip()
    if stripped.lower() in _BOOLEANS:
        return "boolean"
    if _INTEGER.fullmatch(stripped) and abs(int(stripped)) < 2**63:
        return "long"
    if _NUMBER.fullmatch(stripped) and not re.match(r"[+-]?0[0-9]", stripped) and abs(float(stripped)) < 1e308:
        return "double"
    return "string"


_DEEP: Final = frozenset({"record", "array", "map"})
