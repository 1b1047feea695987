"""The second half of validation, with the plug-ins: settings, connections, topics, expressions, schemas, cycles.

Each manifest is judged on its own, so that one with a fault stops itself and what builds upon it, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence, Set
from functools import partial
from typing import Any

from trunkline.core.contracts import PushSource
from trunkline.core.errors import TrunklineError
from trunkline.core.expressions import BOOL
from trunkline.core.manifests import models
from trunkline.core.manifests.build import (
    PreparedStep,
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
from trunkline.core.manifests.findings import Findings, Key, PendingError
from trunkline.core.manifests.flow import circles, in_flow_order
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.manifests.models import Manifest, Pipeline
from trunkline.core.manifests.outputs import (
    KnownSchemas,
    Registered,
    sink_faults,
    source_faults,
    stream_faults,
)
from trunkline.core.manifests.problems import ManifestError, Path_, Problem, path_in
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.schemas import SchemaCheck, declared_schema, step_schema_faults
from trunkline.core.manifests.topics import family_problems, topic_faults, topics_named
from trunkline.core.secret import references_as_written
from trunkline.core.shipped import shipped_schema
from trunkline.core.uses import check_expression

Admit = Callable[[Project, Manifest], None]


def check(project: Project, *, schema_check: SchemaCheck | None = None) -> None:
    """Checks everything that needs no broker, and fills in the schemas that streams derive: as `examine`.

    Raises `ManifestError` with every problem.
    """
    examine(project, schema_check=schema_check).raise_for_problems()


def examine(
    found: Project | Findings,
    *,
    run_code: bool = False,
    schema_check: SchemaCheck | None = None,
    registered: Registered | None = None,
    admit: Admit | None = None,
) -> Findings:
    """Judges each manifest on its own, after the first half (`gather`) or from a project that has passed it.

    Code of `python` steps is read, and executed only with `run_code`. `schema_check` is asked about every schema besides: it raises our
    errors, with a JSON pointer as their `where`. `registered` tells the schema of a topic that declares none; without it, nothing is
    said of topics that may have one in a registry. The schemas that are declared and derived are filled in. References stay as
    they are written. `admit` is asked about connections and pipelines before the module of their plug-in is imported: it raises our
    errors for one that must not be, and `PendingError` where that is not known yet. Raises nothing for what a manifest may say.
    """
    findings = Findings(found) if isinstance(found, Project) else found
    _Examination(findings, run_code, schema_check, registered, admit).run()
    findings.project = _without(findings.project, findings.bad.keys() | findings.pending)
    return findings


def key_of(manifest: Manifest) -> Key:
    """Kind and name."""
    return manifest.kind, manifest.metadata.name


class _Examination:
    """One run over a project. What is wrong goes to the findings."""

    def __init__(
        self,
        findings: Findings,
        run_code: bool,
        schema_check: SchemaCheck | None,
        registered: Registered | None,
        admit: Admit | None,
    ) -> None:
        self._admit = admit
        self._awaited: set[str] = set()
        """Topics whose schema may follow from what is pending."""
        self._findings = findings
        self._project = findings.project
        self._run_code = run_code
        self._schema_check = schema_check
        self._known = KnownSchemas(findings.project, registered)
        self._derived: dict[str, str] = {}
        """The schema that a stream gave a topic which declares none, as JSON text."""
        self._paths: dict[str, models.Source] = {}

    def run(self) -> None:
        """Topics and connections first, then the pipelines in the order in which events flow."""
        project = self._project
        project.schemas.clear()
        for topic in project.topics.values():
            self._attempt(topic, ("spec", "schema"), partial(declared_schema, project, topic, self._schema_check))
            self._note(topic, topic_faults(project, topic))
        self._known.doubtful |= {name for kind, name in self._findings.bad if kind == "Topic"}
        for connection in project.connections.values():
            if self._admitted(connection):
                self._attempt(connection, ("spec",), partial(build_connection, project, connection))
        self._topics()
        for source in project.sources.values():
            self._source(source)
        for names in circles(project.streams):
            self._circle(names)
        for stream in in_flow_order(project.streams):
            if not self._admitted(stream) or not self._attempt(stream, ("spec",), partial(self._derive, stream)):
                self._doubt(stream)
        for sink in project.sinks.values():
            self._sink(sink)

    def _admitted(self, manifest: Manifest) -> bool:
        """Whether it may be judged here and now."""
        if self._admit is None:
            return True
        if not self._awaited.isdisjoint(getattr(manifest.spec, "from_", ())):
            self._findings.pending.add(key_of(manifest))
            return False
        return self._attempt(manifest, ("spec",), partial(self._admit, self._project, manifest))

    def _doubt(self, writer: models.Source | models.Stream) -> None:
        """Of the topics of one that has a problem, or is not judged yet, nothing is said."""
        topics = {target.topic for target in writer.spec.to}
        self._known.doubtful |= topics
        if key_of(writer) in self._findings.pending:
            self._awaited |= {topic for topic in topics if self._project.schema_of(topic) is None}

    def _note(self, manifest: Manifest, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self._findings.blame(key_of(manifest), problem)

    def _attempt(self, manifest: Manifest, path: Path_, action: Callable[[], object]) -> bool:
        """Runs one check and notes what it finds, so that all problems come at once. Whether it found nothing."""
        key, origin = key_of(manifest), self._project.origin(manifest)
        try:
            with references_as_written():
                action()
        except UndecidedError:
            return True
        except PendingError:
            self._findings.pending.add(key)
            return False
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
        if ("Connection", name) in self._findings.pending:
            self._findings.pending.add(key_of(pipeline))
            return False
        if ("Connection", name) not in self._findings.bad:
            return True
        self._findings.depends(key_of(pipeline), self._project.origin(pipeline), path, ("Connection", str(name)))
        return False

    def _source(self, source: models.Source) -> None:
        if (
            not self._connected(source, source.spec.connection, ("spec", "connection"))
            or not self._admitted(source)
            or not self._attempt(source, ("spec",), partial(self._judge_source, source))
        ):
            self._doubt(source)
        self._attempt(source, ("spec", "to"), partial(source_routes, self._project, source))

    def _judge_source(self, source: models.Source) -> None:
        """Makes the source, takes the schema that it brings along for topics that declare none, and looks at what it gives."""
        plugin, origin = build_source(self._project, source), self._project.origin(source)
        if plugin.default_schema is not None:
            for target in source.spec.to:
                if self._project.schema_of(target.topic) is None:
                    self._project.schemas[target.topic] = shipped_schema(plugin.default_schema)
        if isinstance(plugin, PushSource):
            other = self._paths.setdefault(plugin.path, source)
            if other is not source:
                message = f"the path {plugin.path} is that of the source {other.metadata.name!r} already"
                hint = "give each source a path of its own"
                self._note(source, [origin.problem(("spec", "config", "path"), message, hint, "manifest.path_taken")])
        self._note(source, source_faults(source, plugin, origin, self._known))

    def _sink(self, sink: models.Sink) -> None:
        fallback = sink.spec.fallback
        if not self._admitted(sink):
            return
        if self._connected(sink, sink.spec.connection, ("spec", "connection")):
            self._attempt(sink, ("spec",), partial(self._judge_sink, sink, build_sink, ("spec",)))
        if fallback is not None and self._connected(sink, fallback.connection, ("spec", "fallback", "connection")):
            path: Path_ = ("spec", "fallback")
            self._attempt(sink, path, partial(self._judge_sink, sink, build_fallback, path))
        self._attempt(sink, ("spec", "when"), partial(self._judge_filter, sink))

    def _judge_sink(self, sink: models.Sink, build: Callable[[Project, models.Sink], Any], path: Path_) -> None:
        plugin = build(self._project, sink)
        self._note(sink, sink_faults(plugin, sink.spec.from_, self._project.origin(sink), path, self._known))

    def _judge_filter(self, sink: models.Sink) -> None:
        schemas = {topic: schema for topic in sink.spec.from_ if (schema := self._known.of(topic)) is not None}
        if sink.spec.when is not None and schemas:
            check_expression(sink.spec.when, schemas, "spec.when", expect=BOOL)
        sink_filter(self._project, sink)

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
        faults = list(step_schema_faults(stream, origin))
        if faults:
            raise ManifestError(faults)
        inputs = [self._known.of(topic) for topic in stream.spec.from_]
        uncertain = not self._known.doubtful.isdisjoint(stream.spec.from_)
        for schema in {json.dumps(one): one for one in inputs}.values() if len(inputs) > 1 else inputs:
            steps, output = prepare_steps(project, stream, schema, run_code=self._run_code)
            self._note_code(stream, steps)
            try:
                stream_routes(project, stream, output)
                if output is not None and self._schema_check is not None:
                    self._schema_check(output)
            except TrunklineError as error:
                path = path_in(error.where) or ("spec", "steps")
                raise ManifestError([origin.problem(path, error.message, error.hint, error.code)]) from error
            if output is None and uncertain:
                self._known.doubtful |= {target.topic for target in stream.spec.to}
                continue
            self._note(stream, stream_faults(stream, steps, output, origin, self._known))
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

    def _note_code(self, stream: models.Stream, steps: Sequence[PreparedStep]) -> None:
        """Notes the code that was read and not run."""
        for index, one in enumerate(steps if not self._run_code else ()):
            if one.step.own_code is not None:
                place: Path_ = ("spec", "steps", index, one.name)
                message = f"the code of {one.step.own_code} was read and not run"
                note = self._project.origin(stream).problem(place, message, None, "python.not_run")
                if note not in self._findings.not_run:
                    self._findings.not_run.append(note)

    def _agreed(self, topic: str, output: Any) -> bool:
        """Notes a derived schema; False where another stream derived another one. A declared one stands in any case."""
        text = json.dumps(output, sort_keys=True)
        if self._project.schema_of(topic) is None:
            self._project.schemas[topic] = output
            self._derived[topic] = text
        return self._derived.get(topic, text) == text


def _without(project: Project, bad: Set[Key]) -> Project:
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
