"""A schema's JSON before it is read as a schema: decoded, and nothing in it that no schema needs and somebody would stumble over."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from trunkline.registry.schema_error import SchemaError
from trunkline.registry.steps import Steps

MAX_JSON_NESTING: Final = 400
"""Levels of lists and objects inside each other: three for each level of types, and what attributes hold."""
_MAX_BITS: Final = 14_000
"""Of whole numbers. Python writes no longer ones (4,300 digits)."""


def decode(text: str) -> Any:
    """Decoded JSON. Raises SchemaError."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise SchemaError("the schema is nested too deep") from error
    except ValueError as error:
        raise SchemaError(f"the schema is no JSON: {error}") from error


def require_plain(source: Any, steps: Steps) -> None:
    """Raises SchemaError for decoded JSON that is nested too deep, or can't be written as JSON again, and TooCostlyError."""
    level: list[Any] = [source]
    for _ in range(MAX_JSON_NESTING):
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    raise SchemaError("a key of the schema's JSON is no text")
                below += value
                below += value.values()
            elif isinstance(value, list):
                below += value
            else:
                _require_plain_value(value)
        if not below:
            return
        steps.take(len(below))
        level = below
    raise SchemaError(f"the schema's JSON is nested more than {MAX_JSON_NESTING} levels deep")


def shown(value: Any) -> str:
    """A value in a message: its beginning."""
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        return f"a number of {value.bit_length()} bits"
    if isinstance(value, str):
        value = value[:100]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _require_plain_value(value: Any) -> None:
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise SchemaError(f"the text {shown(value)} has half of a surrogate pair") from None
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise SchemaError("a number is too large for JSON's readers")
    elif isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            raise SchemaError(f"a number has {value.bit_length()} bits")
    elif value is not None:
        raise SchemaError(f"a {type(value).__name__} is no JSON")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
