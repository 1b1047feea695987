"""Sending dead letters again: counted, asked for as a job, followed, and executed here when no worker is there to do it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from trunkline.bus.kafka import KafkaSettings, end_offsets, records_of
from trunkline.bus.names import Names
from trunkline.bus.redrive.job import RedriveExecution, Surroundings, plan_of, way_of
from trunkline.bus.redrive.jobs import Desired, Job, JobLog, JobRecords, JobState, RedriveOrder, Wish, partition_of
from trunkline.bus.redrive.marks import id_of_letters
from trunkline.bus.redrive.plan import Plan
from trunkline.bus.redrive.runner import has_runner
from trunkline.bus.source.publish import Publisher
from trunkline.bus.worker.applied import gather_applied, read_applied
from trunkline.bus.worker.attended import attended
from trunkline.bus.worker.building.sources import source_publisher
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.control.deadletters import at_place
from trunkline.control.filters import check_letter_filter, raise_unjudged
from trunkline.core.errors import CheckFailedError, ConfigurationError, FatalError, TrunklineError
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.load import gather_files

LOOK_SECONDS = 0.3
RUNNER_SECONDS = 3.0
QUIET_SECONDS = 60.0
NO_WISH = Wish()


@contextmanager
def surroundings(
    cluster: Cluster, *, executor: str, worker: str, unapplied: Callable[[], Sequence[Path]] = tuple
) -> Iterator[Surroundings]:
    """What an execution in this process works with, as long as the context lasts.

    `executor` is what the job and the audit trail call it, `worker` what the trace does. The sources that it knows are
    those that are applied, and those of the manifest files that `unapplied` gives.
    """
    kafka, names = cluster.kafka, cluster.names
    with cluster.registry() as registry:

        def publisher(pipeline: str) -> Publisher | None:
            found = examine(gather_applied(read_applied(kafka, names)))
            found.require(pipeline)
            if pipeline not in found.project.sources:
                files = unapplied()
                if not files:
                    return None
                found = examine(gather_files(files))
                found.require(pipeline)
            return source_publisher(kafka, names, registry, found.project, pipeline, worker)

        def runs(pipeline: str) -> bool:
            return attended(pipelines.applied(cluster), cluster.board.reports(), pipeline)

        yield Surroundings(kafka, names, registry, publisher, executor, runs, cluster.subjects_of)


def order_of(
    cluster: Cluster,
    pipeline: str,
    places: Sequence[str] = (),
    *,
    where: str | None,
    limit: int | None,
    rate: float | None,
    cap: int,
    edit: dict[str, Any] | None,
) -> RedriveOrder:
    """What is asked of a redrive, over the letters that are there now. Raises `ConfigurationError` for places without a letter."""
    pipelines.known(cluster, pipeline)
    for place in places:
        at_place(cluster, pipeline, place)
    ends = end_offsets(cluster.kafka, cluster.names.dead_letters(pipeline))
    scope = {str(partition): end for partition, end in ends.items()}
    letters = id_of_letters(cluster.kafka, cluster.names, pipeline)
    return RedriveOrder(where, tuple(places), limit, rate, cap, edit, scope, letters)


def counted(cluster: Cluster, around: Surroundings, pipeline: str, order: RedriveOrder) -> Plan:
    """The letters that a redrive would send. Raises `ConfigurationError` for a wrong filter and a refused edit."""
    if order.where is not None:
        check_letter_filter(cluster, around.registry, pipeline, order.where, "--filter")
    return plan_of(around, pipeline, order, way_of(around, pipeline, order))


def judge(plan: Plan, job: Job | None) -> None:
    """Raises `CheckFailedError` where nothing of what was asked was sent and could be, or the job ended before everything was."""
    if job is not None and job.progress.state in {JobState.CANCELLED, JobState.PAUSED}:
        raise CheckFailedError(
            f"the job is {job.progress.state}: {job.progress.sent} of {job.progress.total or plan.total} letters were sent",
            where=f"job {job.id}",
            hint=f"`trunkline job resume {job.id}` goes on"
            if not job.ended
            else "what still waits goes with another redrive",
            code="redrive.incomplete",
        )
    if plan.total:
        return
    if plan.refused:
        raise CheckFailedError(
            f"none of the letters can be sent: {plan.refused} were refused, the first of them {plan.refusals[0]}",
            hint="mend the manifest or the schema, or the letters with --edit or --set",
            code="redrive.refused",
        )
    if plan.capped:
        raise CheckFailedError(
            f"none of the letters can be sent: {plan.capped} were sent again too often before",
            hint="look at them first; then --cap raises how often that may be",
            code="redrive.capped",
        )
    raise_unjudged(plan.total, plan.unjudged, plan.first_unjudged, "--filter")


def create(cluster: Cluster, pipeline: str, order: RedriveOrder, counted: int) -> Job:
    """Asks for a redrive; `counted` letters are meant."""
    job = Job(uuid.uuid4().hex[:12], pipeline, cluster.actor, time.time(), order)
    JobRecords(cluster.names).create(cluster.kafka, job, counted)
    return job


def jobs(cluster: Cluster, pipeline: str | None = None) -> list[Job]:
    """The jobs of one pipeline or of all, the oldest first. Raises `ConfigurationError` for a pipeline that neither is nor has any."""
    found = _log(cluster).of(None if pipeline is None else [pipeline])
    if pipeline is not None and not found:
        pipelines.known(cluster, pipeline)
    return found


def find(cluster: Cluster, identity: str) -> Job:
    """A job by its id. Raises `ConfigurationError` for an unknown one."""
    return _log(cluster).job(identity)


def _log(cluster: Cluster) -> JobLog:
    return JobLog.read(cluster.kafka, cluster.names, patient=False)


def want(cluster: Cluster, job: Job, desired: Desired) -> Wish | None:
    """Says what is wanted of a job; None where it ended already, so that a cancellation has nothing to do.

    Raises `ConfigurationError` (`job.ended`) where it has ended and can neither rest nor go on.
    """
    if not job.ended:
        return JobRecords(cluster.names).wish(cluster.kafka, job, desired, cluster.actor)
    if desired is not Desired.CANCELLED:
        verb = "resumed" if desired is Desired.RUNNING else "paused"
        raise ConfigurationError(
            f"the job has ended ({job.progress.state}) and can't be {verb}",
            where=f"job {job.id}",
            hint=f"what still waits goes with another one: `trunkline dlq redrive {job.pipeline}`",
            code="job.ended",
        )
    return None


@dataclass(slots=True)
class _Here:
    """An execution in this process."""

    thread: threading.Thread
    leave: threading.Event
    error: BaseException | None = None


class _Follower:
    """Reads on in the jobs of one partition."""

    def __init__(self, kafka: KafkaSettings, names: Names, job: Job) -> None:
        self._job = job
        self._log = JobLog()
        self._reader = kafka.reader()
        self._reader.assign([TopicPartition(names.jobs, partition_of(job.pipeline), OFFSET_BEGINNING)])

    def look(self) -> Job:
        """The job now."""
        for message in records_of(self._reader.consume(200, LOOK_SECONDS), "the jobs can't be read"):
            self._log.take(message)
        return self.job

    @property
    def job(self) -> Job:
        """The job when it was last looked at."""
        return self._log.jobs.get(self._job.id, self._job)

    def close(self) -> None:
        """Ends the reader."""
        self._reader.close()


class Happening(StrEnum):
    """What an event of a followed job says."""

    SEEN = "seen"
    """How it is now: several times a second, until it rests."""
    QUIET = "quiet"
    """Nothing moved for QUIET_SECONDS, although there is a worker."""
    LEFT = "left"
    """It goes on without being followed any more."""


@dataclass(frozen=True, slots=True)
class JobEvent:
    """What happened to a followed job."""

    job: Job
    happening: Happening = Happening.SEEN


def follow(
    cluster: Cluster, around: Surroundings, job: Job, interrupted: threading.Event, wish: Wish = NO_WISH
) -> Generator[JobEvent]:
    """Follows a job until it rests as `wish` wants, and executes it in this process while there is no worker that does.

    Setting `interrupted` cancels what is executed here; of what a worker executes it ends the following alone. Closing the iterator
    leaves the job where it is. Raises `FatalError` where the job failed.
    """
    follower = _Follower(around.settings, around.names, job)
    here: _Here | None = None
    looked, moved, cancelled = 0.0, time.monotonic(), False
    try:
        while True:
            before, now = follower.job, follower.look()
            yield JobEvent(now)
            moved = time.monotonic() if now != before else moved
            if here is not None and not here.thread.is_alive():
                _judge(here)
                here = None
                continue  # what it noted at its end may be newer than what was looked at
            if here is None and not now.runnable and now.wish.at >= wish.at:
                break
            if interrupted.is_set() and here is None:
                yield JobEvent(now, Happening.LEFT)
                break
            if interrupted.is_set() and not cancelled:
                cancelled = True
                JobRecords(around.names).wish(around.settings, now, Desired.CANCELLED, cluster.actor)
            # What was asked for may be seen a moment after it was written: who began before would do what was just taken back.
            seen = now.wish.at >= wish.at
            if here is None and seen and time.monotonic() - looked > RUNNER_SECONDS:
                looked = time.monotonic()
                if not has_runner(around.settings, around.names):
                    here = _execute(around, follower, now)
                elif looked - moved > QUIET_SECONDS:
                    moved = looked
                    yield JobEvent(now, Happening.QUIET)
    finally:
        if here is not None:
            here.leave.set()
            here.thread.join()
        follower.close()
    if now.progress.state is JobState.FAILED:
        progress = now.progress
        raise FatalError(
            progress.reason or "it failed",
            where=f"job {job.id}",
            hint=f"{progress.hint or 'mend the cause'}; then `trunkline job resume {job.id}`",
            code=progress.code or "job.failed",
        )


def _execute(around: Surroundings, follower: _Follower, job: Job) -> _Here:
    leave = threading.Event()

    def run() -> None:
        try:
            RedriveExecution(around, job, wish=lambda: follower.job.wish, leaving=leave.is_set).run()
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            here.error = error

    here = _Here(threading.Thread(target=run, name=f"job-{job.id}", daemon=True), leave)
    here.thread.start()
    return here


def _judge(here: _Here) -> None:
    """Another executor that took over is followed; any other trouble is said."""
    if here.error is not None and not (isinstance(here.error, TrunklineError) and here.error.code == "kafka.fenced"):
        raise here.error
