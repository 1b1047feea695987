"""Topics as they are on the cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from trunkline.bus.kafka import KafkaSettings, topics_of, watermarks
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicState, topic_states
from trunkline.bus.worker.applied import project_of, read_applied
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.manifests import Project, Sink, Source, Stream
from trunkline.registry.client import RegistryClient

_OWN_ENDS = (".dlq", ".retry", ".parked")


@dataclass(frozen=True, slots=True)
class TopicLine:
    """One topic of a listing. `offsets` counts those between first and end: markers and compacted ones among them."""

    name: str
    partitions: int
    offsets: int
    cleanup: str
    retention: str

    def as_dict(self) -> dict[str, Any]:
        """The line as data."""
        return asdict(self)


def list_topics(cluster: Cluster, *, everything: bool) -> list[TopicLine]:
    """The topics of the cluster; without `everything` those that hold events."""
    kafka = cluster.kafka
    wanted = [name for name in _topic_names(kafka) if everything or not _is_internal(name, cluster.names)]
    states = topic_states(kafka, wanted)
    reader = kafka.reader()
    try:
        lines = []
        for name, state in sorted(states.items()):
            marks = [watermarks(reader, name, partition) for partition in range(state.partitions)]
            lines.append(
                TopicLine(
                    name,
                    state.partitions,
                    sum(end - first for first, end in marks),
                    state.config.get("cleanup.policy", ""),
                    _retention(state),
                )
            )
        return lines
    finally:
        reader.close()


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition, and how many of its replicas there are and are in sync."""

    partition: int
    first: int
    end: int
    leader: int
    replicas: int
    in_sync: int


@dataclass(frozen=True, slots=True)
class Topic:
    """Everything about one topic. `schema` is the latest one of its values; pipelines are named as the applied manifests do."""

    topic: str
    id: str
    schema: str | None
    written_by: list[str]
    read_by: list[str]
    partitions: list[PartitionState]
    config: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """The topic as data."""
        return asdict(self)


def describe_topic(cluster: Cluster, registry: RegistryClient, topic: str) -> Topic:
    """Everything about one topic. Raises `ConfigurationError` with the nearest name where there is none of that name."""
    kafka = cluster.kafka
    state = require_topic(cluster, topic)
    metadata = topics_of(kafka, topic)[topic]
    reader = kafka.reader()
    try:
        partitions = []
        for number, part in sorted(metadata.partitions.items()):
            first, end = watermarks(reader, topic, number)
            partitions.append(PartitionState(number, first, end, part.leader, len(part.replicas), len(part.isrs)))
    finally:
        reader.close()
    project = project_of(read_applied(kafka, cluster.names))
    versions = registry.versions(f"{topic}-value")
    schema = registry.latest(f"{topic}-value") if versions else None
    return Topic(
        topic,
        state.id,
        f"{schema.name}, version {versions[-1]}, id {schema.id}" if schema is not None else None,
        _writers(project, topic),
        _readers(project, topic),
        partitions,
        dict(sorted(state.config.items())),
    )


def require_topic(cluster: Cluster, topic: str) -> TopicState:
    """The topic as it is. Raises `ConfigurationError` where there is none of that name."""
    state = topic_states(cluster.kafka, [topic]).get(topic)
    if state is None:
        raise ConfigurationError(
            f"there is no topic {topic!r}", hint=did_you_mean(topic, _topic_names(cluster.kafka)), code="topic.unknown"
        )
    return state


def _topic_names(kafka: KafkaSettings) -> list[str]:
    return sorted(topics_of(kafka))


def _is_internal(name: str, names: Names) -> bool:
    bare = name.removeprefix(f"{names.namespace}.") if names.namespace else name
    return name.startswith("_") or bare.startswith("_") or "._" in name or name.endswith(_OWN_ENDS)


def _retention(state: TopicState) -> str:
    milliseconds = int(state.config.get("retention.ms", -1))
    if "delete" not in state.config.get("cleanup.policy", "delete") or milliseconds < 0:
        return "forever"
    return f"{milliseconds / 86_400_000:g}d"


def _covers(names: list[str], topic: str) -> bool:
    return any(topic == one or (one.endswith(".*") and topic.startswith(one[:-1])) for one in names)


def _writers(project: Project, topic: str) -> list[str]:
    writing: dict[str, Source | Stream] = {**project.sources, **project.streams}
    return sorted(name for name, one in writing.items() if _covers([target.topic for target in one.spec.to], topic))


def _readers(project: Project, topic: str) -> list[str]:
    reading: dict[str, Stream | Sink] = {**project.streams, **project.sinks}
    return sorted(name for name, one in reading.items() if _covers(list(one.spec.from_), topic))
