"""The jobs of a worker: those in the partitions of the jobs topic that its membership in their group brings it.

One job of a pipeline runs at a time, in the order in which they were asked for; jobs of different pipelines run side by side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import OFFSET_BEGINNING, Consumer, ConsumerGroupState, KafkaException, TopicPartition

from trunkline.bus.kafka import KafkaSettings, answered, read_all, records_of, translate
from trunkline.bus.names import Names
from trunkline.bus.redrive.job import RedriveExecution, Surroundings
from trunkline.bus.redrive.jobs import KEPT_SECONDS, Job, JobLog, JobRecords, JobState, Wish, partition_of
from trunkline.bus.states import reconnect_delay
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
POLL_SECONDS = 0.3
LEAVE_SECONDS = 15.0
SWEEP_SECONDS = 3600.0
AGAIN_SECONDS = 1.0


@dataclass(slots=True)
class _Run:
    job: str
    partition: int
    thread: threading.Thread | None = None
    leave: threading.Event = field(default_factory=threading.Event)


class JobRunner:
    """Runs jobs until it is stopped, in threads of its own."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._log = JobLog()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)
        self._owned: set[int] = set()
        self._unread: set[int] = set()
        self._runs: dict[str, _Run] = {}
        self._failures: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._reached: dict[str, float] = {}
        self._swept = 0.0

    def start(self) -> None:
        """Joins the group."""
        self._thread.start()

    def stop(self) -> None:
        """Lets transactions under way end, and leaves the group. Another worker goes on."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(LEAVE_SECONDS + 5)

    # --- the group ---

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._serve()
            except (KafkaException, TrunklineError) as error:
                log.warning("jobs are not run by this worker for a moment", reason=str(error))
            except Exception:
                log.exception("running jobs broke; it begins again")
            self._stop.wait(AGAIN_SECONDS)

    def _serve(self) -> None:
        """Runs jobs as a member of the group, until the end. Raises our error and Kafka's for what the client does not heal."""
        names = self._around.names
        consumer = self._around.settings.consumer(names.jobs)
        try:
            consumer.subscribe(
                [names.jobs], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke
            )
            while not self._stop.is_set():
                for message in records_of(consumer.consume(200, POLL_SECONDS), "the jobs can't be read", member=True):
                    self._log.take(message)
                try:
                    self._read_new()
                    self._sweep()
                except TrunklineError as error:
                    log.warning("the jobs can't be read", reason=str(error))
                    self._stop.wait(1.0)
                    continue
                self._begin()
        finally:
            self._leave(self._owned)
            consumer.close()
            self._owned.clear()
            self._unread.clear()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # All of a partition is read at each assignment: nothing is ever committed, and it is compacted.
        beginnings = [TopicPartition(part.topic, part.partition, OFFSET_BEGINNING) for part in partitions]
        self._around.settings.take(consumer, beginnings)
        came = {part.partition for part in partitions}
        self._owned |= came
        self._unread |= came

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {part.partition for part in partitions}
        self._owned -= gone
        self._unread -= gone
        self._leave(gone)
        self._log.forget(gone)
        self._around.settings.give_up(consumer, partitions)

    def _leave(self, partitions: Iterable[int]) -> None:
        gone = set(partitions)
        runs = [run for run in self._runs.values() if run.partition in gone]
        for run in runs:
            run.leave.set()
        for run in runs:
            # Who does not end in time is fenced by the next owner.
            if run.thread is not None:
                run.thread.join(LEAVE_SECONDS)

    def _read_new(self) -> None:
        """Reads partitions that came to their ends, so that no job begins on half of what is known of it."""
        if self._unread:
            partitions = sorted(self._unread)
            for message in read_all(
                self._around.settings, self._around.names.jobs, partitions=partitions, patient=False
            ):
                self._log.take(message)
            self._unread.clear()
            self._swept = 0.0  # what came is looked through at once

    # --- the jobs ---

    def _begin(self) -> None:
        for pipeline in [name for name, run in self._runs.items() if run.thread is None or not run.thread.is_alive()]:
            del self._runs[pipeline]
        for job in self._log.of():
            if (
                partition_of(job.pipeline) in self._owned
                and job.pipeline not in self._runs
                and job.runnable
                # What this worker wrote itself may not have come back to it yet.
                and (job.progress.at or 0.0) >= self._reached.get(job.id, 0.0)
                and time.monotonic() >= self._not_before.get(job.id, 0.0)
            ):
                run = self._runs[job.pipeline] = _Run(job.id, partition_of(job.pipeline))
                run.thread = threading.Thread(target=self._execute, args=(job, run), name=f"job-{job.id}", daemon=True)
                run.thread.start()

    def _execute(self, job: Job, run: _Run) -> None:
        def wish() -> Wish:
            return self._log.jobs.get(job.id, job).wish

        about = {"job": job.id, "pipeline": job.pipeline}
        log.info("the job begins", **about)
        try:
            progress = RedriveExecution(self._around, job, wish=wish, leaving=run.leave.is_set).run()
            self._reached[job.id] = progress.at or 0.0
            self._failures.pop(job.id, None)
            say = log.error if progress.state is JobState.FAILED else log.info
            say("the job rests", **about, state=str(progress.state), sent=progress.sent, reason=progress.reason)
            return
        except TrunklineError as error:
            log.warning("the job goes on later", **about, reason=str(error), code=error.code)
        except Exception:
            log.exception("the job broke", **about)
        failures = self._failures[job.id] = self._failures.get(job.id, 0) + 1
        self._not_before[job.id] = time.monotonic() + reconnect_delay(failures - 1)

    def _sweep(self) -> None:
        """Forgets jobs that ended long ago."""
        if time.monotonic() - self._swept < SWEEP_SECONDS and self._swept:
            return
        self._swept = time.monotonic()
        old = [job for job in self._log.of() if job.ended and time.time() - (job.progress.at or 0) > KEPT_SECONDS]
        if old:
            producer, records = self._around.settings.producer(), JobRecords(self._around.names)
            for job in old:
                records.forget(producer, job)
            producer.flush(LEAVE_SECONDS)


def has_runner(settings: KafkaSettings, names: Names) -> bool:
    """Whether any worker is there to run jobs. One that was killed counts until its session ends."""
    admin = settings.admin()
    future = admin.describe_consumer_groups([names.jobs], request_timeout=LEAVE_SECONDS)[names.jobs]
    try:
        described = answered(future, LEAVE_SECONDS)
    except KafkaException as error:
        if error.args[0].name() == "GROUP_ID_NOT_FOUND":
            return False
        raise translate(error, "the workers that run jobs can't be asked for") from error
    return described.state is not ConsumerGroupState.DEAD and bool(described.members)
