"""Jobs: work that somebody asked for once and that must be done whoever begins it, in `_trunkline.jobs`, compacted.

Of each job there are three records: what was asked (`job`, written once), what people want of it now (`wish`) and how far it is
(`progress`, written in the transaction of what it did). All of a pipeline are in one partition, so one worker runs them, one
after the other.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeVar

import orjson
from confluent_kafka import Message, Producer

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import Effect, Latest, Write, carry_out
from trunkline.bus.kafka import KafkaSettings, offset_of, produce, read_all
from trunkline.bus.names import Names
from trunkline.bus.topics import JOB_PARTITIONS
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.jsonable import note_bytes

T = TypeVar("T")
VERSION = 1
STILL_SECONDS = 10.0
STILL_LETTERS = 3
"""A job that noted nothing for so long, and for so many letters at its rate, does not move."""
KEPT_SECONDS = 30 * 24 * 3600.0
"""How long a job that ended stays in the list."""
_REDRIVEN, _DROPPED = "redriven", "dropped"


class JobState(StrEnum):
    """How a job stands."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    DONE = "DONE"


class Desired(StrEnum):
    """What people want of a job."""

    RUNNING = "running"
    PAUSED = "paused"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class RedriveOrder:
    """What a redrive was asked to do.

    `where` is a CEL expression over a letter, `places` are letters by `PARTITION@OFFSET` (all where empty), `limit` is the most to
    send, `rate` is in letters a second, `cap` is how often an event may have been sent again before. `edit` is an `Edit` as data. `ends`
    are the ends of the dead-letter topic's partitions when it was asked for: what comes later is not of this job. `letters` is the id of
    that topic, empty where nobody noted it.
    """

    where: str | None = None
    places: tuple[str, ...] = ()
    limit: int | None = None
    rate: float | None = None
    cap: int = 10
    edit: dict[str, Any] | None = None
    ends: dict[str, int] = field(default_factory=dict)
    letters: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `total` is None until it was counted; `capped` were sent again too often before, `refused` are raw input
    that its source still can't publish, and both are not in it. `at` and `started_at` are Unix seconds, `rate` letters a second."""

    state: JobState = JobState.WAITING
    total: int | None = None
    sent: int = 0
    capped: int = 0
    refused: int = 0
    started_at: float | None = None
    at: float | None = None
    executor: str = ""
    rate: float | None = None
    code: str | None = None
    reason: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What someone wants of a job."""

    desired: Desired = Desired.RUNNING
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Job:
    """A job with its latest wish and progress. `at` is when it was asked for, in Unix seconds; `renewed` whether the wish came last."""

    id: str
    pipeline: str
    by: str
    at: float
    order: RedriveOrder
    wish: Wish = Wish()
    progress: Progress = Progress()
    renewed: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.progress.state in {JobState.DONE, JobState.CANCELLED}

    @property
    def runnable(self) -> bool:
        """Whether an executor has something to do: to send, or to note that it was cancelled.

        One that failed waits until somebody wishes anew.
        """
        if self.ended or (self.wish.desired is Desired.PAUSED and self.progress.state is JobState.PAUSED):
            return False
        return self.progress.state is not JobState.FAILED or self.renewed

    @property
    def left(self) -> int | None:
        """How many letters are still to be sent; None where they were not counted yet."""
        return None if self.progress.total is None else max(0, self.progress.total - self.progress.sent)

    @property
    def rate(self) -> float | None:
        """How many letters a second go now; None where it does not move, as when its executor was killed."""
        rate = self.progress.rate
        if self.progress.state is not JobState.RUNNING or not rate:
            return None
        silent = time.time() - (self.progress.at or 0.0)
        return rate if silent <= max(STILL_SECONDS, STILL_LETTERS / rate) else None

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at its present rate; None where that is not known."""
        return self.left / self.rate if self.left and self.rate else None

    def as_dict(self) -> dict[str, Any]:
        """The job as data."""
        return {**asdict(self), "left": self.left, "seconds_left": self.seconds_left, "ended": self.ended}


def partition_of(pipeline: str) -> int:
    """The partition of the jobs topic that has a pipeline's jobs."""
    return zlib.crc32(pipeline.encode()) % JOB_PARTITIONS


