"""The second half of validation, with the plug-ins: settings, connections, topics, expressions, schemas, cycles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trunkline.core.errors import TrunklineError, did_you_mean
from trunkline.core.expressions import type_of_avro
from trunkline.core.manifests import models
from trunkline.core.manifests.build import (
    build_connection,
    build_fallback,
    build_sink,
    build_source,
    prepare_steps,
    sink_filter,
    source_routes,
    stream_routes,
)
from trunkline.core.manifests.flow import in_flow_order
from trunkline.core.manifests.problems import ManifestError, Origin, Problem, path_in
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.yaml import Path_
from trunkline.core.shipped import shipped_schema


def check(project: Project) -> None:
    """Checks everything that needs no broker, and fills in the schemas that streams derive.

    Raises `ManifestError` with every problem.
    """
    problems: list[Problem] = []
    _read_schemas(project, problems)
    for connection in project.connections.values():
        _guard(
            problems,
            project.origin(connection),
            ("spec",),
            lambda connection=connection: build_connection(project, connection),
        )
    _check_topics(project, problems)
    for source in project.sources.values():
        _guard(
            problems, project.origin(source), ("spec",), lambda source=source: _source_and_its_schema(project, source)
        )
        _guard(problems, project.origin(source), ("spec", "to"), lambda source=source: source_routes(project, source))
    for stream in in_flow_order(project, problems):
        _guard(problems, project.origin(stream), ("spec",), lambda stream=stream: derive_schemas(project, stream))
    for sink in project.sinks.values():
        _guard(problems, project.origin(sink), ("spec",), lambda sink=sink: build_sink(project, sink))
        _guard(problems, project.origin(sink), ("spec", "fallback"), lambda sink=sink: build_fallback(project, sink))
        _guard(problems, project.origin(sink), ("spec", "when"), lambda sink=sink: sink_filter(project, sink))
    if problems:
        raise ManifestError(problems)


def _source_and_its_schema(project: Project, manifest: models.Source) -> None:
    """Makes the source, and takes the schema that it brings along for topics that declare none."""
    default = getattr(build_source(project, manifest), "default_schema", None)
    if default is not None:
        for target in manifest.spec.to:
            if project.schema_of(target.topic) is None:
                project.schemas[target.topic] = shipped_schema(default)


def derive_schemas(project: Project, manifest: models.Stream) -> None:
    """Compiles the stream for each schema it reads, and notes what it writes to topics that declare no schema.

    Raises `ManifestError` when two writers derive different schemas for one topic.
    """
    origin = project.origin(manifest)
    inputs = {json.dumps(project.schema_of(topic)): project.schema_of(topic) for topic in manifest.spec.from_}
    for schema in inputs.values():
        _, output = prepare_steps(project, manifest, schema)
        try:
            stream_routes(project, manifest, output)
        except TrunklineError as error:
            raise ManifestError(
                [origin.problem(path_in(error.where), error.message, error.hint, error.code)]
            ) from error
        for index, target in enumerate(manifest.spec.to):
            declared = project.schema_of(target.topic)
            if declared is None and output is not None:
                project.schemas[target.topic] = output
            elif (
                declared is not None and output is not None and target.topic in _derived(project) and declared != output
            ):
                raise ManifestError(
                    [
                        origin.problem(
                            ("spec", "to", index, "topic"),
                            f"another stream writes another schema to {target.topic}",
                            "declare the topic's schema",
                            "manifest.schema_conflict",
                        )
                    ]
                )


def _derived(project: Project) -> set[str]:
    return {
        name for name in project.schemas if name not in project.topics or project.topics[name].spec.value_schema is None
    }


def _read_schemas(project: Project, problems: list[Problem]) -> None:
    for name, topic in project.topics.items():
        declared = topic.spec.value_schema
        origin = project.origin(topic)
        if isinstance(declared, str) and declared.endswith(".avsc"):
            path = Path(declared) if Path(declared).is_absolute() else origin.folder / declared
            try:
                project.schemas[name] = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                problems.append(
                    origin.problem(
                        ("spec", "schema"), f"the schema {declared} can't be read: {error}", None, "manifest.schema"
                    )
                )
        elif declared is not None:
            project.schemas[name] = declared
        if name in project.schemas:
            try:
                type_of_avro(project.schemas[name])
            except TrunklineError as error:
                # Named here and not at every expression that the schema is used for.
                problems.append(origin.problem(("spec", "schema"), error.message, error.hint, "manifest.schema"))
                del project.schemas[name]


def _check_topics(project: Project, problems: list[Problem]) -> None:
    """Every topic that is read or written has a manifest, so that a misspelt one is found before anything runs."""
    written_by_dead_letters = {f"{name}.dlq" for name in project.pipelines}
    for pipeline in project.pipelines.values():
        named: list[tuple[Path_, str]] = []
        if not isinstance(pipeline, models.Source):
            named += [(("spec", "from", index), topic) for index, topic in enumerate(pipeline.spec.from_)]
        if not isinstance(pipeline, models.Sink):
            named += [(("spec", "to", index, "topic"), target.topic) for index, target in enumerate(pipeline.spec.to)]
        for path, topic in named:
            if project.topic_of(topic) is None and topic not in written_by_dead_letters:
                problems.append(
                    project.origin(pipeline).problem(
                        path,
                        f"no Topic manifest declares {topic!r}",
                        did_you_mean(topic, project.topics) if project.topics else "add a manifest of kind Topic",
                        "manifest.missing_topic",
                    )
                )
    families = [topic for topic in project.topics if topic.endswith(".*")]
    for name, pipeline in project.pipelines.items():
        for own in (f"{name}.dlq", f"{name}.retry"):
            for family in families:
                if own.startswith(family[:-1]):
                    message = (
                        f"its topic {own} would belong to the family {family}, whose readers would get it as input"
                    )
                    problems.append(
                        project.origin(pipeline).problem(
                            ("metadata", "name"), message, "rename the pipeline or the family", "manifest.family"
                        )
                    )


def _guard(problems: list[Problem], origin: Origin, path: Path_, action: Any) -> None:
    """Runs one check and notes what it finds, so that all problems come at once."""
    try:
        action()
    except ManifestError as error:
        problems += [problem for problem in error.problems if problem not in problems]
    except TrunklineError as error:
        problems.append(origin.problem(path_in(error.where) or path, error.message, error.hint, error.code))
