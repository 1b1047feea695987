"""From manifests to what runs: plug-ins with their settings, steps prepared, expressions and routes compiled.

Everything here raises `ManifestError` that points at the file, line and field. Nothing connects to anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from trunkline.core.contracts import Plugin, PushSource, Sink, Source, Step, StepContext
from trunkline.core.errors import ConfigurationError, TrunklineError, did_you_mean
from trunkline.core.expressions import BOOL, compile_expression
from trunkline.core.manifests import models
from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.problems import ManifestError, Path_, path_of
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.wording import problems_of
from trunkline.core.plugins import Kind, load_plugin
from trunkline.core.routing import Route, compile_routes
from trunkline.core.secret import references_met
from trunkline.core.settings import Settings


class UndecidedError(Exception):
    """References stay as they are written here, and only their values would tell whether the rest is right."""


@dataclass(frozen=True, slots=True)
class PreparedStep:
    """A step ready to run, with what becomes of a record it can't process."""

    name: str
    step: Step
    on_error: str
    where: str


def build_connection(project: Project, manifest: models.Connection) -> Any:
    """The validated settings of a connection. Raises `ManifestError`."""
    name = manifest.spec.connector
    plugin = _any_plugin(project, manifest, name)
    if plugin.connection_type is None:
        raise _at(project, manifest, ("spec", "connector"), f"the plug-in {name!r} takes no connection", None)
    return _validated(project.origin(manifest), plugin.connection_type, manifest.spec.config)


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
    project: Project, manifest: models.Stream, schema: Any | None, *, run_code: bool = True
) -> tuple[list[PreparedStep], Any | None]:
    """The steps of a stream made and compiled for inputs of `schema`, and the schema of what comes out.

    Without `run_code`, code that the manifest names is read and not run: then they are good for a check only. Raises `ManifestError`.
    """
    prepared = []
    origin = project.origin(manifest)
    targets = {
        json.dumps(found) for target in manifest.spec.to if (found := project.schema_of(target.topic)) is not None
    }
    only_target = json.loads(targets.pop()) if len(targets) == 1 else None
    undecided = False
    for index, spec in enumerate(manifest.spec.steps):
        path: Path_ = ("spec", "steps", index, spec.plugin)
        met = len(references_met())
        try:
            step_type = load_plugin("step", spec.plugin)
            assert issubclass(step_type, Step)
            try:
                settings = step_type.parse(spec.config)
            except ValidationError as error:
                shorthand = step_type.shorthand
                bare = shorthand is not None and not (isinstance(spec.config, dict) and shorthand in spec.config)
                raise _invalid(
                    error, origin, path, step_type.settings_type, bare=shorthand if bare else None
                ) from error
            step = step_type(settings)
            where = f"{origin.document.file}:{origin.document.line(path)}: spec.steps[{index}].{spec.plugin}"
            last = index == len(manifest.spec.steps) - 1
            target = only_target if last else None
            context = StepContext(manifest.metadata.name, schema, where, target, origin.folder, run_code)
            schema = step.prepare(context)
        except ManifestError:
            raise
        except UndecidedError:
            undecided, schema = True, None
            continue
        except TrunklineError as error:
            if len(references_met()) > met:
                undecided, schema = True, None
                continue
            raise ManifestError([origin.problem(path, error.message, error.hint, error.code)]) from error
        prepared.append(PreparedStep(spec.plugin, step, spec.on_error, where))
    if undecided:
        raise UndecidedError
    return prepared, schema


def own_code(manifest: models.Stream) -> list[tuple[Path_, str]]:
    """The code of the manifest's author that its steps run, each with its place. A step that can't be made is left out."""
    found: list[tuple[Path_, str]] = []
    for index, spec in enumerate(manifest.spec.steps):
        try:
            step_type = load_plugin("step", spec.plugin)
            assert issubclass(step_type, Step)
            code = step_type(step_type.parse(spec.config)).own_code
        except (TrunklineError, ValidationError):
            continue
        if code is not None:
            found.append((("spec", "steps", index, spec.plugin), code))
    return found


def stream_routes(project: Project, manifest: models.Stream, schema: Any | None) -> list[Route]:
    """The targets of a stream compiled against the schema that its steps give."""
    return compile_routes(manifest.spec.to, schema, "spec")


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
    connection = _connection_of(project, manifest, plugin, spec, path)
    settings = _validated(origin, plugin.settings_type, spec.config, (*path, "config"))
    try:
        return plugin(settings, connection)
    except TrunklineError as error:
        if references_met():
            raise UndecidedError from error
        place = path_of(error.where) if error.where and error.where.startswith("config") else ("config",)
        raise ManifestError([origin.problem((*path, *place), error.message, error.hint, error.code)]) from error


def _connection_of(
    project: Project,
    manifest: models.Source | models.Sink,
    plugin: type[Plugin],
    spec: models.SourceSpec | models.SinkSpec | models.FallbackSpec,
    path: Path_,
) -> Any | None:
    """The settings of the connection that the part of a manifest at `path` names; None for a plug-in that takes none."""
    if spec.connection is None:
        if plugin.connection_type is not None:
            fit = [name for name, one in project.connections.items() if one.spec.connector == spec.connector]
            hint = (
                f"add `connection: {fit[0]}`" if len(fit) == 1 else "add `connection: NAME`, the name of a Connection"
            )
            raise _at(project, manifest, path, f"{spec.connector!r} needs a connection", hint)
        return None
    place = (*path, "connection")
    if plugin.connection_type is None:
        raise _at(project, manifest, place, f"{spec.connector!r} takes no connection", "remove it")
    other = project.connections.get(spec.connection)
    if other is None:
        known = project.connections
        hint = did_you_mean(spec.connection, known) if known else "add a manifest of kind Connection"
        message = f"there is no connection {spec.connection!r}"
        raise ManifestError([project.origin(manifest).problem(place, message, hint, "manifest.missing_connection")])
    own = _any_plugin(project, other, other.spec.connector).connection_type
    if own is not plugin.connection_type:
        message = f"the connection {spec.connection!r} is one of {other.spec.connector!r}, not of {spec.connector!r}"
        raise _at(project, manifest, place, message, f"name a Connection with connector: {spec.connector}")
    return _validated(project.origin(other), plugin.connection_type, other.spec.config)


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


def _validated(origin: Origin, model: Any, config: dict[str, Any], path: Path_ = ("spec", "config")) -> Any:
    try:
        return model.model_validate(config)
    except ValidationError as error:
        raise _invalid(error, origin, path, model) from error


def _invalid(
    error: ValidationError, origin: Origin, path: Path_, model: type[Settings], *, bare: str | None = None
) -> Exception:
    problems = problems_of(error, origin, path, model, bare=bare)
    return ManifestError(problems) if problems else UndecidedError()


def _at(project: Project, manifest: models.Manifest, path: Path_, message: str, hint: str | None) -> ManifestError:
    return ManifestError([project.origin(manifest).problem(path, message, hint)])
