"""Which partitions pipelines read: those of their inputs as the cluster has them now, whether anything was committed there or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import partition_counts

TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """The partitions of a pipeline's inputs, its retry topic included, and the inputs by name that do not exist."""

    partitions: frozenset[Partition]
    missing: tuple[str, ...] = ()


def inputs_of(
    settings: KafkaSettings, names: Names, pipelines: Mapping[str, Iterable[str]], timeout: float = TIMEOUT
) -> dict[str, Inputs]:
    """The inputs of pipelines, of which each reads these names and families. Raises our error for Kafka's."""
    if not pipelines:
        return {}
    reads = {pipeline: list(patterns) for pipeline, patterns in pipelines.items()}
    wanted = {*(pattern for patterns in reads.values() for pattern in patterns), *map(names.retry, reads)}
    topics = partition_counts(settings, wanted, timeout=timeout)
    return {pipeline: _inputs(topics, names.retry(pipeline), patterns) for pipeline, patterns in reads.items()}


def _inputs(topics: Mapping[str, int], retry: str, patterns: Iterable[str]) -> Inputs:
    found: set[Partition] = {(retry, number) for number in range(topics.get(retry, 0))}
    missing = []
    for pattern in patterns:
        if pattern.endswith(".*"):
            members = [name for name in topics if name.startswith(pattern[:-1])]
        else:
            members = [pattern] if pattern in topics else []
            missing += [] if members else [pattern]
        found.update((name, number) for name in members for number in range(topics[name]))
    return Inputs(frozenset(found), tuple(missing))
