"""What sources and streams write, held against the schemas of the topics that they write to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trunkline.core.avro.assignment import check_assignable
from trunkline.core.contracts import Producer
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.expressions import type_of_avro
from trunkline.core.manifests import models
from trunkline.core.manifests.build import PreparedStep
from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.problems import Path_, Problem, path_of
from trunkline.core.manifests.project import Project
from trunkline.core.shipped import shipped_schema
from trunkline.core.uses import MISSING_FIELD, Columns, check_use

NO_SCHEMA = "manifest.no_schema"

Registered = Callable[[str], Any | None]
"""The latest schema that a registry has of a subject, None where it has none."""


class KnownSchemas:
    """The schemas of topics: declared, derived, or, for topics that declare none, what a registry has.

    Of `doubtful` topics nothing is said: they or who writes to them have a problem of their own.
    """

    def __init__(self, project: Project, registered: Registered | None) -> None:
        self._project = project
        self._registered = registered
        self._found: dict[str, Any | None] = {}
        self.doubtful: set[str] = set()

    def of(self, topic: str) -> Any | None:
        """The schema of a topic's values; None where nobody knows one."""
        own = self._project.schema_of(topic)
        return own if own is not None else self._elsewhere(topic)

    def fixed(self, topic: str) -> Any | None:
        """The schema that whoever writes to the topic must fit: what its manifest declares, or, of a topic of others, what it has.

        None where it follows from what is written.
        """
        declared = self._project.topic_of(topic)
        if declared is None or (declared.spec.value_schema is None and not declared.spec.external):
            return None
        return self.of(topic)

    def is_missing(self, topic: str) -> bool:
        """Whether it is certain that the topic has no schema: a registry was asked, and it is no topic of others."""
        declared = self._project.topic_of(topic)
        if self._registered is None or topic.endswith(".*") or declared is None or declared.spec.external:
            return False
        return topic not in self.doubtful and self.of(topic) is None

    def _elsewhere(self, topic: str) -> Any | None:
        if self._registered is None or topic.endswith(".*") or topic in self.doubtful:
            return None
        if topic not in self._found:
            self._found[topic] = self._registered(self._project.subject_of(topic))
        return self._found[topic]


def source_faults(source: models.Source, plugin: Producer, origin: Origin, known: KnownSchemas) -> Iterator[Problem]:
    """What would keep the events of a source from being written to its topics."""
    own = shipped_schema(plugin.default_schema) if plugin.default_schema is not None else None
    for index, target in enumerate(source.spec.to):
        path: Path_ = ("spec", "to", index, "topic")
        schema = known.of(target.topic)
        if own is not None:
            yield from _unwritable(own, known.fixed(target.topic), path, origin)
        elif schema is None:
            if known.is_missing(target.topic):
                message = f"the topic {target.topic!r} has no schema, and a source can only write with one"
                yield origin.problem(path, message, "give the Topic a `schema`", NO_SCHEMA)
        elif type_of_avro(schema).kind != "object":
            message = f"the schema of {target.topic!r} is no record, and the values of a source are records"
            yield origin.problem(path, message, "give the Topic a record's `schema`", NO_SCHEMA)
        else:
            yield from _source_fields(plugin, target.topic, schema, origin)


def stream_faults(
    stream: models.Stream, steps: Sequence[PreparedStep], output: Any | None, origin: Origin, known: KnownSchemas
) -> Iterator[Problem]:
    """What would keep the values that a stream's steps give from being written to its topics."""
    changing = [one.name for one in steps if one.step.changes]
    for index, target in enumerate(stream.spec.to):
        path: Path_ = ("spec", "to", index, "topic")
        if output is not None:
            yield from _unwritable(output, known.fixed(target.topic), path, origin)
        elif changing and known.is_missing(target.topic):
            message = (
                f"the topic {target.topic!r} has no schema, nor is one known of what the step {changing[-1]!r} gives: "
                "a changed value can't be written"
            )
            hint = "give the Topic a `schema`"
            if any(one.step.own_code is not None for one in steps):
                hint += ", or the step, with `python: {call: …, schema: …}`"
            yield origin.problem(path, message, hint, NO_SCHEMA)


def sink_faults(
    plugin: Any, topics: Sequence[str], origin: Origin, path: Path_, known: KnownSchemas
) -> Iterator[Problem]:
    """What the settings of a sink at `path` name that the events of its topics do not have."""
    schemas = {topic: schema for topic in topics if (schema := known.of(topic)) is not None}
    yield from _uses(plugin, schemas, origin, path) if schemas else ()


def _uses(plugin: Any, schemas: Mapping[str, Any], origin: Origin, path: Path_) -> Iterator[Problem]:
    for use in plugin.uses():
        try:
            check_use(use, schemas)
        except ConfigurationError as error:
            yield origin.problem((*path, *path_of(error.where or "")), error.message, error.hint, error.code)


def _source_fields(plugin: Producer, topic: str, schema: Any, origin: Origin) -> Iterator[Problem]:
    """Fields that a source's settings name, and columns that the topic's schema needs or does not have."""
    yield from _uses(plugin, {topic: schema}, origin, ("spec",))
    if plugin.columns is not None:
        yield from _columns(plugin.columns, plugin.extra_columns, topic, schema, origin)


def _columns(columns: Columns, extra: str, topic: str, schema: Any, origin: Origin) -> Iterator[Problem]:
    fields = {field["name"]: field for field in schema["fields"]}
    path: Path_ = ("spec", *path_of(columns.where))
    for index, name in enumerate(columns.names):
        if name not in fields and extra == "refuse":
            hint = f"{did_you_mean(name, fields)} Or say `extra_columns: ignore`"
            yield origin.problem((*path, index), f"the schema of {topic} has no field {name!r}", hint, MISSING_FIELD)
    for name, field in fields.items():
        if name not in columns.names and "default" not in field:
            message = f"the schema of {topic} needs the field {name!r}, and no column is called so"
            yield origin.problem(path, message, "name a column so, or give the field a default", MISSING_FIELD)


def _unwritable(given: Any, wanted: Any | None, path: Path_, origin: Origin) -> Iterator[Problem]:
    if wanted is None:
        return
    try:
        check_assignable(given, wanted, "")
    except ConfigurationError as error:
        yield origin.problem(path, error.message, error.hint, error.code)
