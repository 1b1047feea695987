"""Questions to the cluster: whether it answers, and where its topics begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin._listoffsets import OffsetSpec

from trunkline.bus.kafka.errors import SETTLING, translate
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.core.errors import UnavailableError

T = TypeVar("T")
LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


def ping(settings: KafkaSettings, timeout: float = 10.0) -> None:
    """Raises `UnavailableError` (`kafka.unreachable`) when no broker answers within `timeout` seconds."""
    try:
        settings.admin().list_topics(timeout=timeout)
    except KafkaException as error:
        raise UnavailableError(
            f"no Kafka broker answers at {settings.bootstrap}: {error.args[0].str()}",
            hint="check the address, or leave out --bootstrap to run the embedded broker",
            code="kafka.unreachable",
        ) from error


def patiently(ask: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """The answer to a question to the cluster, asked again for `timeout` seconds while the refusal is one that passes.

    A topic that was just created, or a broker that just came back, has no leader for a moment. Raises our error for Kafka's.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask()
        except KafkaException as error:
            cause = error.args[0]
            if not (cause.retriable() or cause.code() in SETTLING) or time.monotonic() > deadline:
                raise translate(error, what) from error
            time.sleep(0.05)


def end_offsets(
    settings: KafkaSettings, topic: str, timeout: float = 10.0, *, committed_only: bool = False
) -> dict[int, int]:
    """The offset after the last record of each partition; empty for a topic that does not exist.

    Open transactions are included, unless `committed_only` asks for where a reader of committed records comes to now.
    """
    admin = settings.admin()
    level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED

    def ask() -> dict[int, int]:
        metadata = admin.list_topics(topic, timeout=timeout).topics[topic]
        if metadata.error is not None or not metadata.partitions:
            return {}
        asked = {TopicPartition(topic, partition): LATEST for partition in metadata.partitions}
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=timeout)
        return {part.partition: future.result(timeout).offset for part, future in answers.items()}

    return patiently(ask, f"the end of the topic {topic} can't be found", timeout)


def watermarks(reader: Consumer, topic: str, partition: int, timeout: float = 10.0) -> tuple[int, int]:
    """The first offset that is kept and the one after the last."""
    return patiently(
        lambda: reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout),
        f"{topic}[{partition}] can't be read",
        timeout,
    )
