"""A project: the manifests that are applied together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.manifests.models import Connection, Manifest, Pipeline, Sink, Source, Stream, Topic
from trunkline.core.subjects import DEFAULT_SUBJECT, Subjects, filled, full_name


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

    def owner_of(self, name: str) -> str | None:
        """Who owns the topic or pipeline `name`, where a manifest says so."""
        found = self.pipeline(name) or self.topic_of(name)
        return found.metadata.owner if found is not None else None

    def topic_of(self, name: str) -> Topic | None:
        """The manifest that declares the topic `name`: its own, or that of its family."""
        found = self.topics.get(name)
        if found is None:
            families = (topic for topic in self.topics if topic.endswith(".*") and name.startswith(topic[:-1]))
            family = max(families, key=len, default=None)
            found = self.topics[family] if family else None
        return found

    def subjects_of(self, topic: str) -> Subjects:
        """The subjects of a topic's values: its own, and those of the topics from which records get into it as they are.

        A topic without a schema gets the records of a stream unchanged; a topic of dead letters those of its pipeline's inputs.
        """
        found: dict[str, None] = {}
        waiting, seen = [topic], set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            manifest = self.topic_of(name)
            pattern = manifest.spec.subject if manifest is not None else DEFAULT_SUBJECT
            found[pattern.replace("{topic}", name)] = None
            declares = manifest is not None and manifest.spec.value_schema is not None
            if not declares and self.schema_of(name) is None:
                waiting += self._feeders(name)
        return Subjects(topic, tuple(found))

    def subject_of(self, topic: str) -> str:
        """The subject under which the schema of a topic that has one is registered."""
        manifest = self.topic_of(topic)
        pattern = manifest.spec.subject if manifest is not None else DEFAULT_SUBJECT
        return filled(pattern, topic, full_name(self.schema_of(topic)))

    def levels(self) -> Iterator[tuple[str, str]]:
        """The subjects whose compatibility level a manifest sets, each with it."""
        for name, topic in self.topics.items():
            known = self.schema_of(name) is not None or "{record}" not in topic.spec.subject
            if topic.spec.compatibility is not None and known and not name.endswith(".*"):
                yield self.subject_of(name), topic.spec.compatibility

    def _feeders(self, topic: str) -> list[str]:
        """The topics from which records may get into this one as they are."""
        own = self.pipeline(topic.removesuffix(".dlq")) if topic.endswith(".dlq") else None
        if own is not None:
            return list(own.inputs)
        streams = (one for one in self.streams.values() if any(_takes(target.topic, topic) for target in one.spec.to))
        return [name for stream in streams for name in stream.inputs]

    def schema_of(self, topic: str) -> Any | None:
        """The Avro schema of a topic's values, or None where none is declared or derived."""
        manifest = self.topic_of(topic)
        return self.schemas.get(topic) or (self.schemas.get(manifest.metadata.name) if manifest else None)


def _takes(name: str, topic: str) -> bool:
    """Whether a target's topic, or family, is this one."""
    return topic == name or (name.endswith(".*") and topic.startswith(name[:-1]))
