"""Looking at a pipeline's offsets, and changing them while it is stopped: each change begins a new epoch of its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition

from trunkline.bus.accounting.commits import committed
from trunkline.bus.intake import Partition
from trunkline.bus.kafka import EARLIEST, LATEST, KafkaSettings, offsets_of, translate
from trunkline.bus.ledger import Ledger
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_identities
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.reported import reported_offsets
from trunkline.core.errors import ConfigurationError

TIMEOUT = 15.0


def saved_positions(reports: list[Report]) -> dict[str, dict[Partition, int]]:
    """The second copy of every pipeline's offsets, from what workers reported: Kafka forgets those of an idle group."""
    return {
        pipeline: {place: list(known.values())[-1].offset for place, known in copy.items()}
        for pipeline, copy in reported_offsets(reports).items()
    }


def wanted_offsets(
    settings: KafkaSettings, partitions: list[Partition], to: str | datetime, saved: Mapping[Partition, int]
) -> dict[Partition, int]:
    """The offsets that `to` means: `earliest`, `latest`, `saved` (the second copy) or a time."""
    if to == "saved":
        if not saved:
            raise ConfigurationError(
                "no worker has reported offsets of it", hint="choose earliest, latest or a time", code="offsets.none"
            )
        return dict(saved)
    if isinstance(to, datetime):
        return _at(settings, partitions, to)
    spec = EARLIEST if to == "earliest" else LATEST
    return offsets_of(settings, partitions, [spec], "the offsets can't be asked for", TIMEOUT)[0]


def set_offsets(settings: KafkaSettings, names: Names, pipeline: str, offsets: Mapping[Partition, int]) -> None:
    """Commits these offsets for a pipeline. Raises `ConfigurationError` (`offsets.in_use`) while a worker runs it."""
    before = committed(settings, names, pipeline)
    identities = topic_identities(settings, {topic for topic, _ in offsets})
    group = names.group(pipeline)
    parts = []
    for partition, offset in offsets.items():
        epoch = before[partition][1].epoch + 1 if partition in before else 1
        ledger = Ledger(first=offset, epoch=epoch, topic_id=identities[partition[0]].id)
        parts.append(TopicPartition(*partition, offset, ledger.to_metadata()))
    # The client is kept until its answer came: with it the request would go.
    admin = settings.admin()
    try:
        change = ConsumerGroupTopicPartitions(group, parts)
        future = admin.alter_consumer_group_offsets([change], request_timeout=TIMEOUT)[group]
        for part in future.result(TIMEOUT).topic_partitions:
            if part.error is not None:
                raise KafkaException(part.error)
    except KafkaException as error:
        if error.args[0].name() in {"UNKNOWN_MEMBER_ID", "NON_EMPTY_GROUP", "GROUP_SUBSCRIBED_TO_TOPIC"}:
            raise ConfigurationError(
                f"{pipeline} is running", hint=f"run `trunkline stop {pipeline}` first", code="offsets.in_use"
            ) from error
        raise translate(error, f"the offsets of {pipeline} can't be changed") from error


def _at(settings: KafkaSettings, partitions: list[Partition], moment: datetime) -> dict[Partition, int]:
    reader = settings.reader()
    try:
        asked = [TopicPartition(*partition, int(moment.timestamp() * 1000)) for partition in partitions]
        found = reader.offsets_for_times(asked, timeout=TIMEOUT)
        ends = {
            partition: reader.get_watermark_offsets(TopicPartition(*partition), timeout=TIMEOUT)[1]
            for partition in partitions
        }
    except KafkaException as error:
        raise translate(error, "the offsets of a time can't be found") from error
    finally:
        reader.close()
    return {
        (part.topic, part.partition): part.offset if part.offset >= 0 else ends[part.topic, part.partition]
        for part in found
    }
