"""The second half of validation, with the plug-ins: settings, connections, topics, expressions, schemas, cycles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trunkline.core.contracts import Plugin, PushSource, Sink, Source, Step, StepContext
from trunkline.core.errors import ConfigurationError, TrunklineError, did_you_mean
from trunkline.core.expressions import BOOL, compile_expression, type_of_avro
from trunkline.core.manifests import models
from trunkline.core.manifests.project import ManifestError, Origin, Problem, Project, problems_of
from trunkline.core.manifests.yaml import Path_
from trunkline.core.plugins import Kind, load_plugin
from trunkline.core.routing import Route, compile_routes
from trunkline.core.shipped import shipped_schema


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A step ready to run, with what becomes of a record it can't process."""

    name: str
    step: Step
    on_error: str
    where: str


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


def build_connection(project: Project, manifest: models.Connection) -> Any:
    """The validated settings of a connection. Raises `ManifestError`."""
    name = manifest.spec.connector
    plugin = _any_plugin(project, manifest, name)
    if plugin.connection_type is None:
        raise _at(project, manifest, ("spec", "connector"), f"the plug-in {name!r} takes no connection", None)
    return _validated(project, manifest, plugin.connection_type, manifest.spec.config)


def build_source(project: Project, manifest: models.Source) -> Source | PushSource:
    """The source plug-in with its settings. Raises `ManifestError`."""
    plugin = _build(project, manifest, "source")
    assert isinstance(plugin, (Source, PushSource))
    return plugin


def build_sink(project: Project, manifest: models.Sink) -> Sink:
    """The sink plug-in with its settings. Raises `ManifestError`."""
    plugin = _build(project, manifest, "sink")
    assert isinstance(plugin, Sink)
    if plugin.promises.contiguous and manifest.spec.delivery.exhausted == "park":
        message = f"{manifest.spec.connector!r} writes ranges of a partition, and no key can be held back from one"
        raise _at(project, manifest, ("spec", "delivery", "exhausted"), message, "remove it, or choose dead-letter")
    return plugin


def build_fallback(project: Project, manifest: models.Sink) -> Sink | None:
    """The plug-in of a sink's fallback, None where it has none. Raises `ManifestError`."""
    spec, path = manifest.spec.fallback, ("spec", "fallback")
    if spec is None:
        return None
    plugin = _build_at(project, manifest, "sink", spec, path)
    assert isinstance(plugin, Sink)
    first = load_plugin("sink", manifest.spec.connector)
    for name, promises in (
        (manifest.spec.connector, getattr(first, "promises", None)),
        (spec.connector, plugin.promises),
    ):
        if promises is not None and promises.contiguous:
            message = f"{name!r} writes ranges of a partition, and a range can't go to another sink in part"
            raise _at(project, manifest, path, message, "remove the fallback")
    return plugin


def _source_and_its_schema(project: Project, manifest: models.Source) -> None:
    """Makes the source, and takes the schema that it brings along for topics that declare none."""
    default = getattr(build_source(project, manifest), "default_schema", None)
    if default is not None:
        for target in manifest.spec.to:
            if project.schema_of(target.topic) is None:
                project.schemas[target.topic] = shipped_schema(default)


def source_routes(project: Project, manifest: models.Source) -> list[Route]:
    """The targets of a source, compiled against the schema they share, where they share one."""
    return compile_routes(
        manifest.spec.to, _common_schema(project, [target.topic for target in manifest.spec.to]), "spec"
    )


def sink_filter(project: Project, manifest: models.Sink) -> Any | None:
    """The compiled `when` of a sink, or None."""
    if manifest.spec.when is None:
        return None
    schema = _common_schema(project, manifest.spec.from_)
    return compile_expression(manifest.spec.when, schema=schema, expect=BOOL, where="spec.when").fn


def prepare_steps(
    project: Project, manifest: models.Stream, schema: Any | None
) -> tuple[list[PreparedStep], Any | None]:
    """The steps of a stream made and compiled for inputs of `schema`, and the schema of what comes out. Raises `ManifestError`."""
    prepared = []
    origin = project.origin(manifest)
    targets = {
        json.dumps(found) for target in manifest.spec.to if (found := project.schema_of(target.topic)) is not None
    }
    only_target = json.loads(targets.pop()) if len(targets) == 1 else None
    for index, spec in enumerate(manifest.spec.steps):
        path: Path_ = ("spec", "steps", index, spec.plugin)
        try:
            step_type = load_plugin("step", spec.plugin)
            assert issubclass(step_type, Step)
            try:
                settings = step_type.parse(spec.config)
            except ValidationError as error:
                shorthand = step_type.shorthand
                bare = shorthand is not None and not (isinstance(spec.config, dict) and shorthand in spec.config)
                raise ManifestError(
                    problems_of(error, origin, path[:-1] if bare else path, step_type.settings_type)
                ) from error
            step = step_type(settings)
            where = f"{origin.document.file}:{origin.document.line(path)}: spec.steps[{index}].{spec.plugin}"
            last = index == len(manifest.spec.steps) - 1
            context = StepContext(manifest.metadata.name, schema, where, only_target if last else None, origin.folder)
            schema = step.prepare(context)
        except ManifestError:
            raise
        except TrunklineError as error:
            raise ManifestError([origin.problem(path, error.message, error.hint, error.code)]) from error
        prepared.append(PreparedStep(spec.plugin, step, spec.on_error, where))
    return prepared, schema


