"""An administrator's client that asks for offsets without ending the process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, Final

import confluent_kafka.admin
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition

from trunkline.kafkaclient.answers import answered

Place = tuple[str, int]
"""Topic and partition number."""
_SECONDS: Final = 60.0
"""How long a question takes that names no time-out of its own: the client's default for all requests."""


class AdminClient(confluent_kafka.admin.AdminClient):  # noqa: TID251 (the one place)
    """An administrator's client that asks for the offsets of those partitions only whose leaders it knows.

    Of the others librdkafka (2.16) looks for the leaders on the calling thread, while its own thread does the same with each answer
    about any topic, and frees what the first still uses: `rd_kafka_topic_partition_list_query_leaders_async` in
    `rdkafka_partition.c` gives it to both. On a busy machine that is a segmentation fault, in the first questions of a new client
    above all. So the leaders are asked for before, which librdkafka keeps in mind.
    """

    def leaderless(self, places: Iterable[Place], timeout: float) -> dict[Place, KafkaError]:
        """Learns which brokers lead these partitions, and tells why those can't be asked for offsets that have no leader.

        One question, however many topics there are; waits for its answer, for about `timeout` seconds at the most. Raises nothing of
        Kafka's.
        """
        wanted: dict[str, list[int]] = {}
        for topic, number in places:
            wanted.setdefault(topic, []).append(number)
        if not wanted:
            return {}
        found: dict[Place, KafkaError] = {}
        for topic, future in self.describe_topics(TopicCollection(sorted(wanted)), request_timeout=timeout).items():
            try:
                parts = {part.id: part.leader for part in answered(future, timeout).partitions}
            except KafkaException as error:
                found |= {(topic, number): error.args[0] for number in wanted[topic]}
                continue
            for number in wanted[topic]:
                if number not in parts:
                    found[topic, number] = KafkaError(KafkaError._UNKNOWN_PARTITION)  # noqa: SLF001 (it has no other name)
                elif parts[number] is None or parts[number].id < 0:
                    found[topic, number] = KafkaError(KafkaError.LEADER_NOT_AVAILABLE)
        return found

    def list_offsets(  # type: ignore[override]  # as the client's own, of the class that it inherits from
        self,
        topic_partition_offsets: Mapping[TopicPartition, Any],
        *,
        leaderless: Mapping[Place, KafkaError] | None = None,
        **options: Any,
    ) -> dict[TopicPartition, Future[Any]]:
        """As the client's, once the leaders are known; `leaderless` is what the method told of these partitions a moment ago.

        The answer for a partition that has no leader is the reason.
        """
        if leaderless is None:
            leaderless = self._leaderless(topic_partition_offsets, options)
        answers = _refused(topic_partition_offsets, leaderless)
        asked = {part: spec for part, spec in topic_partition_offsets.items() if part not in answers}
        return answers | (super().list_offsets(asked, **options) if asked else {})

    def delete_records(  # type: ignore[override]
        self, topic_partition_offsets: list[TopicPartition], **options: Any
    ) -> dict[TopicPartition, Future[Any]]:
        """As the client's, once the leaders are known. The answer for a partition that has no leader is the reason."""
        answers = _refused(topic_partition_offsets, self._leaderless(topic_partition_offsets, options))
        asked = [part for part in topic_partition_offsets if part not in answers]
        return answers | (super().delete_records(asked, **options) if asked else {})

    def _leaderless(self, parts: Iterable[TopicPartition], options: Mapping[str, Any]) -> dict[Place, KafkaError]:
        return self.leaderless(
            [(part.topic, part.partition) for part in parts], float(options.get("request_timeout", _SECONDS))
        )


def _refused(
    parts: Iterable[TopicPartition], leaderless: Mapping[Place, KafkaError]
) -> dict[TopicPartition, Future[Any]]:
    """The answers for those that can't be asked."""
    found: dict[TopicPartition, Future[Any]] = {}
    for part in parts:
        if error := leaderless.get((part.topic, part.partition)):
            found[part] = Future()
            found[part].set_exception(KafkaException(error))
    return found
