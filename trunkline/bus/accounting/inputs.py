"""Which partitions pipelines read: those of their inputs as the cluster has them now, whether anything was committed there or not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trunkline.bus.intake import Partition
from trunkline.bus.kafka import KafkaSettings, topics_of
from trunkline.bus.names import Names

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
    topics = topics_of(settings, timeout=timeout)
    return {
        pipeline: _inputs({name: topic.partitions for name, topic in topics.items()}, names.retry(pipeline), patterns)
        for pipeline, patterns in pipelines.items()
    }


def _inputs(topics: Mapping[str, Iterable[int]], retry: str, patterns: Iterable[str]) -> Inputs:
    found: set[Partition] = {(retry, number) for number in topics.get(retry, ())}
    missing = []
    for pattern in patterns:
        if pattern.endswith(".*"):
            members = [name for name in topics if name.startswith(pattern[:-1])]
        else:
            members = [pattern] if pattern in topics else []
            missing += [] if members else [pattern]
        found.update((name, number) for name in members for number in topics[name])
    return Inputs(frozenset(found), tuple(missing))
