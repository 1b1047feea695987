"""Avro schemas that a step's settings name: a file beside the manifest, or the schema itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastavro

from trunkline.core.avro.faults import faults_of_schema
from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsontext import read_json


def schema_of(declared: str | dict[str, Any], context: StepContext, field: str) -> Any:
    """The schema in Avro's JSON form. A relative path starts at the folder of the manifest.

    Raises `ConfigurationError` (`step.bad_schema`) for a file that can't be read and for what is no Avro schema.
    """
    where = f"{context.where}.{field}"
    if isinstance(declared, dict):
        schema: Any = declared
        named = "the schema"
    else:
        named = f"the schema {declared}"
        schema = read_schema(declared, context.python_path, where)
    for fault in faults_of_schema(schema):
        raise ConfigurationError(
            f"{named} is no Avro schema: {fault}", where=where, hint=fault.hint, code="step.bad_schema"
        )
    parsed(schema, named, where)
    return schema


def read_schema(file: str, folder: Path | None, where: str) -> Any:
    """The schema of a file. Raises `ConfigurationError` (`step.bad_schema`)."""
    path = Path(file) if folder is None else folder / file
    try:
        return read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(
            f"the schema {file} can't be read: {reason}", where=where, hint="name an .avsc file", code="step.bad_schema"
        ) from error


def with_schema_in_place(raw: Any, folder: Path) -> Any:
    """A step's settings with the schema itself, where `schema` names a file."""
    if not isinstance(raw, dict) or not isinstance(raw.get("schema"), str):
        return raw
    return {**raw, "schema": read_schema(raw["schema"], folder, "schema")}


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