class JobLog:
    """The jobs as far as they were read. Records may be taken twice: an older one changes nothing."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.redriven: dict[str, int] = {}
        """How many letters of each pipeline were sent again, all in all."""
        self.dropped: dict[str, int] = {}
        """How many letters of each pipeline somebody decided not to send again, all in all."""
        self._parts: dict[tuple[str, str], dict[str, Any]] = {}
        self._offsets: dict[bytes, int] = {}

    @classmethod
    def read(
        cls, settings: KafkaSettings, names: Names, *, pipeline: str | None = None, patient: bool = True
    ) -> JobLog:
        """All jobs, or those beside one pipeline's. `patient` waits for a transaction that is open."""
        found = cls()
        partitions = None if pipeline is None else [partition_of(pipeline)]
        for message in read_all(settings, names.jobs, partitions=partitions, patient=patient):
            found.take(message)
        return found

    def take(self, message: Message) -> None:
        """Takes a record of the topic. Raises `ConfigurationError` for one of a newer version."""
        key, value, offset = message.key() or b"", message.value(), offset_of(message)
        if self._offsets.get(key, -1) >= offset:
            return
        self._offsets[key] = offset
        pipeline, identity, part = _key_parts(key)
        data = None if value is None else orjson.loads(value)
        if data is not None and data.pop("v") > VERSION:
            raise ConfigurationError("a job is of a newer Trunkline", hint="run that version", code="job.version")
        if part in {_REDRIVEN, _DROPPED}:
            counts = self.redriven if part == _REDRIVEN else self.dropped
            counts[pipeline] = data["count"] if data is not None else 0
            return
        if data is None:
            self._parts.pop((identity, part), None)
        else:
            self._parts[identity, part] = data
        self._assemble(identity, pipeline)

    def job(self, identity: str) -> Job:
        """One job. Raises `ConfigurationError` (`job.unknown`) where there is none."""
        if identity not in self.jobs:
            raise ConfigurationError(
                f"no job is called {identity!r}", hint=did_you_mean(identity, self.jobs), code="job.unknown"
            )
        return self.jobs[identity]

    def of(self, pipelines: Iterable[str] | None = None) -> list[Job]:
        """The jobs, or those of some pipelines, the oldest first."""
        wanted = None if pipelines is None else set(pipelines)
        found = [job for job in self.jobs.values() if wanted is None or job.pipeline in wanted]
        return sorted(found, key=lambda job: (job.at, job.id))

    def forget(self, partitions: Iterable[int]) -> None:
        """Drops the jobs of some partitions."""
        gone = set(partitions)
        for key in [key for key in self._offsets if partition_of(_key_parts(key)[0]) in gone]:
            _, identity, part = _key_parts(key)
            del self._offsets[key]
            self._parts.pop((identity, part), None)
            self.jobs.pop(identity, None)

    def _assemble(self, identity: str, pipeline: str) -> None:
        asked = self._parts.get((identity, "job"))
        if asked is None:
            self.jobs.pop(identity, None)
            return
        order = RedriveOrder(**{**asked["order"], "places": tuple(asked["order"]["places"])})
        job = Job(identity, pipeline, asked["by"], asked["at"], order)
        wish, progress = self._parts.get((identity, "wish")), self._parts.get((identity, "progress"))
        if wish is not None:
            job = replace(job, wish=Wish(Desired(wish["desired"]), wish["by"], wish["at"]))
        if progress is not None:
            job = replace(job, progress=Progress(**{**progress, "state": JobState(progress["state"])}))
        # Both are in one partition, so their offsets say which came last; clocks of two machines would not.
        asked_at, noted_at = (self._offsets.get(_key(pipeline, identity, part), -1) for part in ("wish", "progress"))
        job = replace(job, renewed=asked_at > noted_at)
        self.jobs[identity] = job


