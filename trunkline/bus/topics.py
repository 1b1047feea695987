"""Topics: those of manifests and the bus's own. Missing ones are created, differences are reported and never changed silently."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import TopicDescription
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewPartitions, NewTopic

from trunkline.bus.kafka import KafkaSettings, answered, topics_of, translate
from trunkline.bus.names import Names
from trunkline.core.manifests import Pipeline, Project
from trunkline.kafkaclient import AdminClient

COMPACTED = {
    "cleanup.policy": "compact",
    # Kafka's defaults keep a day's writes uncompacted, and a start would read them all.
    "segment.bytes": str(16 * 2**20),
    "segment.ms": str(3_600_000),
    "min.cleanable.dirty.ratio": "0.1",
}
TOMBSTONE_MS = 24 * 3_600_000
"""How long Kafka keeps a deletion after it compacted what was deleted."""
KEPT_DELETIONS = {"delete.retention.ms": str(TOMBSTONE_MS)}
BUDGETS = {
    **COMPACTED,
    "cleanup.policy": "compact,delete",
    # One clock for all workers, and one partition: the order of the claims decides which hold.
    "message.timestamp.type": "LogAppendTime",
    # What decides slices is whole for some minutes; of what is older only how much of the day was used still counts.
    "min.compaction.lag.ms": str(5 * 60_000),
    "segment.ms": str(10 * 60_000),
    "retention.ms": str(3 * 24 * 3_600_000),
}
NEVER_EXPIRES = {"retention.ms": "-1", "retention.bytes": "-1"}
DEFAULT_MAX_MESSAGE = 1_048_588
DEAD_LETTER_ROOM = 1_048_576
LEASE_PARTITIONS = 16
JOB_PARTITIONS = 8
TRACE_RETENTION_MS = 7 * 24 * 3_600_000
TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """A topic as it should be."""

    name: str
    partitions: int
    replication: int | None = None
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is. `id` is Kafka's topic id, which a topic of the same name made anew does not share."""

    name: str
    id: str
    partitions: int
    config: Mapping[str, str]

    @property
    def max_message_bytes(self) -> int:
        """The largest batch that the topic accepts."""
        return int(self.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE))

    @property
    def compacted(self) -> bool:
        """Whether a null value means a deletion here."""
        return "compact" in self.config.get("cleanup.policy", "")


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting in which a topic is not as its manifest says."""

    topic: str
    setting: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.setting} is {self.found}, the manifest says {self.wanted}"


def internal_topics(names: Names) -> list[TopicPlan]:
    """The bus's own topics."""
    return [
        TopicPlan(names.manifests, 1, config=COMPACTED),
        TopicPlan(names.control, 1, config=COMPACTED),
        TopicPlan(names.principals, 1, config=COMPACTED),
        TopicPlan(names.status, 1, config=COMPACTED),
        TopicPlan(names.positions, 1, config=COMPACTED),
        TopicPlan(names.redriven, 1, config=COMPACTED),
        TopicPlan(names.jobs, JOB_PARTITIONS, config={**COMPACTED, "max.message.bytes": str(16 * 2**20)}),
        TopicPlan(names.budgets, 1, config=BUDGETS),
        TopicPlan(names.leases, LEASE_PARTITIONS, config={"retention.ms": "3600000"}),
        TopicPlan(
            names.deliveries,
            1,
            config={**COMPACTED, "cleanup.policy": "compact,delete", "retention.ms": str(8 * 24 * 3_600_000)},
        ),
        TopicPlan(names.audit, 1, config=NEVER_EXPIRES),
        # A decision may hold an edited record.
        TopicPlan(names.decisions, 1, config={**COMPACTED, "max.message.bytes": str(32 * 2**20)}),
        TopicPlan(
            names.trace, 4, config={"retention.ms": str(TRACE_RETENTION_MS), "max.message.bytes": str(16 * 2**20)}
        ),
    ]


def declared_topics(project: Project) -> list[TopicPlan]:
    """The topics that manifests declare; families are created member by member when first written to."""
    return [
        topic_plan(project, name)
        for name, topic in sorted(project.topics.items())
        if not topic.spec.external and not name.endswith(".*")
    ]


