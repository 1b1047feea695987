"""Jobs for people: asked for, followed, and executed here when no worker is there to do it."""

from __future__ import annotations

import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.redrive.job import RedriveExecution, Surroundings
from trunkline.bus.redrive.jobs import Desired, Job, JobLog, JobRecords, JobState, RedriveOrder, Wish, partition_of
from trunkline.bus.redrive.runner import has_runner
from trunkline.bus.source.publish import Publisher
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.applied import project_of, read_applied
from trunkline.bus.worker.build import source_publisher
from trunkline.cli.output import console
from trunkline.cli.session import Session, user
from trunkline.cli.values import elapsed
from trunkline.core.errors import ConfigurationError, FatalError, TrunklineError
from trunkline.core.manifests import load_files
from trunkline.core.manifests.check import check
from trunkline.registry.client import RegistryClient

LOOK_SECONDS = 0.3
RUNNER_SECONDS = 3.0
QUIET_SECONDS = 60.0
JOB_COLUMNS = ("JOB", "PIPELINE", "STATE", "SENT", "OF", "SKIPPED", "RATE/s", "LEFT", "BY", "AGE", "REASON")
NO_WISH = Wish()


def job_row(job: Job) -> tuple[Any, ...]:
    """The cells under JOB_COLUMNS."""
    progress, left = job.progress, job.seconds_left
    return (
        job.id,
        job.pipeline,
        state_of(job),
        progress.sent,
        progress.total,
        progress.capped + progress.refused,
        progress.rate,
        elapsed(left) if left is not None else None,
        job.by,
        elapsed(time.time() - job.at),
        progress.reason,
    )


def state_of(job: Job) -> str:
    """The state with what is asked of it: `RUNNING (to be paused)` until its executor has seen it."""
    state = job.progress.state
    if job.runnable and job.wish.desired is Desired.CANCELLED:
        return f"{state} (to be cancelled)"
    if job.runnable and job.wish.desired is Desired.PAUSED:
        return f"{state} (to be paused)"
    return str(state)


def surroundings(session: Session, kafka: KafkaSettings, registry: RegistryClient) -> Surroundings:
    """What an execution in this process works with: the sources that are applied, and those of the files that are run beside it."""
    names = session.names()

    def publisher(pipeline: str) -> Publisher | None:
        project = project_of(read_applied(kafka, names))
        if pipeline not in project.sources:
            beside = session.endpoint()
            if beside is None or not beside.files:
                return None
            project = load_files([Path(file) for file in beside.files])
        check(project)
        return source_publisher(kafka, names, registry, project, pipeline, "cli")

    return Surroundings(kafka, names, registry, publisher, f"command line of {user()}")


def create(kafka: KafkaSettings, names: Names, pipeline: str, order: RedriveOrder, counted: int) -> Job:
    """Asks for a redrive; `counted` letters are meant."""
    job = Job(uuid.uuid4().hex[:12], pipeline, user(), time.time(), order)
    JobRecords(names).create(kafka, job, counted)
    return job


def find(kafka: KafkaSettings, names: Names, identity: str) -> Job:
    """A job by its id. Raises `ConfigurationError` for an unknown one."""
    return JobLog.read(kafka, names, patient=False).job(identity)


def want(session: Session, identity: str, desired: Desired, *, detach: bool = False) -> Job:
    """Says what is wanted of a job, and waits until it shows.

    Raises `ConfigurationError` (`job.ended`) where it has ended and can neither rest nor go on.
    """
    kafka, names = session.kafka(), session.names()
    ensure_topics(kafka, internal_topics(names))
    job = find(kafka, names, identity)
    if job.ended:
        if desired is not Desired.CANCELLED:
            verb = "resumed" if desired is Desired.RUNNING else "paused"
            raise ConfigurationError(
                f"the job has ended ({job.progress.state}) and can't be {verb}",
                where=f"job {identity}",
                hint=f"what still waits goes with another one: `trunkline dlq redrive {job.pipeline}`",
                code="job.ended",
            )
        session.out.note(f"{identity} ended already: {job.progress.state}")
        return job
    wish = JobRecords(names).wish(kafka, job, desired, user())
    if detach:
        return find(kafka, names, identity)
    with session.registry(kafka) as registry:
        return attend(session, surroundings(session, kafka, registry), job, wish)


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
        for message in self._reader.consume(200, LOOK_SECONDS):
            if message.error() is None:
                self._log.take(message)
        return self.job

    @property
    def job(self) -> Job:
        """The job when it was last looked at."""
        return self._log.jobs.get(self._job.id, self._job)

    def close(self) -> None:
        """Ends the reader."""
        self._reader.close()


def attend(session: Session, around: Surroundings, job: Job, wish: Wish = NO_WISH) -> Job:
    """Follows a job until it rests as `wish` wants, and executes it here while there is no worker that does.

    Ctrl-C cancels what is executed here; of what a worker executes
    it ends the following alone. Raises `FatalError` where the job failed.
    """
    follower = _Follower(around.settings, around.names, job)
    here: _Here | None = None
    looked, moved, cancelled = 0.0, time.monotonic(), False
    with _interrupts() as interrupted, _bar(session) as show:
        try:
            while True:
                before, now = follower.job, follower.look()
                show(now)
                moved = time.monotonic() if now != before else moved
                if here is not None and not here.thread.is_alive():
                    _judge(here)
                    here = None
                if here is None and not now.runnable and now.wish.at >= wish.at:
                    break
                if interrupted.is_set() and here is None:
                    session.out.note(
                        f"{job.id} goes on without being followed; `trunkline job cancel {job.id}` ends it"
                    )
                    break
                if interrupted.is_set() and not cancelled:
                    cancelled = True
                    JobRecords(around.names).wish(around.settings, now, Desired.CANCELLED, user())
                if here is None and time.monotonic() - looked > RUNNER_SECONDS:
                    looked = time.monotonic()
                    if not has_runner(around.settings, around.names):
                        here = _execute(around, follower, now)
                    elif looked - moved > QUIET_SECONDS:
                        moved = looked
                        session.out.note(
                            f"{job.id}: nothing happens for {QUIET_SECONDS:g} s; see the logs of the workers"
                        )
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
    return now


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


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    interrupted = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signals come to the main thread alone
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(session: Session) -> Iterator[Any]:
    screen = console(sys.stderr)
    if not screen.is_terminal or not session.out.for_people:
        yield lambda _job: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("Sending again", total=None)
        yield lambda job: bar.update(task, completed=job.progress.sent, total=job.progress.total)
