"""A project: the manifests that are applied together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.manifests.models import Connection, Manifest, Pipeline, Sink, Source, Stream, Topic


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

    def copy(self) -> Project:
        """Another project of the same manifests: what is added to one, or derived in it, is not in the other."""
        return Project(**{one.name: dict(getattr(self, one.name)) for one in fields(self)})

    @property
    def pipelines(self) -> dict[str, Pipeline]:
        """Sources, streams and sinks by name: a name is used once among them."""
        return {**self.sources, **self.streams, **self.sinks}

    def pipeline(self, name: str) -> Pipeline | None:
        """The source, stream or sink called `name`."""
        return self.sources.get(name) or self.streams.get(name) or self.sinks.get(name)

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
