"""Questions to the cluster: whether it answers, and where its topics begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import TopicMetadata
from confluent_kafka.admin._listoffsets import OffsetSpec

from trunkline.bus.kafka.errors import SETTLING, translate
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.kafkaclient import AdminClient, answered

T = TypeVar("T")
AGAIN_SECONDS = 0.05
Place = tuple[str, int]
"""Topic and partition number."""
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


def patiently(ask: Callable[[], T], what: str, timeout: float = 10.0, *, passing: Collection[int] = SETTLING) -> T:
    """The answer to a question to the cluster, asked again for `timeout` seconds while the refusal is one that passes.

    A topic that was just created, or a broker that just came back, has no leader for a moment. `passing` are codes of refusals that
    pass though librdkafka does not call them retriable. Raises our error for Kafka's.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask()
        except KafkaException as error:
            cause = error.args[0]
            if not (cause.retriable() or cause.code() in passing) or time.monotonic() > deadline:
                raise translate(error, what) from error
            time.sleep(AGAIN_SECONDS)


def topics_of(settings: KafkaSettings, topic: str | None = None, timeout: float = 15.0) -> dict[str, TopicMetadata]:
    """The topics of the cluster that we may see, or one of them, with their partitions. Raises our error for Kafka's."""
    try:
        return settings.admin().list_topics(topic, timeout=timeout).topics
    except KafkaException as error:
        raise translate(
            error, "the topics can't be listed" if topic is None else f"{topic} can't be asked for"
        ) from error


def offsets_of(
    settings: KafkaSettings, places: Iterable[Place], specs: Sequence[OffsetSpec], what: str, timeout: float = 10.0
) -> list[dict[Place, int]]:
    """The offsets that each of `specs` (such as LATEST) means in these partitions, to who reads what is committed.

    One question for each leader and spec, however many partitions there are. Raises our error for Kafka's.
    """
    admin, asked = settings.admin(), list(places)

    def ask() -> list[dict[Place, int]]:
        leaderless = admin.leaderless(asked, timeout)
        # All are asked before one is waited for.
        pending = [_list_offsets(admin, Asked(spec, asked), asked, leaderless, timeout) for spec in specs]
        return [
            {(part.topic, part.partition): answered(future, timeout).offset for part, future in answers.items()}
            for answers in pending
        ]

    # A topic that is there for one broker may not be known to another one yet.
    return patiently(ask, what, timeout, passing={*SETTLING, KafkaError.UNKNOWN_TOPIC_OR_PART})


@dataclass(frozen=True, slots=True)
class Asked:
    """Which offset is asked for, in these partitions, and whether to who reads what is committed only."""

    spec: OffsetSpec
    places: Collection[Place]
    committed_only: bool = True


Known = tuple[dict[Place, int], dict[Place, KafkaError]]
"""The offsets of partitions that are known, and why the others are not."""


def offset_of_each(
    settings: KafkaSettings,
    places: Iterable[Place],
    spec: OffsetSpec,
    *,
    committed_only: bool = True,
    timeout: float = 10.0,
) -> Known:
    """As `offsets_of` of one spec, partition by partition: what is known, and why the others are not. Raises nothing of Kafka's.

    A topic that is gone, or a leader that is away, takes nothing from the other partitions. What passes is asked for again, for
    `timeout` seconds at the most.
    """
    [known] = offsets_of_each(settings, [Asked(spec, list(places), committed_only)], timeout=timeout)
    return known


def offsets_of_each(settings: KafkaSettings, questions: Sequence[Asked], *, timeout: float = 10.0) -> list[Known]:
    """As `offset_of_each`, of several questions: all are asked before one is waited for."""
    admin, deadline, first = settings.admin(), time.monotonic() + timeout, True
    known: list[Known] = [({}, {}) for _ in questions]
    left = [list(asked.places) for asked in questions]
    while any(left):
        patience = max(0.1, deadline - time.monotonic())
        leaderless = admin.leaderless({place for places in left for place in places}, patience)
        pending = [
            _list_offsets(admin, asked, places, leaderless, patience)
            for asked, places in zip(questions, left, strict=True)
        ]
        for (found, refused), answers in zip(known, pending, strict=True):
            for part, future in answers.items():
                place = (part.topic, part.partition)
                try:
                    found[place] = answered(future, patience).offset
                    refused.pop(place, None)
                except KafkaException as error:
                    refused[place] = error.args[0]
        left = [[place for place, error in refused.items() if _passes(error, first)] for _, refused in known]
        if not any(left) or time.monotonic() + AGAIN_SECONDS > deadline:
            break
        first = False
        time.sleep(AGAIN_SECONDS)
    return known


def _list_offsets(
    admin: AdminClient,
    asked: Asked,
    places: Collection[Place],
    leaderless: Mapping[Place, KafkaError],
    timeout: float,
) -> Mapping[TopicPartition, Future[Any]]:
    level = IsolationLevel.READ_COMMITTED if asked.committed_only else IsolationLevel.READ_UNCOMMITTED
    return admin.list_offsets(
        {TopicPartition(*place): asked.spec for place in places},
        leaderless=leaderless,
        isolation_level=level,
        request_timeout=timeout,
    )


def _passes(error: KafkaError, first: bool) -> bool:
    """Whether a partition is worth asking for again. One that is not known may have come just now: once."""
    if error.code() in {KafkaError._UNKNOWN_PARTITION, KafkaError.UNKNOWN_TOPIC_OR_PART}:  # noqa: SLF001
        return first
    return bool(error.retriable()) or error.code() in SETTLING


def end_offsets(
    settings: KafkaSettings, topic: str, timeout: float = 10.0, *, committed_only: bool = False
) -> dict[int, int]:
    """The offset after the last record of each partition; empty for a topic that does not exist.

    Open transactions are included, unless `committed_only` asks for where a reader of committed records comes to now.
    """
    admin = settings.admin()

    def ask() -> dict[int, int]:
        metadata = admin.list_topics(topic, timeout=timeout).topics[topic]
        if metadata.error is not None or not metadata.partitions:
            return {}
        asked = Asked(LATEST, [(topic, number) for number in metadata.partitions], committed_only)
        none = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
        leaderless = {(topic, number): none for number, part in metadata.partitions.items() if part.leader < 0}
        answers = _list_offsets(admin, asked, asked.places, leaderless, timeout)
        return {part.partition: answered(future, timeout).offset for part, future in answers.items()}

    return patiently(ask, f"the end of the topic {topic} can't be found", timeout)


def watermarks(reader: Consumer, topic: str, partition: int, timeout: float = 10.0) -> tuple[int, int]:
    """The first offset that is kept and the one after the last."""
    return patiently(
        lambda: reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout),
        f"{topic}[{partition}] can't be read",
        timeout,
    )
