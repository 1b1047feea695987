"""What groups have committed, asked by a consumer that never joins them.

The administrator's call for this (`list_consumer_group_offsets`) ends the process by SIGSEGV in librdkafka 2.16 while the group's
coordinator is not ready, as after a broker's start (librdkafka#5040).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from confluent_kafka import TopicPartition

from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings, patiently
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names

TIMEOUT = 15.0
AT_ONCE = 8

Positions = Mapping[Partition, int]
"""Committed offsets by partition."""
Commits = Mapping[Partition, tuple[int, Ledger]]
"""Committed offsets with their ledgers, by partition."""


def committed(
    settings: KafkaSettings,
    names: Names,
    pipeline: str,
    partitions: Collection[Partition] | None = None,
    timeout: float = TIMEOUT,
) -> dict[Partition, tuple[int, Ledger]]:
    """The committed offset and the ledger of these partitions of a pipeline; of every one that it has read where none are named.

    A partition without a commit is left out. Costs a connection of its own. Raises our error for Kafka's.
    """
    group = names.group(pipeline)
    wanted = every_partition(settings, timeout=timeout) if partitions is None else partitions
    if not wanted:
        return {}

    def ask() -> dict[Partition, tuple[int, Ledger]]:
        # Not read_committed: that waits for the end of every transaction that is about to move an offset.
        consumer = settings.reader(committed_only=False, group=group)
        try:
            parts = consumer.committed([TopicPartition(*place) for place in wanted], timeout=timeout)
        finally:
            consumer.close()
        return {
            (part.topic, part.partition): (part.offset, Ledger.from_metadata(part.metadata, part.offset)[0])
            for part in parts
            if part.offset >= 0
        }

    return patiently(ask, f"the offsets of {pipeline} can't be read", min(timeout, 10.0))


def all_committed(
    settings: KafkaSettings, names: Names, pipelines: Iterable[str]
) -> dict[str, dict[Partition, tuple[int, Ledger]]]:
    """As `committed`, of several pipelines, some of them at once."""
    wanted = list(pipelines)
    if not wanted:
        return {}
    partitions = every_partition(settings)  # once, as there may be thousands
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="commits") as pool:
        found = pool.map(lambda pipeline: committed(settings, names, pipeline, partitions), wanted)
        return dict(zip(wanted, found, strict=True))


def positions_of(commits: Mapping[Partition, tuple[int, Ledger]]) -> dict[Partition, int]:
    """The offsets alone."""
    return {place: offset for place, (offset, _) in commits.items()}


def positions(settings: KafkaSettings, names: Names, pipelines: Iterable[str]) -> dict[str, Positions]:
    """The committed offsets of several pipelines. Raises our error for Kafka's."""
    return {pipeline: positions_of(commits) for pipeline, commits in all_committed(settings, names, pipelines).items()}


def every_partition(settings: KafkaSettings, *, timeout: float = TIMEOUT) -> list[Partition]:
    """What a pipeline may have read: Kafka's own topics (`__consumer_offsets`) are never read by one."""
    admin = settings.admin()
    topics = patiently(
        lambda: admin.list_topics(timeout=timeout).topics, "the topics can't be listed", min(timeout, 10.0)
    )
    return [
        (name, number) for name, topic in topics.items() if not name.startswith("__") for number in topic.partitions
    ]