def topic_plan(project: Project, name: str) -> TopicPlan:
    """How the topic `name` is declared, by itself or by its family."""
    manifest = project.topic_of(name)
    assert manifest is not None, name
    config = {key: _config_text(value) for key, value in manifest.spec.config.items()}
    return TopicPlan(name, manifest.spec.partitions, manifest.spec.replication, config)


def pipeline_topics(
    project: Project, names: Names, states: Mapping[str, TopicState], pipelines: Iterable[Pipeline] | None = None
) -> list[TopicPlan]:
    """The dead-letter and retry topics of these pipelines, of all where none are named. `states` has their inputs.

    They have as many partitions as the inputs, because a record keeps its partition number in them, and they take larger
    messages, because a dead letter has more headers than its record.
    """
    plans = []
    for pipeline in sorted(
        project.pipelines.values() if pipelines is None else pipelines, key=lambda one: one.metadata.name
    ):
        name, inputs = pipeline.metadata.name, pipeline.inputs
        found = [state for one in inputs for state in _covered(one, states)]
        declared = [project.topics[i].spec.partitions for i in inputs if i in project.topics]
        partitions = max([state.partitions for state in found] + declared, default=1)
        room = max([state.max_message_bytes for state in found], default=DEFAULT_MAX_MESSAGE) + DEAD_LETTER_ROOM
        if not inputs:
            room = 16 * 2**20
        config = {**NEVER_EXPIRES, "max.message.bytes": str(room)}
        plans.append(TopicPlan(names.dead_letters(name), partitions, config=config))
        if inputs:
            plans.append(TopicPlan(names.retry(name), partitions, config=config))
    return plans


def _covered(name: str, states: Mapping[str, TopicState]) -> list[TopicState]:
    """The topic of that name, or the members of that family."""
    if name.endswith(".*"):
        return [state for state in states.values() if state.name.startswith(name[:-1])]
    return [states[name]] if name in states else []


def ensure_topics(settings: KafkaSettings, plans: Iterable[TopicPlan]) -> list[Difference]:
    """Creates the topics that do not exist, and says in what the others differ. Raises our error for Kafka's."""
    plans = list(plans)
    admin = settings.admin()
    existing = topic_states(settings, [plan.name for plan in plans], admin=admin)
    missing = [plan for plan in plans if plan.name not in existing]
    if missing:
        futures = admin.create_topics(
            [
                NewTopic(plan.name, plan.partitions, plan.replication or -1, config=dict(plan.config))
                for plan in missing
            ],
            operation_timeout=TIMEOUT,
            request_timeout=TIMEOUT,
        )
        for name, future in futures.items():
            try:
                answered(future, TIMEOUT)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise translate(error, f"the topic {name} can't be created") from error
        _wait_for(settings, dict.fromkeys((plan.name for plan in missing), 1))
    return [
        difference for plan in plans if plan.name in existing for difference in _differences(plan, existing[plan.name])
    ]


def grow_topics(settings: KafkaSettings, wanted: Mapping[str, int]) -> None:
    """Raises topics to so many partitions. Raises our error for Kafka's."""
    if not wanted:
        return
    admin = settings.admin()
    futures = admin.create_partitions(
        [NewPartitions(name, count) for name, count in wanted.items()],
        operation_timeout=TIMEOUT,
        request_timeout=TIMEOUT,
    )
    for name, future in futures.items():
        try:
            answered(future, TIMEOUT)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.INVALID_PARTITIONS:  # another worker was faster
                raise translate(error, f"the topic {name} can't be given more partitions") from error
    _wait_for(settings, wanted)


def remove_topic(settings: KafkaSettings, name: str) -> None:
    """Deletes a topic, and waits until the broker shows it no more: for a moment it may. Raises our error for Kafka's."""
    admin = settings.admin()
    former = topic_identities(settings, [name], admin=admin).get(name)
    try:
        answered(admin.delete_topics([name], operation_timeout=TIMEOUT, request_timeout=TIMEOUT)[name], TIMEOUT)
    except KafkaException as error:
        raise translate(error, f"the topic {name} can't be deleted") from error
    deadline = time.monotonic() + TIMEOUT
    while former is not None and time.monotonic() < deadline:
        now = topic_identities(settings, [name], admin=admin).get(name)
        if now is None or now.id != former.id:
            return
        time.sleep(0.05)


@dataclass(frozen=True, slots=True)
class TopicIdentity:
    """What tells a topic from another of its name, and how many partitions it has."""

    id: str
    partitions: int


