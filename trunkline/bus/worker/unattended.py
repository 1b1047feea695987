"""Changing where a pipeline goes on while no worker runs it: its offsets, or the positions of a source's splits."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaException, Producer, TopicPartition

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import Effect, Latest, Write, carry_out
from trunkline.bus.kafka import BoundedCalls, KafkaSettings, answered, closing, patiently, transactional_producer
from trunkline.bus.names import Names
from trunkline.bus.worker.wishes import restart
from trunkline.core.errors import ConfigurationError

TIMEOUT = 8.0
"""For each step of a transaction that the broker ends after ten seconds."""


def change_unattended(
    settings: KafkaSettings,
    names: Names,
    pipeline: str,
    action: str,
    *,
    by: str,
    details: Mapping[str, Any],
    still: Callable[[], None],
    offsets: Sequence[TopicPartition] = (),
    records: Sequence[Write] = (),
    fenced: Sequence[str] = (),
) -> None:
    """Commits `offsets` for a pipeline's group and writes `records`, with the audit entry and a restart, or none of it.

    `still` raises where what the change was worked out from is no longer so. `fenced` are transactional ids whose holders may write no
    more: those of workers that Kafka has given up and that live on. Raises `ConfigurationError` (`offsets.in_use`) while a worker
    runs the pipeline, and as `carry_out`.
    """
    group, what = names.group(pipeline), f"where {pipeline} goes on can't be changed"

    def within(producer: Producer) -> None:
        if offsets:
            with closing(settings.reader(group=group)) as stranger, BoundedCalls(f"offsets-{pipeline}-set") as calls:
                send, member = producer.send_offsets_to_transaction, stranger.consumer_group_metadata()
                calls(send, list(offsets), member, TIMEOUT, seconds=TIMEOUT)
        producer.flush(TIMEOUT)
        # I32: the group is looked at while the change is pending. Who joins from now on waits for its end before it knows where to
        # begin; who joined before is seen.
        refuse_attended(settings, names, pipeline)

    def decide(latest: Latest) -> Effect[None]:
        still()
        entry = Entry(time.time(), by, action, pipeline, dict(details))
        return Effect(None, [*records, *restart(latest, names, pipeline, by)], [entry], within)

    refuse_attended(settings, names, pipeline)
    for transactional_id in fenced:
        transactional_producer(settings, transactional_id, what)
    carry_out(settings, names, names.control, decide, by=by, what=what)


def refuse_attended(settings: KafkaSettings, names: Names, pipeline: str) -> None:
    """Raises `ConfigurationError` (`offsets.in_use`) while a worker runs the pipeline. Of one that was killed Kafka hears after a while."""
    if patiently(
        lambda: _members(settings, names.group(pipeline)), f"the workers of {pipeline} can't be asked for", TIMEOUT
    ):
        raise ConfigurationError(
            f"{pipeline} is running",
            hint=f"run `trunkline stop {pipeline}` first; a worker that was killed counts until its session ends",
            code="offsets.in_use",
        )


def _members(settings: KafkaSettings, group: str) -> int:
    admin = settings.admin()
    try:
        described = answered(admin.describe_consumer_groups([group], request_timeout=TIMEOUT)[group], TIMEOUT)
    except KafkaException as error:
        if error.args[0].name() == "GROUP_ID_NOT_FOUND":
            return 0
        raise
    return len(described.members) if described.state is not ConsumerGroupState.DEAD else 0
