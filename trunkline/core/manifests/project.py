"""A project: the manifests that are applied together, read from files or from Kafka, with every problem they have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trunkline.core.errors import TrunklineError, did_you_mean
from trunkline.core.manifests.kinds import KINDS, PIPELINE_KINDS
from trunkline.core.manifests.models import API_VERSION, Connection, Manifest, Pipeline, Sink, Source, Stream, Topic
from trunkline.core.manifests.problems import ManifestError, Origin, Problem, problems_of
from trunkline.core.manifests.yaml import Document, read_documents, read_files


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
        found: dict[str, Any] = getattr(self, KINDS[kind].attribute)
        return found

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
    model = KINDS[str(kind)].model
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, origin, (), model)
    except TrunklineError as error:
        problems.append(origin.problem((), error.message, error.hint, error.code))
    return None


def _namesake(project: Project, manifest: Manifest) -> tuple[str, str] | None:
    name = manifest.metadata.name
    kinds = PIPELINE_KINDS if manifest.kind in PIPELINE_KINDS else (manifest.kind,)
    return next(((kind, name) for kind in kinds if (kind, name) in project.origins), None)
