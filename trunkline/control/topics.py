"""Topics as they are on the cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from trunkline.bus.accounting.audit import Entry, announced
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, answered, topics_of, translate, watermarks
from trunkline.bus.kafka.cluster import Asked, Place, offsets_of_each
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicState, remove_topic, topic_states
from trunkline.bus.worker.applied import gather_applied, pipelines_of, read_applied, reads, writes
from trunkline.bus.worker.attended import attended
from trunkline.bus.worker.remains import Count, records_in
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, ConflictError, did_you_mean
from trunkline.core.manifests import Project, Sink, Source, Stream
from trunkline.registry.client import RegistryClient

_TIMEOUT = 15.0
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)  # noqa: SLF001
"""What is said of a topic that was deleted since it was listed."""
_OWN_ENDS = (".dlq", ".retry", ".parked")


@dataclass(frozen=True, slots=True)
class TopicLine:
    """One topic of a listing. `offsets` counts those between first and end: markers and compacted ones among them.

    It is None where Kafka does not say, as of a partition without a leader.
    """

    name: str
    partitions: int
    offsets: int | None
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
    places = [(name, partition) for name, state in states.items() for partition in range(state.partitions)]
    (firsts, refused), (ends, _) = offsets_of_each(
        kafka, [Asked(EARLIEST, places), Asked(LATEST, places, committed_only=False)]
    )
    gone = {topic for (topic, _), error in refused.items() if error.code() in _GONE}
    return [
        TopicLine(
            name,
            state.partitions,
            _offsets(state, firsts, ends),
            state.config.get("cleanup.policy", ""),
            _retention(state),
        )
        for name, state in sorted(states.items())
        if name not in gone
    ]


def _offsets(state: TopicState, firsts: Mapping[Place, int], ends: Mapping[Place, int]) -> int | None:
    own = [(state.name, partition) for partition in range(state.partitions)]
    if not all(place in firsts and place in ends for place in own):
        return None
    return sum(ends[place] - firsts[place] for place in own)


def event_topics(cluster: Cluster) -> list[str]:
    """The names of the topics that hold this namespace's events: those that begin with its name, and those that its applied manifests
    declare, read or write. Other installs may share the cluster, and so may programs that have nothing to do with the bus.
    """
    applied, names = read_applied(cluster.kafka, cluster.names), cluster.names
    used = [key.partition("/")[2] for key, manifest in applied.items() if manifest.get("kind") == "Topic"]
    used += [topic for manifest in applied.values() for topic in (*reads(manifest), *writes(manifest))]
    own = f"{names.namespace}." if names.namespace else None
    return sorted(
        name
        for name in _topic_names(cluster.kafka)
        if not _is_internal(name, names) and ((own is not None and name.startswith(own)) or _covers(used, name))
    )


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
    project = gather_applied(read_applied(kafka, cluster.names)).project
    subject = project.subjects_of(topic).of("")[0]
    versions = registry.versions(subject)
    schema = registry.latest(subject) if versions else None
    return Topic(
        topic,
        state.id,
        f"{schema.name}, version {versions[-1]}, id {schema.id}" if schema is not None else None,
        _writers(project, topic),
        _readers(project, topic),
        partitions,
        dict(sorted(state.config.items())),
    )


@dataclass(frozen=True, slots=True)
class TopicDeletion:
    """A topic that would be deleted: its records, about so many where they are not `exact`, and the groups that read it now."""

    topic: str
    id: str
    partitions: int
    records: int
    exact: bool
    read_by: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The deletion as data."""
        return asdict(self)


def propose_deletion(cluster: Cluster, topic: str) -> TopicDeletion:
    """What deleting a topic would take away.

    Raises `ConfigurationError`: for an unknown topic, one of the bus's own (`topic.internal`), one that a pipeline reads, writes or keeps
    for itself (`topic.in_use`), and one whose manifest is applied, since workers would make it anew (`topic.declared`).
    """
    state = require_topic(cluster, topic)
    _refuse_used(cluster, topic)
    count = records_in(cluster.kafka, [topic]).get(topic, Count())
    return TopicDeletion(topic, state.id, state.partitions, count.records, count.exact, _reading_groups(cluster, topic))


def delete_topic(cluster: Cluster, deletion: TopicDeletion) -> None:
    """Deletes a topic and what is in it. Raises as `propose_deletion`, and `ConflictError` where it was made anew since."""
    topic = deletion.topic
    cluster.ensure_internal_topics()
    _refuse_used(cluster, topic)
    if require_topic(cluster, topic).id != deletion.id:
        raise ConflictError(
            f"the topic {topic} was deleted and made anew since it was looked at",
            moved=[{"key": topic}],
            hint="look at it as it is now, and ask again; nothing was changed",
        )
    details = {"records": deletion.records, "exact": deletion.exact, "id": deletion.id}
    entry = Entry(time.time(), cluster.actor, "topic.delete", "", details, subject=f"topic/{topic}")
    with announced(cluster.kafka, cluster.names, entry):
        remove_topic(cluster.kafka, topic)


def _refuse_used(cluster: Cluster, topic: str) -> None:
    names = cluster.names
    bare = topic.removeprefix(f"{names.namespace}.") if names.namespace else topic
    if topic.startswith("_") or bare.startswith("_") or "._" in topic:
        raise ConfigurationError(
            f"{topic} is one of the bus's own topics",
            where=topic,
            hint="it is never deleted by hand",
            code="topic.internal",
        )
    applied = read_applied(cluster.kafka, names)
    reports = cluster.board.reports()
    owner = next((bare.removesuffix(end) for end in _OWN_ENDS if bare.endswith(end)), None)
    if owner is not None and attended(pipelines_of(applied), reports, owner):
        raise ConfigurationError(
            f"{topic} belongs to {owner}, which is applied or runs",
            where=topic,
            hint=f"delete that first: `trunkline delete` and its kind and name, such as sink/{owner}",
            code="topic.in_use",
        )
    users = sorted(key for key, data in applied.items() if _covers([*reads(data), *writes(data)], topic))
    if users:
        raise ConfigurationError(
            f"{topic} is used by {', '.join(users)}",
            where=topic,
            hint="delete or change those first",
            code="topic.in_use",
        )
    if f"Topic/{topic}" in applied:
        raise ConfigurationError(
            f"the manifest of {topic} is applied: workers would make the topic anew",
            where=topic,
            hint=f"run `trunkline delete topic/{topic}` first",
            code="topic.declared",
        )


def _reading_groups(cluster: Cluster, topic: str) -> list[str]:
    """The consumer groups of which a member has a partition of the topic now. Groups that this principal may not see are left out."""
    admin = cluster.kafka.admin()
    try:
        listed = answered(admin.list_consumer_groups(request_timeout=_TIMEOUT), _TIMEOUT)
        groups = [one.group_id for one in listed.valid]
        described = admin.describe_consumer_groups(groups, request_timeout=_TIMEOUT) if groups else {}
    except KafkaException as error:
        raise translate(error, "the consumer groups can't be listed") from error
    found = []
    for group, future in described.items():
        try:
            members = answered(future, _TIMEOUT).members
        except KafkaException as error:
            if error.args[0].code() in {KafkaError.GROUP_ID_NOT_FOUND, KafkaError.GROUP_AUTHORIZATION_FAILED}:
                continue  # it went away since it was listed, or is not to be seen
            raise translate(error, f"the consumer group {group} can't be asked for") from error
        if any(part.topic == topic for one in members for part in one.assignment.topic_partitions):
            found.append(group)
    return sorted(found)


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
