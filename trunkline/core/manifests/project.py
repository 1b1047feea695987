"""A project: the manifests that are applied together, read from files or from Kafka, with every problem they have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from trunkline.core.errors import ConfigurationError, TrunklineError, did_you_mean
from trunkline.core.manifests.models import (
    API_VERSION,
    KINDS,
    Connection,
    Manifest,
    Pipeline,
    Sink,
    Source,
    Stream,
    Topic,
)
from trunkline.core.manifests.yaml import Document, Path_, read_documents, read_files

M = TypeVar("M", bound=Manifest)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (file, line, field), what, and what to do."""

    file: str
    line: int
    field: str
    message: str
    hint: str | None = None
    code: str = "manifest.invalid"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + (f": {self.field}" if self.field else "")
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def as_dict(self) -> dict[str, Any]:
        """The problem as data."""
        return {name: getattr(self, name) for name in ("file", "line", "field", "message", "hint", "code")}


class ManifestError(ConfigurationError):
    """Manifests have problems; nothing was applied. `problems` has every one."""

    code = "manifest.invalid"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a manifest stands, so that a problem can name its file and line."""

    document: Document

    def problem(self, path: Path_, message: str, hint: str | None = None, code: str = "manifest.invalid") -> Problem:
        """A problem at `path` within the manifest."""
        return Problem(self.document.file, self.document.line(path), spelled(path), message, hint, code)

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the manifest start from."""
        return Path(self.document.file).parent


@dataclass(slots=True)
class Project:
    """Manifests by kind and name, each with its origin and, for topics, the schema its spec points at."""

    topics: dict[str, Topic] = field(default_factory=dict)
    connections: dict[str, Connection] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    streams: dict[str, Stream] = field(default_factory=dict)
    sinks: dict[str, Sink] = field(default_factory=dict)
    origins: dict[tuple[str, str], Origin] = field(default_factory=dict)
    schemas: dict[str, Any] = field(default_factory=dict)
    """Avro schemas (JSON form) by topic name: declared by the topic, or derived from what is written to it."""

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """Sources, streams and sinks by name: a name is used once among them."""
        return {**self.sources, **self.streams, **self.sinks}

    def of_kind(self, kind: str) -> dict[str, Any]:
        """The manifests of one kind by name."""
        kinds: dict[str, dict[str, Any]] = {
            "Topic": self.topics,
            "Connection": self.connections,
            "Source": self.sources,
            "Stream": self.streams,
            "Sink": self.sinks,
        }
        return kinds[kind]

    def origin(self, manifest: Manifest) -> Origin:
        """Where the manifest stands."""
        return self.origins[manifest.kind, manifest.metadata.name]

    def topic_of(self, name: str) -> Topic | None:
        """The manifest that declares the topic `name`: its own, or that of its family."""
        found = self.topics.get(name)
        if found is None:
            families = (topic for topic in self.topics if topic.endswith(".*") and name.startswith(topic[:-1]))
            family = max(families, key=len, default=None)
            found = self.topics[family] if family else None
        return found

    def schema_of(self, topic: str) -> Any | None:
        """The Avro schema of a topic's values, or None where none is declared or derived."""
        manifest = self.topic_of(topic)
        return self.schemas.get(topic) or (self.schemas.get(manifest.metadata.name) if manifest else None)


def load_files(paths: Iterable[Path]) -> Project:
    """The project that manifest files make. Raises `ManifestError` with every problem that the models can see."""
    return _collect(read_files(list(paths)))


def load_text(text: str, file: str = "<text>") -> Project:
    """The project that a YAML text makes: as `load_files`."""
    return _collect(read_documents(text, file))


def load_documents(documents: list[Document]) -> Project:
    """The project that documents from elsewhere make: as `load_files`."""
    return _collect(documents)


def spelled(path: Path_) -> str:
    """A path as people write it: `spec.to[0].when`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def problems_of(
    error: ValidationError, origin: Origin, prefix: Path_, model: type[BaseModel] | None = None
) -> list[Problem]:
    """What pydantic found, said for people: the field's own name, the line, the nearest valid name for an unknown one."""
    found = []
    for item in error.errors(include_url=False):
        path = (*prefix, *_real_path(item["loc"], origin, prefix))
        message, hint = item["msg"].removeprefix("Value error, "), None
        code = "manifest.invalid"
        if item["type"] == "extra_forbidden":
            message = f"unknown field {path[-1]!r}"
            hint = did_you_mean(str(path[-1]), _fields_at(model, item["loc"][:-1])) if model else None
            code = "manifest.unknown_field"
        elif item["type"] == "missing":
            message, code = f"the field {path[-1]!r} is missing", "manifest.missing_field"
        elif "input" in item and isinstance(item["input"], (str, int, float, bool)) and "found" not in message:
            message += f", found {str(item['input'])[:60]!r}" if "secret" not in message else ""
        found.append(origin.problem(path, message, hint, code))
    return found


def _real_path(loc: tuple[str | int, ...], origin: Origin, prefix: Path_) -> Path_:
    """pydantic's location without the names of union branches, which stand in no file."""
    path: Path_ = ()
    for index, part in enumerate(loc):
        here = _value_at(origin.document.data, (*prefix, *path))
        inside = (isinstance(here, Mapping) and part in here) or (isinstance(here, list) and isinstance(part, int))
        if inside or (index == len(loc) - 1 and isinstance(here, Mapping)):
            path = (*path, part)
    return path


def _value_at(data: Any, path: Path_) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The field names of the model that `loc` leads to from `model`."""
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        if part not in fields:
            continue
        nested = _models_in(fields[part].annotation)
        if not nested:
            return []
        current = nested[0]
    return [field.alias or name for name, field in current.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _collect(documents: list[Document]) -> Project:
    project = Project()
    problems: list[Problem] = []
    for document in documents:
        origin = Origin(document)
        manifest = _parse(document, origin, problems)
        if manifest is None:
            continue
        name = manifest.metadata.name
        other = _namesake(project, manifest)
        if other is not None:
            where = project.origins[other]
            place = f"{where.document.file}:{where.document.line(('metadata', 'name'))}"
            problems.append(
                origin.problem(
                    ("metadata", "name"), f"the name {name!r} is taken", f"see {place}", "manifest.duplicate"
                )
            )
            continue
        project.of_kind(manifest.kind)[name] = manifest
        project.origins[manifest.kind, name] = origin
    if problems:
        raise ManifestError(problems)
    return project


def _parse(document: Document, origin: Origin, problems: list[Problem]) -> Manifest | None:
    data = document.data
    if not isinstance(data, dict):
        problems.append(origin.problem((), "a manifest is a mapping with apiVersion, kind, metadata and spec"))
        return None
    kind = data.get("kind")
    if kind not in KINDS:
        problems.append(
            origin.problem(("kind",), f"unknown kind {kind!r}", did_you_mean(str(kind), KINDS), "manifest.unknown_kind")
        )
        return None
    if data.get("apiVersion") != API_VERSION:
        problems.append(
            origin.problem(("apiVersion",), f"unknown apiVersion {data.get('apiVersion')!r}", f"write {API_VERSION}")
        )
        return None
    model = KINDS[str(kind)]
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, origin, (), model)
    except TrunklineError as error:
        problems.append(origin.problem((), error.message, error.hint, error.code))
    return None


def _namesake(project: Project, manifest: Manifest) -> tuple[str, str] | None:
    name = manifest.metadata.name
    kinds = ("Source", "Stream", "Sink") if manifest.kind in {"Source", "Stream", "Sink"} else (manifest.kind,)
    return next(((kind, name) for kind in kinds if (kind, name) in project.origins), None)
