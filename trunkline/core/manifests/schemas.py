"""Avro schemas that manifests declare, in place or by a file: read, and said with the line of each part that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trunkline.core.avro.faults import SchemaFault, faults_of_schema
from trunkline.core.errors import TrunklineError
from trunkline.core.expressions import type_of_avro
from trunkline.core.jsontext import read_json
from trunkline.core.manifests import models
from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.problems import ManifestError, Path_, Problem
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.wording import describe, quoting_hint

SCHEMA_PROBLEM = "manifest.schema"
_LONGEST_POINTER = 100
_SCHEMA: Path_ = ("spec", "schema")

SchemaCheck = Callable[[Any], object]
"""Raises our errors for a schema that it does not take, with a JSON pointer as their `where`."""


def declared_schema(project: Project, topic: models.Topic, schema_check: SchemaCheck | None = None) -> None:
    """Puts the schema that a topic declares, itself or in a file, among the project's. Raises `ManifestError`."""
    declared = topic.spec.value_schema
    if declared is None:
        return
    origin = project.origin(topic)
    file = declared if isinstance(declared, str) and declared.endswith(".avsc") else None
    schema = _read(origin, file) if file is not None else _in_place(origin, declared)
    faults = [_in_words(origin, fault, schema, _SCHEMA, file) for fault in faults_of_schema(schema)]
    if faults:
        raise ManifestError(faults)
    try:
        type_of_avro(schema)
        if schema_check is not None:
            schema_check(schema)
    except TrunklineError as error:
        # Named here and not at every expression that the schema is used for.
        inside = _pointed(error.where)
        where = f"{file}: /{'/'.join(map(str, inside))}: " if file is not None and inside else ""
        path = _SCHEMA if file is not None else (*_SCHEMA, *inside)
        raise ManifestError([origin.problem(path, where + error.message, error.hint, SCHEMA_PROBLEM)]) from error
    project.schemas[topic.metadata.name] = schema


def step_schema_faults(stream: models.Stream, origin: Origin) -> Iterator[Problem]:
    """What is wrong with the form of schemas that steps have in place, as `schema` in their settings."""
    for index, step in enumerate(stream.spec.steps):
        schema = step.config.get("schema") if isinstance(step.config, dict) else None
        if isinstance(schema, (dict, list)):
            path: Path_ = ("spec", "steps", index, step.plugin, "schema")
            for fault in faults_of_schema(schema):
                yield _in_words(origin, fault, schema, path, None)


def _in_place(origin: Origin, declared: Any) -> Any:
    """The schema that stands in the manifest, also as a text of JSON."""
    if not isinstance(declared, str):
        return declared
    if declared.lstrip()[:1] in {"{", "["}:
        try:
            return read_json(declared)
        except ValueError as error:
            message = f"the text of the schema is no JSON: {error}"
            raise ManifestError([origin.problem(_SCHEMA, message, "write it as YAML", SCHEMA_PROBLEM)]) from error
    if "/" in declared or "." in declared:
        message = f"{declared[:80]!r} is neither a type nor the name of an .avsc file"
        raise ManifestError([origin.problem(_SCHEMA, message, "a schema's file ends in .avsc", SCHEMA_PROBLEM)])
    return declared


def _read(origin: Origin, file: str) -> Any:
    """The schema of an `.avsc` file."""
    path = Path(file) if Path(file).is_absolute() else origin.folder / file
    try:
        return read_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        message, hint = f"the schema {path} can't be read: {error.strerror}", "the path starts at the manifest's folder"
    except UnicodeDecodeError:
        message, hint = f"the schema {path} is not UTF-8", "save it as UTF-8"
    except ValueError as error:
        message, hint = f"the schema {path} is no JSON: {error}", "an .avsc file holds an Avro schema as JSON"
    raise ManifestError([origin.problem(_SCHEMA, message, hint, SCHEMA_PROBLEM)])


def _in_words(origin: Origin, fault: SchemaFault, schema: Any, base: Path_, file: str | None) -> Problem:
    """A fault in the form of the schema at `base`. Where YAML read a word as something else, the word is named."""
    value = schema
    for part in fault.path:
        value = value[part]
    path = (*base, *fault.path)
    if fault.unknown:
        message, hint = f"there is no Avro type {fault.unknown[:60]!r}", fault.hint
    elif fault.missing:
        message, hint = f"the schema has no {fault.missing!r} here", None
    else:
        written = origin.document.written.get(path) if file is None else None
        message = f"{fault.expected} is expected, found {describe(value, written)}"
        hint = quoting_hint(value, origin, path) if file is None else None
    if file is not None:
        pointer = "/".join(map(str, fault.path))
        if len(pointer) > _LONGEST_POINTER:
            pointer = f"{pointer[:_LONGEST_POINTER]}…"
        return origin.problem(base, f"{file}: /{pointer}: {message}", hint, SCHEMA_PROBLEM)
    return origin.problem(path, message, hint, SCHEMA_PROBLEM)


def _pointed(where: str | None) -> Path_:
    """The path that a JSON pointer such as `/fields/3/type` names."""
    if not where or not where.startswith("/"):
        return ()
    return tuple(int(part) if part.isdigit() else part for part in where.split("/") if part)