def topic_identities(
    settings: KafkaSettings, names: Iterable[str], *, admin: AdminClient | None = None, timeout: float = TIMEOUT
) -> dict[str, TopicIdentity]:
    """The ids and sizes of the named topics that exist: one question, however many there are. Raises our error for Kafka's."""
    return {
        # Kafka's own text form is URL-safe base64 (KIP-516); confluent-kafka's is not, and the id becomes a part of file names.
        name: TopicIdentity(str(topic.topic_id).replace("+", "-").replace("/", "_"), len(topic.partitions))
        for name, topic in _described(settings, names, admin=admin, timeout=timeout)
    }


def _described(
    settings: KafkaSettings,
    names: Iterable[str],
    *,
    admin: AdminClient | None = None,
    timeout: float,
    may_hide: bool = False,
) -> Iterator[tuple[str, TopicDescription]]:
    """The named topics that exist: one question, however many there are.

    Raises our error for Kafka's, also for a topic that is denied to us unless it `may_hide`.
    """
    admin = admin or settings.admin()
    wanted = sorted(set(names))
    if not wanted:
        return
    passed = {KafkaError.UNKNOWN_TOPIC_OR_PART} | ({KafkaError.TOPIC_AUTHORIZATION_FAILED} if may_hide else set())
    for name, future in admin.describe_topics(TopicCollection(wanted), request_timeout=timeout).items():
        try:
            yield name, answered(future, timeout)
        except KafkaException as error:
            if error.args[0].code() not in passed:
                raise translate(error, f"the topic {name} can't be described") from error


def topic_states(
    settings: KafkaSettings, names: Iterable[str], *, admin: AdminClient | None = None
) -> dict[str, TopicState]:
    """The named topics that exist, as they are."""
    admin = admin or settings.admin()
    found = topic_identities(settings, names, admin=admin)
    if not found:
        return {}
    states = {}
    for resource, future in admin.describe_configs(
        [ConfigResource(ResourceType.TOPIC, name) for name in found], request_timeout=TIMEOUT
    ).items():
        try:
            config = {
                entry.name: str(entry.value) for entry in answered(future, TIMEOUT).values() if entry.value is not None
            }
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                continue  # it was deleted since it was described
            raise translate(error, f"the settings of the topic {resource.name} can't be read") from error
        identity = found[resource.name]
        states[resource.name] = TopicState(resource.name, identity.id, identity.partitions, config)
    return states


def matching_topics(settings: KafkaSettings, patterns: Iterable[str]) -> list[str]:
    """The existing topics that the names and families cover."""
    return sorted(partition_counts(settings, patterns))


def partition_counts(settings: KafkaSettings, patterns: Iterable[str], *, timeout: float = TIMEOUT) -> dict[str, int]:
    """How many partitions each topic has that these names and families cover, of those that exist and that we may see.

    Only for families all topics of the cluster are asked for, which may be thousands. Raises our error for Kafka's.
    """
    families = tuple(one[:-1] for one in patterns if one.endswith(".*"))
    names = {one for one in patterns if not one.endswith(".*")}
    if families:
        return {
            name: len(topic.partitions)
            for name, topic in topics_of(settings, timeout=timeout).items()
            if name in names or name.startswith(families)
        }
    return {name: len(topic.partitions) for name, topic in _described(settings, names, timeout=timeout, may_hide=True)}


def _wait_for(settings: KafkaSettings, partitions: Mapping[str, int]) -> None:
    """Topics or partitions that were just created may not be in every broker's metadata yet: waits for so many of each topic."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        found = {
            name: [part.leader is not None for part in topic.partitions]
            for name, topic in _described(settings, partitions, timeout=TIMEOUT)
        }
        if all(len(found.get(name, ())) >= count and all(found[name]) for name, count in partitions.items()):
            return
        time.sleep(0.05)


def _differences(plan: TopicPlan, state: TopicState) -> list[Difference]:
    found = []
    if plan.partitions != state.partitions:
        found.append(Difference(plan.name, "partitions", str(plan.partitions), str(state.partitions)))
    for name, wanted in plan.config.items():
        if name in state.config and state.config[name] != wanted:
            found.append(Difference(plan.name, name, wanted, state.config[name]))
    return found


def _config_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
