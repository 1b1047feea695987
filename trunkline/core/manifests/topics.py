"""Topics as manifests speak of them: the schemas that they declare, who names them, and names that get in each other's way."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trunkline.core.errors import TrunklineError, did_you_mean
from trunkline.core.expressions import type_of_avro
from trunkline.core.manifests import models
from trunkline.core.manifests.models import Pipeline
from trunkline.core.manifests.problems import ManifestError, Problem
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.yaml import Path_


def declared_schema(project: Project, topic: models.Topic) -> None:
    """Puts the schema that a topic declares, itself or in a file, among the project's. Raises `ManifestError`."""
    declared = topic.spec.value_schema
    if declared is None:
        return
    origin = project.origin(topic)
    schema: Any = declared
    if isinstance(declared, str) and declared.endswith(".avsc"):
        path = Path(declared) if Path(declared).is_absolute() else origin.folder / declared
        try:
            schema = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            message = f"the schema {declared} can't be read: {error}"
            raise ManifestError([origin.problem(("spec", "schema"), message, None, "manifest.schema")]) from error
    try:
        type_of_avro(schema)
    except TrunklineError as error:
        # Named here and not at every expression that the schema is used for.
        problem = origin.problem(("spec", "schema"), error.message, error.hint, "manifest.schema")
        raise ManifestError([problem]) from error
    project.schemas[topic.metadata.name] = schema


def topics_named(project: Project, pipeline: Pipeline) -> Iterator[tuple[Path_, str, Problem | None]]:
    """The topics that a pipeline reads and writes, each with the place where it is named and what is wrong with it there."""
    named: list[tuple[Path_, str]] = []
    if not isinstance(pipeline, models.Source):
        named += [(("spec", "from", index), topic) for index, topic in enumerate(pipeline.spec.from_)]
    if not isinstance(pipeline, models.Sink):
        named += [(("spec", "to", index, "topic"), target.topic) for index, target in enumerate(pipeline.spec.to)]
    for path, topic in named:
        missing = project.topic_of(topic) is None and not _is_dead_letters(project, topic)
        yield path, topic, _missing(project, pipeline, path, topic) if missing else None


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


def _is_dead_letters(project: Project, topic: str) -> bool:
    name = topic.removesuffix(".dlq")
    return name != topic and project.pipeline(name) is not None


def _missing(project: Project, pipeline: Pipeline, path: Path_, topic: str) -> Problem:
    hint = did_you_mean(topic, project.topics) if project.topics else "add a manifest of kind Topic"
    message = f"no Topic manifest declares {topic!r}"
    return project.origin(pipeline).problem(path, message, hint, "manifest.missing_topic")
