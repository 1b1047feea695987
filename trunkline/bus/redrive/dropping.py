"""Dropping dead letters: somebody decides that they are not sent again.

They stay in their topic, byte for byte. In one transaction they are marked as settled, so that they wait no longer, counted as dropped,
and the audit trail has who decided so and why.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.redrive.jobs import Job, JobLog, RedriveOrder
from trunkline.bus.redrive.letters import LetterFilter
from trunkline.bus.redrive.marks import Marks, Settled
from trunkline.bus.redrive.plan import LetterReader, Plan, make_plan
from trunkline.bus.redrive.transactions import BATCH, Sender
from trunkline.core.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class DropOrder:
    """Which letters are dropped, why, and who says so. `matches` makes the filter anew for each time that the letters are chosen."""

    letters: RedriveOrder
    reason: str
    by: str
    matches: Callable[[], LetterFilter | None]


def chosen(settings: KafkaSettings, names: Names, pipeline: str, order: DropOrder) -> Plan:
    """The letters that are meant: those that wait now. Raises our error for Kafka's."""
    topic, marks = names.dead_letters(pipeline), Marks.read(settings, names, pipeline)
    return make_plan(settings, topic, order.letters, marks, None, matches=order.matches())


def refuse_redriven(jobs: JobLog, pipeline: str) -> None:
    """Raises `ConfigurationError` (`dlq.redriving`) while a job sends letters of this pipeline: nobody could say what became of one."""
    running: Job | None = next((job for job in jobs.of([pipeline]) if job.runnable), None)
    if running is not None:
        raise ConfigurationError(
            f"dead letters of {pipeline} are being sent again by the job {running.id}",
            where=pipeline,
            hint=f"let it end, or run `trunkline job cancel {running.id}`",
            code="dlq.redriving",
        )


def drop(settings: KafkaSettings, names: Names, pipeline: str, order: DropOrder) -> int:
    """Drops the letters that are meant, and gives how many those were. Whoever sends letters of this pipeline is fenced.

    Raises `ConfigurationError` while a job sends them, and where their topic was made anew; our error for Kafka's. What was dropped until
    then is dropped, and begun again it goes on with the others.
    """
    sender = Sender(settings, names, pipeline)
    refuse_redriven(sender.open(), pipeline)
    topic = names.dead_letters(pipeline)
    if order.letters.letters != sender.letters:
        raise ConfigurationError(
            f"{topic} was deleted and made anew since the letters were counted",
            where=pipeline,
            hint="nothing was dropped; ask again",
            code="topic.made_anew",
        )
    plan = chosen(settings, names, pipeline, order)
    ends = {int(number): end for number, end in order.letters.ends.items()}
    settled = Settled(uuid.uuid4().hex[:12], order.by, time.time(), order.reason)
    dropped, reader = 0, LetterReader(settings, topic)
    try:
        for partition, offsets in plan.chunks(BATCH):
            details = {
                "drop": settled.run,
                "letters": len(offsets),
                "partition": partition,
                "first": min(offsets),
                "last": max(offsets),
                "filter": order.letters.where,
                "reason": order.reason,
            }
            entry = Entry(time.time(), order.by, "dlq.drop", pipeline, details)
            sender.drop(reader.fetch(partition, offsets), settled, ends=ends, entry=entry)
            dropped += len(offsets)
    finally:
        reader.close()
    return dropped
