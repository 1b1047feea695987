"""Avro schemas that a step's settings name: a file beside the manifest, or the schema itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastavro

from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError


def schema_of(declared: str | dict[str, Any], context: StepContext, field: str) -> Any:
    """The schema in Avro's JSON form. A relative path starts at the folder of the manifest.

    Raises `ConfigurationError` (`step.bad_schema`) for a file that can't be read and for what is no Avro schema.
    """
    where = f"{context.where}.{field}"
    if isinstance(declared, dict):
        schema: Any = declared
        named = "the schema"
    else:
        path = Path(declared)
        if not path.is_absolute() and context.python_path is not None:
            path = context.python_path / path
        named = f"the schema {declared}"
        try:
            schema = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"{named} can't be read: {error}", where=where, hint="name an .avsc file", code="step.bad_schema"
            ) from error
    parsed(schema, named, where)
    return schema


def parsed(schema: Any, named: str, where: str) -> Any:
    """The schema as fastavro wants it. Raises `ConfigurationError` (`step.bad_schema`)."""
    try:
        return fastavro.parse_schema(schema, _force=True)
    except Exception as error:
        raise ConfigurationError(
            f"{named} is no Avro schema: {error}",
            where=where,
            hint="see the Avro specification",
            code="step.bad_schema",
        ) from error
