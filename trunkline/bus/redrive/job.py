"""Executing a redrive that was asked for as a job: the same code in a worker and in the command line.

Whoever executes it may be killed at any step. The next one fences him, reads what was sent, and plans what is left anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from confluent_kafka import Producer

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.redrive.edits import Edit, Editor
from trunkline.bus.redrive.jobs import Desired, Job, JobRecords, JobState, Progress, RedriveOrder, Wish
from trunkline.bus.redrive.letters import compile_filter
from trunkline.bus.redrive.marks import Marks
from trunkline.bus.redrive.plan import LetterReader, Plan, make_plan
from trunkline.bus.redrive.resend import SourceWay, Way
from trunkline.bus.redrive.transactions import BATCH, Sender, retry_way
from trunkline.bus.source.publish import Publisher
from trunkline.core.errors import ConfigurationError, FatalError, TrunklineError
from trunkline.core.subjects import Subjects
from trunkline.registry.client import RegistryClient
from trunkline.registry.decoders import Decoders, SubjectsOf

LOOK_SECONDS = 0.2
"""How often somebody who waits for the rate looks for a pause or a cancellation."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an executor works with.

    `publisher` gives that of a source, None where the pipeline is no source that is known here. `attended` says whether anybody runs a
    pipeline, or will: letters of another one would wait in its retry topic for ever.
    """

    settings: KafkaSettings
    names: Names
    registry: RegistryClient
    publisher: Callable[[str], Publisher | None]
    executor: str
    attended: Callable[[str], bool] = lambda _pipeline: True
    subjects_of: SubjectsOf = Subjects
    """The subjects that the values of a topic may be of, as the applied manifests say."""


def way_of(around: Surroundings, pipeline: str, order: RedriveOrder) -> Way:
    """How the letters of a pipeline go again. Raises `ConfigurationError` where they can't."""
    edit = Edit(**order.edit) if order.edit is not None else None
    publisher = around.publisher(pipeline)
    if publisher is not None:
        return SourceWay(publisher, edit or Edit())
    if not around.attended(pipeline):
        raise ConfigurationError(
            f"nobody runs {pipeline}: it is not applied, and no worker has told of it lately",
            where=pipeline,
            hint="apply its manifest first; letters that were sent again would wait in its retry topic for ever",
            code="redrive.unattended",
        )
    return retry_way(
        around.settings,
        around.names,
        pipeline,
        Editor(around.registry, edit, around.subjects_of) if edit is not None else None,
    )


def plan_of(
    around: Surroundings, pipeline: str, order: RedriveOrder, way: Way, marks: Marks | None = None, *, sent: int = 0
) -> Plan:
    """The letters that are to be sent now. Raises `ConfigurationError` for a wrong filter and a refused edit."""
    matches = (
        compile_filter(order.where, Decoders(around.registry, around.subjects_of)) if order.where is not None else None
    )
    marks = marks or Marks.read(around.settings, around.names, pipeline)
    topic = around.names.dead_letters(pipeline)
    return make_plan(around.settings, topic, order, marks, way, matches=matches, sent=sent)


