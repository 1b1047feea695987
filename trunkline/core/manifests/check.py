"""The second half of validation, with the plug-ins: settings, connections, topics, expressions, schemas, cycles.

Each manifest is judged on its own, so that one with a fault stops itself and what builds upon it, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from trunkline.core.errors import TrunklineError
from trunkline.core.manifests import models
from trunkline.core.manifests.build import (
    UndecidedError,
    build_connection,
    build_fallback,
    build_sink,
    build_source,
    prepare_steps,
    sink_filter,
    source_routes,
    stream_routes,
)
from trunkline.core.manifests.findings import Findings, Key
from trunkline.core.manifests.flow import circles, in_flow_order
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.manifests.models import Manifest, Pipeline
from trunkline.core.manifests.problems import ManifestError, Path_, path_in
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.topics import declared_schema, family_problems, topics_named
from trunkline.core.secret import references_as_written
from trunkline.core.shipped import shipped_schema


def check(project: Project) -> None:
    """Checks everything that needs no broker, and fills in the schemas that streams derive.

    Raises `ManifestError` with every problem.
    """
    examine(project).raise_for_problems()


def examine(found: Project | Findings, *, schema_check: Callable[[Any], object] | None = None) -> Findings:
    """Judges each manifest on its own, after the first half (`gather`) or from a project that has passed it.

    `schema_check` is asked about the schema of each topic, besides: it raises our errors, with a JSON pointer as their `where`. The
    schemas that are declared and derived are filled in. Raises nothing for what a manifest may say.
    """
    findings = Findings(found) if isinstance(found, Project) else found
    _Examination(findings, schema_check).run()
    findings.project = _without(findings.project, findings.bad)
    return findings


def key_of(manifest: Manifest) -> Key:
    """Kind and name."""
    return manifest.kind, manifest.metadata.name


class _Examination:
    """One run over a project. What is wrong goes to the findings."""

    def __init__(self, findings: Findings, schema_check: Callable[[Any], object] | None) -> None:
        self._findings = findings
        self._schema_check = schema_check
        self._project = findings.project
        self._derived: dict[str, str] = {}
        """The schema that a stream gave a topic which declares none, as JSON text."""

    def run(self) -> None:
        """Topics and connections first, then the pipelines in the order in which events flow."""
        project = self._project
        project.schemas.clear()
        for topic in project.topics.values():
            self._attempt(topic, ("spec", "schema"), partial(declared_schema, project, topic, self._schema_check))
        for connection in project.connections.values():
            self._attempt(connection, ("spec",), partial(build_connection, project, connection))
        self._topics()
        for source in project.sources.values():
            self._source(source)
        for names in circles(project.streams):
            self._circle(names)
        for stream in in_flow_order(project.streams):
            self._attempt(stream, ("spec",), partial(self._derive, stream))
        for sink in project.sinks.values():
            self._sink(sink)

    def _attempt(self, manifest: Manifest, path: Path_, action: Callable[[], object]) -> bool:
        """Runs one check and notes what it finds, so that all problems come at once. Whether it found nothing."""
        key, origin = key_of(manifest), self._project.origin(manifest)
        try:
            with references_as_written():
                action()
        except UndecidedError:
            return True
        except ManifestError as error:
            for problem in error.problems:
                self._findings.blame(key, problem)
            return False
        except TrunklineError as error:
            problem = origin.problem(path_in(error.where) or path, error.message, error.hint, error.code)
            self._findings.blame(key, problem)
            return False
        except Exception as error:  # noqa: BLE001 (a plug-in is anybody's code, and its fault stops its own pipeline only)
            message = f"a plug-in failed while it was checked: {type(error).__name__}: {error}"
            self._findings.blame(key, origin.problem(path, message, "this is a defect of the plug-in", "plugin.failed"))
            return False
        return True

    def _topics(self) -> None:
        """Every topic that is read or written has a manifest, so that a misspelt one is found before anything runs."""
        for pipeline in self._project.pipelines.values():
            key, origin = key_of(pipeline), self._project.origin(pipeline)
            for path, topic, problem in topics_named(self._project, pipeline):
                manifest = self._project.topic_of(topic)
                upon = ("Topic", manifest.metadata.name if manifest is not None else topic)
                if upon in self._findings.bad:
                    self._findings.depends(key, origin, path, upon)
                elif problem is not None:
                    self._findings.blame(key, problem)
        for pipeline, problem in family_problems(self._project):
            self._findings.blame(key_of(pipeline), problem)

    def _connected(self, pipeline: Pipeline, name: str | None, path: Path_) -> bool:
        """Whether the connection that a pipeline names is fit; one that is missing is found when the plug-in is made."""
        if ("Connection", name) not in self._findings.bad:
            return True
        self._findings.depends(key_of(pipeline), self._project.origin(pipeline), path, ("Connection", str(name)))
        return False

    def _source(self, source: models.Source) -> None:
        if self._connected(source, source.spec.connection, ("spec", "connection")):
            self._attempt(source, ("spec",), partial(self._own_schema, source))
        self._attempt(source, ("spec", "to"), partial(source_routes, self._project, source))

    def _own_schema(self, source: models.Source) -> None:
        """Makes the source, and takes the schema that it brings along for topics that declare none."""
        default = getattr(build_source(self._project, source), "default_schema", None)
        if default is not None:
            for target in source.spec.to:
                if self._project.schema_of(target.topic) is None:
                    self._project.schemas[target.topic] = shipped_schema(default)

    def _sink(self, sink: models.Sink) -> None:
        project, fallback = self._project, sink.spec.fallback
        if self._connected(sink, sink.spec.connection, ("spec", "connection")):
            self._attempt(sink, ("spec",), partial(build_sink, project, sink))
        if fallback is not None and self._connected(sink, fallback.connection, ("spec", "fallback", "connection")):
            self._attempt(sink, ("spec", "fallback"), partial(build_fallback, project, sink))
        self._attempt(sink, ("spec", "when"), partial(sink_filter, project, sink))

    def _circle(self, names: list[str]) -> None:
        for name in names:
            origin = self._project.origin(self._project.streams[name])
            message = f"the streams go round in a circle: {' → '.join([*names, names[0]])}"
            self._findings.blame(
                ("Stream", name), origin.problem(("spec", "to"), message, "break it", "manifest.cycle")
            )

    def _derive(self, stream: models.Stream) -> None:
        """Compiles the stream for each schema it reads, and notes what it writes to topics that declare no schema.

        Raises `ManifestError` when two writers derive different schemas for one topic.
        """
        project, origin = self._project, self._project.origin(stream)
        inputs = [project.schema_of(topic) for topic in stream.spec.from_]
        for schema in {json.dumps(one): one for one in inputs}.values() if len(inputs) > 1 else inputs:
            _, output = prepare_steps(project, stream, schema)
            try:
                stream_routes(project, stream, output)
            except TrunklineError as error:
                path = path_in(error.where)
                raise ManifestError([origin.problem(path, error.message, error.hint, error.code)]) from error
            for index, target in enumerate(stream.spec.to):
                if output is not None and not self._agreed(target.topic, output):
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

    def _agreed(self, topic: str, output: Any) -> bool:
        """Notes a derived schema; False where another stream derived another one. A declared one stands in any case."""
        text = json.dumps(output, sort_keys=True)
        if self._project.schema_of(topic) is None:
            self._project.schemas[topic] = output
            self._derived[topic] = text
        return self._derived.get(topic, text) == text


def _without(project: Project, bad: dict[Key, Any]) -> Project:
    """The project without these manifests, and without the schemas of topics that are gone."""
    if not bad:
        return project
    made = Project()
    for kind in KINDS:
        for name, manifest in project.of_kind(kind).items():
            if (kind, name) not in bad:
                made.of_kind(kind)[name] = manifest
                made.origins[kind, name] = project.origins[kind, name]
    made.schemas = {topic: schema for topic, schema in project.schemas.items() if ("Topic", topic) not in bad}
    return made