class JobRecords:
    """Writes the records of jobs."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def create(self, settings: KafkaSettings, job: Job, counted: int) -> None:
        """Writes a job and who asked for it, of how many letters, in the audit trail; returns when Kafka has both."""
        order = job.order
        details = {
            "job": job.id,
            "filter": order.where,
            "places": list(order.places),
            "letters": counted,
            "limit": order.limit,
            "rate": order.rate,
            "cap": order.cap,
            # Values may be anybody's data: the trail, which never expires, says only what was changed.
            "edited": sorted(order.edit["set"]) or "the whole value" if order.edit is not None else None,
        }
        value = note_bytes({"v": VERSION, "by": job.by, "at": job.at, "order": asdict(order)})
        effect = Effect(
            None, [self._write(job, "job", value)], [Entry(job.at, job.by, "redrive.start", job.pipeline, details)]
        )
        self._command(settings, job, lambda _jobs: effect, job.by)

    def wish(self, settings: KafkaSettings, job: Job, desired: Desired, by: str) -> Wish:
        """Writes what someone wants, and who, also in the audit trail; returns when Kafka has both.

        Raises `ConfigurationError` (`job.ended`) where it has ended, or somebody has cancelled it, and can neither rest nor go on.
        """
        action = {Desired.RUNNING: "resume", Desired.PAUSED: "pause", Desired.CANCELLED: "cancel"}[desired]
        wish = Wish(desired, by, time.time())

        def decide(jobs: JobLog) -> Effect[Wish]:
            now = jobs.job(job.id)
            cancelled = now.wish.desired is Desired.CANCELLED
            if desired is not Desired.CANCELLED and (now.ended or cancelled):
                raise _too_late(now, action)
            if now.ended:
                return Effect(now.wish)
            details = {"job": job.id, "before": str(now.wish.desired), "after": str(desired)}
            value = note_bytes({"v": VERSION, **asdict(wish)})
            return Effect(
                wish,
                [self._write(job, "wish", value)],
                [Entry(wish.at, by, f"redrive.{action}", job.pipeline, details)],
            )

        return self._command(settings, job, decide, by)

    def write_progress(self, producer: Producer, job: Job, progress: Progress) -> None:
        """Hands a job's progress to the producer, as a part of its open transaction."""
        value = note_bytes({"v": VERSION, **asdict(progress)})
        key = _key(job.pipeline, job.id, "progress")
        produce(producer, self._names.jobs, value, key, [], partition=partition_of(job.pipeline))

    def write_redriven(self, producer: Producer, pipeline: str, count: int) -> None:
        """Hands the count of all letters of a pipeline that were sent again to the producer, as a part of its open transaction."""
        self._write_count(producer, pipeline, _REDRIVEN, count)

    def write_dropped(self, producer: Producer, pipeline: str, count: int) -> None:
        """The same of those that were dropped."""
        self._write_count(producer, pipeline, _DROPPED, count)

    def _write_count(self, producer: Producer, pipeline: str, part: str, count: int) -> None:
        value = orjson.dumps({"v": VERSION, "count": count})
        produce(producer, self._names.jobs, value, _key(pipeline, "", part), [], partition=partition_of(pipeline))

    def _command(self, settings: KafkaSettings, job: Job, decide: Callable[[JobLog], Effect[T]], by: str) -> T:
        def of_jobs(latest: Latest) -> Effect[T]:
            jobs = JobLog()
            for message in latest.messages:
                jobs.take(message)
            return decide(jobs)

        what = f"the job {job.id} can't be written"
        partitions = [partition_of(job.pipeline)]
        return carry_out(settings, self._names, self._names.jobs, of_jobs, by=by, what=what, partitions=partitions)

    def _write(self, job: Job, part: str, value: bytes) -> Write:
        return Write(self._names.jobs, _key(job.pipeline, job.id, part), value, partition_of(job.pipeline))

    def forget(self, producer: Producer, job: Job) -> None:
        """Hands tombstones of a job's records to the producer."""
        for part in ("job", "wish", "progress"):
            key = _key(job.pipeline, job.id, part)
            produce(producer, self._names.jobs, None, key, [], partition=partition_of(job.pipeline))


def _too_late(job: Job, verb: str) -> ConfigurationError:
    by = f" by {job.wish.by}" if job.wish.by else ""
    stands = f"has ended ({job.progress.state})" if job.ended else f"was cancelled{by}"
    return ConfigurationError(
        f"the job {stands} and can't be {verb}d",
        where=f"job {job.id}",
        hint=f"what still waits goes with another one: `trunkline dlq redrive {job.pipeline}`",
        code="job.ended",
    )


def _key(pipeline: str, identity: str, part: str) -> bytes:
    return f"{pipeline}/{identity}/{part}".encode()


def _key_parts(key: bytes) -> tuple[str, str, str]:
    pipeline, identity, part = key.decode().rsplit("/", 2)
    return pipeline, identity, part
