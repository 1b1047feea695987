"""Contracts kept as `.avsc` files: those that Trunkline ships, and those of any folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from trunkline.core.errors import ConfigurationError
from trunkline.core.shipped import shipped_folder
from trunkline.registry.model import SchemaError, parse_type
from trunkline.registry.model_graph import walk
from trunkline.registry.schema import Schema, decode_json


@cache
def shipped_schemas() -> dict[str, Schema]:
    """The contracts that come with Trunkline, by full name. They have no ids: a registry gives those."""
    return load_folder(shipped_folder())


def shipped_schema(path: str) -> Schema:
    """One contract by its path in the folder of the shipped ones, such as `trunkline/schedule_tick.avsc`.

    Raises ConfigurationError where there is no such file.
    """
    return load_file(shipped_folder() / path)


def load_folder(folder: Path) -> dict[str, Schema]:
    """Every schema of the `.avsc` files in a folder and below, by full name.

    A file may use the named types of the others, in any order. Raises SchemaError that names the file.
    """
    waiting = {path: _read(path) for path in sorted(folder.rglob("*.avsc"))}
    loaded: dict[str, Schema] = {}
    sources: list[Any] = []
    while waiting:
        before = len(waiting)
        failed: tuple[Path, SchemaError] | None = None
        for path, source in list(waiting.items()):
            try:
                schema = Schema(source, references=sources)
            except SchemaError as error:
                failed = failed or (path, error)
                continue
            if schema.name in loaded:
                raise SchemaError(f"{schema.name} is defined in another file of this folder too", where=str(path))
            loaded[schema.name] = schema
            sources.append(source)
            del waiting[path]
        if failed is not None and len(waiting) == before:
            raise _in_file(*failed) from failed[1]
    return loaded


def load_file(path: Path, references: list[Any] | None = None) -> Schema:
    """The schema of one file. Raises SchemaError that names the file, ConfigurationError where it can't be read."""
    try:
        return Schema(_read(path), references=references or ())
    except SchemaError as error:
        raise _in_file(path, error) from error


def named_types(schema: Schema) -> list[str]:
    """The full names of all types that a schema defines."""
    return sorted({node.name for node in walk(parse_type(schema.json, strict=False)) if node.name})


def _in_file(path: Path, error: SchemaError) -> SchemaError:
    return SchemaError(error.message, where=f"{path}:{error.where or '/'}", hint=error.hint)


def _read(path: Path) -> Any:
    try:
        return decode_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the schema can't be read: {error.strerror}", where=str(path)) from error
    except (SchemaError, UnicodeDecodeError) as error:
        raise SchemaError(str(error), where=str(path)) from error
