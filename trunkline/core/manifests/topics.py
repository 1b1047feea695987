"""Topics as manifests speak of them: the schemas that they declare, who names them, and names that get in each other's way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trunkline.core.avro.faults import SchemaFault, faults_of_schema
from trunkline.core.errors import TrunklineError, did_you_mean
from trunkline.core.expressions import type_of_avro
from trunkline.core.manifests import models
from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.models import Pipeline
from trunkline.core.manifests.problems import ManifestError, Path_, Problem
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.topic_config import config_faults
from trunkline.core.manifests.wording import describe, quoting_hint

_OWN_TOPICS = {".dlq": "the dead-letter topic", ".retry": "the retry topic", ".parked": "the topic of parked records"}
_SCHEMA: Path_ = ("spec", "schema")


SchemaCheck = Callable[[Any], object]
"""Raises our errors for a schema that it does not take, with a JSON pointer as their `where`."""


def declared_schema(project: Project, topic: models.Topic, schema_check: SchemaCheck | None = None) -> None:
    """Puts the schema that a topic declares, itself or in a file, among the project's.

    Raises `ManifestError`.
    """
    declared = topic.spec.value_schema
    if declared is None:
        return
    origin = project.origin(topic)
    file = declared if isinstance(declared, str) and declared.endswith(".avsc") else None
    schema = declared if file is None else _read(origin, file)
    faults = [_in_words(origin, fault, schema, file) for fault in faults_of_schema(schema)]
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
        raise ManifestError([origin.problem(path, where + error.message, error.hint, "manifest.schema")]) from error
    project.schemas[topic.metadata.name] = schema


def _read(origin: Origin, file: str) -> Any:
    """The schema of an `.avsc` file."""
    path = Path(file) if Path(file).is_absolute() else origin.folder / file
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        message, hint = f"the schema {path} can't be read: {error.strerror}", "the path starts at the manifest's folder"
    except UnicodeDecodeError:
        message, hint = f"the schema {path} is not UTF-8", "save it as UTF-8"
    except (ValueError, RecursionError) as error:
        message, hint = f"the schema {path} is no JSON: {error}", "an .avsc file holds an Avro schema as JSON"
    raise ManifestError([origin.problem(_SCHEMA, message, hint, "manifest.schema")])


def _in_words(origin: Origin, fault: SchemaFault, schema: Any, file: str | None) -> Problem:
    """A fault in the form of a schema. Where YAML read a word as something else, the word is named."""
    value = schema
    for part in fault.path:
        value = value[part]
    path = (*_SCHEMA, *fault.path)
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
        return origin.problem(_SCHEMA, f"{file}: /{pointer}: {message}", hint, "manifest.schema")
    return origin.problem(path, message, hint, "manifest.schema")


def _pointed(where: str | None) -> Path_:
    """The path that a JSON pointer such as `/fields/3/type` names."""
    if not where or not where.startswith("/"):
        return ()
    return tuple(int(part) if part.isdigit() else part for part in where.split("/") if part)


def topic_faults(project: Project, topic: models.Topic) -> Iterator[Problem]:
    """A name that is that of a pipeline's own topic, and settings that Kafka would refuse."""
    name, origin = topic.metadata.name, project.origin(topic)
    for suffix, what in _OWN_TOPICS.items():
        pipeline = project.pipeline(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if pipeline is not None:
            message = f"{name!r} is {what} of the pipeline {pipeline.metadata.name!r}, which makes it itself"
            yield origin.problem(("metadata", "name"), message, "choose another name", "manifest.own_topic")
    for setting, message, hint in config_faults(topic.spec.config):
        yield origin.problem(("spec", "config", setting), message, hint, "manifest.topic_config")


def topics_named(project: Project, pipeline: Pipeline) -> Iterator[tuple[Path_, str, Problem | None]]:
    """The topics that a pipeline reads and writes, each with the place where it is named and what is wrong with it there."""
    named: list[tuple[Path_, str]] = []
    if not isinstance(pipeline, models.Source):
        named += [(("spec", "from", index), topic) for index, topic in enumerate(pipeline.spec.from_)]
    if not isinstance(pipeline, models.Sink):
        named += [(("spec", "to", index, "topic"), target.topic) for index, target in enumerate(pipeline.spec.to)]
    for path, topic in named:
        yield path, topic, _fault_of_name(project, pipeline, path, topic)


def family_problems(project: Project) -> Iterator[tuple[Pipeline, Problem]]:
    """Pipelines whose own topics would belong to a family, whose readers would take dead letters for input."""
    families = [topic for topic in project.topics if topic.endswith(".*")]
    for name, pipeline in project.pipelines.items() if families else ():
        for own in (f"{name}.dlq", f"{name}.retry"):
            for family in families:
                if own.startswith(family[:-1]):
                    message = (
                        f"its topic {own} would belong to the family {family}, whose readers would get it as input"
                    )
                    hint = "rename the pipeline or the family"
                    origin = project.origin(pipeline)
                    yield pipeline, origin.problem(("metadata", "name"), message, hint, "manifest.family")


def _fault_of_name(project: Project, pipeline: Pipeline, path: Path_, topic: str) -> Problem | None:
    if project.topic_of(topic) is not None:
        return None
    if path[1] == "from" and _is_dead_letters(project, topic):
        if topic.removesuffix(".dlq") != pipeline.metadata.name:
            return None
        message = "a pipeline that reads its own dead letters gets each of them again and again"
        hint = "read them with another pipeline, or send them again with `trunkline dlq redrive`"
        return project.origin(pipeline).problem(path, message, hint, "manifest.own_topic")
    return _missing(project, pipeline, path, topic)


def _is_dead_letters(project: Project, topic: str) -> bool:
    name = topic.removesuffix(".dlq")
    return name != topic and project.pipeline(name) is not None


def _missing(project: Project, pipeline: Pipeline, path: Path_, topic: str) -> Problem:
    hint = did_you_mean(topic, project.topics) if project.topics else "add a manifest of kind Topic"
    message = f"no Topic manifest declares {topic!r}"
    return project.origin(pipeline).problem(path, message, hint, "manifest.missing_topic")