def stream_routes(project: Project, manifest: models.Stream, schema: Any | None) -> list[Route]:
    """The targets of a stream compiled against the schema that its steps give."""
    return compile_routes(manifest.spec.to, schema, "spec")


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
            raise ManifestError([origin.problem(_path(error.where), error.message, error.hint, error.code)]) from error
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


def in_flow_order(project: Project, problems: list[Problem]) -> list[models.Stream]:
    """The streams so that each comes after those it reads from. A cycle is a problem."""
    waiting = dict(project.streams)
    ordered: list[models.Stream] = []
    while waiting:
        written = {target.topic for stream in waiting.values() for target in stream.spec.to}
        ready = [
            stream for stream in waiting.values() if not any(_matches(topic, written) for topic in stream.spec.from_)
        ]
        if not ready:
            names = _cycle_members(waiting)
            first = waiting[names[0]]
            problems.append(
                project.origin(first).problem(
                    ("spec", "to"),
                    f"the streams go round in a circle: {' → '.join([*names, names[0]])}",
                    "break it",
                    "manifest.cycle",
                )
            )
            return ordered + list(waiting.values())
        for stream in ready:
            ordered.append(stream)
            del waiting[stream.metadata.name]
    return ordered


def _cycle_members(streams: dict[str, models.Stream]) -> list[str]:
    """One circle of streams: follow who writes what the first one reads until a name comes again."""
    name, seen = next(iter(streams)), []
    while name not in seen:
        seen.append(name)
        topics = streams[name].spec.from_
        name = next(
            other
            for other, stream in streams.items()
            if any(_matches(topic, {target.topic for target in stream.spec.to}) for topic in topics)
        )
    return list(reversed(seen[seen.index(name) :]))


def _matches(topic: str, written: set[str]) -> bool:
    """Whether what is written may arrive at `topic`, where either may be a family."""
    return any(
        other == topic
        or (topic.endswith(".*") and other.startswith(topic[:-1]))
        or (other.endswith(".*") and topic.startswith(other[:-1]))
        for other in written
    )


def _derived(project: Project) -> set[str]:
    return {
        name for name in project.schemas if name not in project.topics or project.topics[name].spec.value_schema is None
    }


def _common_schema(project: Project, topics: Iterable[str]) -> Any | None:
    schemas = [project.schema_of(topic) for topic in topics]
    return schemas[0] if schemas and all(schema == schemas[0] for schema in schemas) else None


def _build(project: Project, manifest: models.Source | models.Sink, kind: Kind) -> Plugin:
    return _build_at(project, manifest, kind, manifest.spec, ("spec",))


def _build_at(
    project: Project,
    manifest: models.Source | models.Sink,
    kind: Kind,
    spec: models.SourceSpec | models.SinkSpec | models.FallbackSpec,
    path: Path_,
) -> Plugin:
    """The plug-in that the part of a manifest at `path` names."""
    origin = project.origin(manifest)
    try:
        plugin = load_plugin(kind, spec.connector)
    except ConfigurationError as error:
        raise ManifestError([origin.problem((*path, "connector"), error.message, error.hint, error.code)]) from error
    connection = None
    if spec.connection is not None:
        other = project.connections.get(spec.connection)
        if other is None:
            hint = did_you_mean(spec.connection, project.connections)
            raise _at(project, manifest, (*path, "connection"), f"no connection {spec.connection!r}", hint)
        if plugin.connection_type is None:
            message = f"{spec.connector!r} takes no connection"
            raise _at(project, manifest, (*path, "connection"), message, "remove it")
        connection = _validated(project, other, plugin.connection_type, other.spec.config)
    elif plugin.connection_type is not None:
        raise _at(project, manifest, path, f"{spec.connector!r} needs a connection", "add `connection: NAME`")
    settings = _validated(project, manifest, plugin.settings_type, spec.config, (*path, "config"))
    try:
        return plugin(settings, connection)
    except TrunklineError as error:
        raise ManifestError([origin.problem((*path, "config"), error.message, error.hint, error.code)]) from error


def _any_plugin(project: Project, manifest: models.Connection, name: str) -> type[Plugin]:
    kinds: Sequence[Kind] = ("sink", "source")
    for kind in kinds:
        try:
            return load_plugin(kind, name)
        except ConfigurationError as error:
            if error.code != "plugin.unknown" or kind == kinds[-1]:
                path: Path_ = ("spec", "connector")
                raise ManifestError(
                    [project.origin(manifest).problem(path, error.message, error.hint, error.code)]
                ) from error
    raise AssertionError


def _validated(
    project: Project,
    manifest: models.Manifest,
    model: Any,
    config: dict[str, Any],
    path: Path_ = ("spec", "config"),
) -> Any:
    try:
        return model.model_validate(config)
    except ValidationError as error:
        raise ManifestError(problems_of(error, project.origin(manifest), path, model)) from error


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
        problems.append(origin.problem(_path(error.where) or path, error.message, error.hint, error.code))


def _at(project: Project, manifest: models.Manifest, path: Path_, message: str, hint: str | None) -> ManifestError:
    return ManifestError([project.origin(manifest).problem(path, message, hint)])


def _path(where: str | None) -> Path_:
    """`spec.to[0].when` back as a path."""
    if not where or not where.startswith("spec"):
        return ()
    parts: list[str | int] = []
    for part in where.replace("]", "").split("."):
        name, *indexes = part.split("[")
        parts += [name, *(int(index) for index in indexes)]
    return tuple(parts)