class RedriveExecution:
    """One run of one job, until it ends, is paused, or this executor has to leave it. Blocks; belongs in a thread.

    `wish` gives what people want of the job now; `leaving` whether this executor must go.
    """

    def __init__(
        self, around: Surroundings, job: Job, *, wish: Callable[[], Wish], leaving: Callable[[], bool] = lambda: False
    ) -> None:
        self._around = around
        self._pipeline = job.pipeline
        self._identity = job.id
        self._wish = wish
        self._leaving = leaving
        self._records = JobRecords(around.names)
        self._sender = Sender(around.settings, around.names, job.pipeline)
        self._job = job
        self._progress = job.progress

    def run(self) -> Progress:
        """Goes on from where the job is, and gives where it is now.

        Raises `RetriableError` and `UnavailableError` when Kafka or the registry is away, or another executor took over. What a
        person must mend is noted in the progress: the job has FAILED, and goes on when somebody resumes it.
        """
        publisher = self._around.publisher(self._pipeline)
        if publisher is not None:
            settings = self._around.settings.fitting(publisher.limits.values())
            self._sender = Sender(settings, self._around.names, self._pipeline)
        self._job = self._sender.open().job(self._identity)
        self._progress = self._job.progress
        if not self._job.runnable:
            return self._progress
        try:
            self._send_all()
        except (ConfigurationError, FatalError) as error:
            self._fail(error)
        return self._progress

    def _send_all(self) -> None:
        if self._asked_to_rest():
            return
        order = self._job.order
        if order.letters not in {"", self._sender.letters}:
            raise ConfigurationError(
                f"the letters that it was asked for are gone: {self._around.names.dead_letters(self._pipeline)} was deleted and made"
                f" anew (its id was {order.letters}, it is {self._sender.letters} now)",
                hint=f"cancel it; `trunkline dlq redrive {self._pipeline}` sends those that are there now",
                code="topic.made_anew",
            )
        way = way_of(self._around, self._pipeline, order)
        plan = plan_of(self._around, self._pipeline, order, way, sent=self._progress.sent)
        counted: dict[str, Any] = {
            "total": self._progress.sent + plan.total,
            "capped": plan.capped,
            "refused": plan.refused,
        }
        started = self._progress.started_at or time.time()
        self._note(JobState.RUNNING, started_at=started, executor=self._around.executor, **counted)
        size = BATCH if order.rate is None else max(1, min(BATCH, int(order.rate / 2)))
        reader = LetterReader(self._around.settings, self._around.names.dead_letters(self._pipeline))
        begun, before = time.monotonic(), self._progress.sent
        try:
            for partition, offsets in plan.chunks(size):
                if self._leaving() or self._asked_to_rest():
                    return
                sent = self._send(way, reader, partition, offsets, begun, before)
                if not self._wait_until(begun + sent / order.rate if order.rate is not None else begun):
                    return
        finally:
            reader.close()
        self._note(JobState.DONE, audited="redrive.done", rate=None)

    def _send(
        self, way: Way, reader: LetterReader, partition: int, offsets: list[int], begun: float, before: int
    ) -> int:
        """One transaction. Returns how many were sent in this run."""
        letters = [(letter, way.records(letter, self._identity)) for letter in reader.fetch(partition, offsets)]
        sent = self._progress.sent + len(letters)
        seconds = max(time.monotonic() - begun, 0.001)
        rate = (
            (sent - before) / seconds
            if self._job.order.rate is None
            else min(self._job.order.rate, (sent - before) / seconds)
        )
        progress = replace(self._progress, sent=sent, at=time.time(), rate=rate)

        def beside(producer: Producer) -> None:
            # I19: what a job sent and how far it is are one transaction.
            self._records.write_progress(producer, self._job, progress)

        ends = {int(number): end for number, end in self._job.order.ends.items()}
        self._sender.send(letters, run=self._identity, by=self._job.by, ends=ends, beside=beside)
        self._progress = progress
        return sent - before

    def _wait_until(self, moment: float) -> bool:
        """Waits for the rate. False when this executor has to leave."""
        while (left := moment - time.monotonic()) > 0:
            if self._leaving():
                return False
            if self._wish().desired is not Desired.RUNNING:
                break
            time.sleep(min(left, LOOK_SECONDS))
        return True

    def _asked_to_rest(self) -> bool:
        """Whether somebody paused or cancelled the job: then that is noted."""
        desired = self._wish().desired
        if desired is Desired.CANCELLED:
            self._note(JobState.CANCELLED, audited="redrive.cancelled", rate=None)
        elif desired is Desired.PAUSED:
            self._note(JobState.PAUSED, rate=None)
        return desired is not Desired.RUNNING

    def _fail(self, error: TrunklineError) -> None:
        self._note(
            JobState.FAILED,
            audited="redrive.failed",
            code=error.code,
            reason=error.message,
            hint=error.hint,
            rate=None,
        )

    def _note(self, state: JobState, *, audited: str | None = None, **values: Any) -> None:
        """Writes how the job stands, with the end of it also in the audit trail."""
        cleared: dict[str, Any] = {"code": None, "reason": None, "hint": None}
        progress = replace(self._progress, **{"state": state, "at": time.time(), **cleared, **values})

        def beside(producer: Producer) -> None:
            self._records.write_progress(producer, self._job, progress)

        details = {"job": self._identity, "sent": progress.sent, "executor": self._around.executor}
        entry = Entry(time.time(), self._job.by, audited, self._pipeline, details) if audited is not None else None
        self._sender.send([], run=self._identity, by=self._job.by, beside=beside, entry=entry)
        self._progress = progress
