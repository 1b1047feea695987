"""Topics as manifests speak of them: the schemas that they declare, who names them, and names that get in each other's way."""

from __future__ import annotations

from collections.abc import Iterator

from trunkline.core.errors import did_you_mean
from trunkline.core.manifests import models
from trunkline.core.manifests.models import Pipeline
from trunkline.core.manifests.problems import Path_, Problem
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.topic_config import config_faults

_OWN_TOPICS = {".dlq": "the dead-letter topic", ".retry": "the retry topic", ".parked": "the topic of parked records"}


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
