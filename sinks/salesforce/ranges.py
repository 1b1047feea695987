"""Planned ranges through bulk jobs: which rows go into which job, and a verdict for each, also after a crash.

What may be left of a range by a process that died, and what becomes of it:

* A job that was made and not noted holds no data: it has no effect, and Salesforce removes it.
* A job that was noted and not closed is aborted, and the range makes another one.
* A job that was closed is found by its note, waited for, and its results are read.
* Where there is no note (the partition came from another worker), jobs of our user on this object that are still under way are waited
  for, and the range makes its jobs again: an upsert has no second effect, but an old job must not overtake a later range.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import structlog.stdlib

from sinks.salesforce.collections import Collections
from sinks.salesforce.headroom import Headroom
from sinks.salesforce.jobs import UNDER_WAY, IngestJobs, JobState
from sinks.salesforce.mapping import FieldMapping, Line
from sinks.salesforce.notes import JobNotes, Noted, Place
from sinks.salesforce.outcomes import Failure, Refused, outcome
from sinks.salesforce.settings import SalesforceSettings
from sinks.salesforce.table import MAX_UPLOAD, Cells, Result, failure_of, written
from trunkline.core.contracts import Batch
from trunkline.core.errors import FatalError, RejectedError, RetriableError
from trunkline.core.event import Event
from trunkline.core.redaction import excerpt
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

_Judge = Callable[[Result], Verdict]


class _RefusedJobError(FatalError):
    """A job of which no record got through. Its results are no verdicts: once someone has mended the cause, it is made again."""


@dataclass(slots=True)
class _Range:
    """What is known of a range between its attempts: final verdicts by place, its jobs, and those whose results were read."""

    name: str
    jobs: list[Noted]
    settled: dict[int, Verdict] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)


class Ranges:
    """Delivers the ranges of one sink: large ones by jobs, what is left of them by collections."""

    def __init__(
        self,
        jobs: IngestJobs,
        collections: Collections,
        mapping: FieldMapping,
        settings: SalesforceSettings,
        headroom: Headroom,
        notes: JobNotes,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._jobs = jobs
        self._collections = collections
        self._mapping = mapping
        self._settings = settings
        self._above = settings.bulk_above if settings.api == "auto" else 0
        self._headroom = headroom
        self._notes = notes
        self._log = log
        self._begun: dict[Place, _Range] = {}

    async def write(self, batch: Batch) -> list[Verdict]:
        """One verdict for each event. Raises `FatalError` when the account, or what every record needs, is refused."""
        first = batch.events[0]
        place = (first.topic_id or first.topic, first.partition)
        try:
            begun = await self._range(place, batch)
        except RetriableError as error:
            return [Retry.of(error)] * len(batch.events)
        open_: dict[int, Verdict] = {}
        lines = await asyncio.to_thread(self._lines, batch.events, begun.settled)
        held: set[object] = set()
        for number, wave in enumerate(waves_of(lines)):
            open_.update(await self._wave(place, begun, number, wave, held, batch.events))
            held.update(line.identity for line in wave if line.place not in begun.settled)
        if not open_:
            # The note stays until the partition's next range: this one is not committed yet.
            del self._begun[place]
        self._log.debug("salesforce range", range=batch.name, records=len(batch.events), open=len(open_))
        return [open_.get(at) or begun.settled[at] for at in range(len(batch.events))]

    async def _range(self, place: Place, batch: Batch) -> _Range:
        known = self._begun.get(place)
        if known is None or known.name != batch.name:
            noted = await asyncio.to_thread(self._notes.of, place, batch.name)
            if batch.rebuilt and not noted:
                await self._outlast()
            known = self._begun[place] = _Range(batch.name, noted)
        return known

    async def _outlast(self) -> None:
        """Waits for what may be a dead worker's job. Raises `RetriableError` when one is still under way after `job_timeout`."""
        for job in await self._jobs.under_way():
            self._log.info("salesforce job of unknown origin is waited for", job=job)
            found = await self._jobs.ended(job)
            if found is not None and found.state in UNDER_WAY:
                raise RetriableError(
                    f"the job {job} on {self._settings.object} does not end: it may hold these records",
                    code="salesforce.job_pending",
                )

    def _lines(self, events: Sequence[Event], settled: dict[int, Verdict]) -> list[Line]:
        """The events that have no verdict yet, as rows; what can't become one is settled as dead."""
        lines = []
        for at, event in enumerate(events):
            # Rows with a verdict are made too: which wave a later row of the same external id is in depends on them.
            try:
                lines.append(self._mapping.line(at, event))
            except RejectedError as error:
                settled[at] = Dead(str(error), code=error.code)
        return lines

    async def _wave(
        self, place: Place, begun: _Range, number: int, wave: list[Line], held: set[object], events: Sequence[Event]
    ) -> dict[int, Verdict]:
        """Rows that each have another external id. Returns the verdicts that are not final."""
        found: dict[int, Verdict] = {}
        for job in [one for one in begun.jobs if one.wave == number and one.id not in begun.read]:
            found.update(await self._finished(place, begun, job, wave, ours=False))
        rest: list[Line] = []
        for line in wave:
            if line.place in begun.settled or line.place in found:
                continue
            if line.identity in held:
                found[line.place] = Retry("an earlier record with the same external id is not settled yet")
            else:
                rest.append(line)
        table = [line for line in rest if line.cells is not None]
        if len(table) > self._above:
            for part, content in await asyncio.to_thread(lambda: list(self._tables(table))):
                found.update(await self._by_job(place, begun, number, part, content))
            rest = [line for line in rest if line.cells is None]
        if rest:
            rows = await asyncio.to_thread(lambda: [self._mapping.row(one.place, events[one.place]) for one in rest])
            for at, verdict in (await self._collections.deliver(rows)).items():
                (begun.settled if isinstance(verdict, Ok | Dead) else found)[at] = verdict
        return found

    def _tables(self, lines: list[Line]) -> Iterator[tuple[list[Line], bytes]]:
        """The rows with their CSV, in as many tables as the largest upload asks for."""
        rows: list[Cells] = [line.cells for line in lines if line.cells is not None]
        content = written(self._mapping.columns, rows)
        if len(content) <= MAX_UPLOAD or len(lines) == 1:
            yield lines, content
            return
        middle = len(lines) // 2
        yield from self._tables(lines[:middle])
        yield from self._tables(lines[middle:])

    async def _by_job(
        self, place: Place, begun: _Range, number: int, lines: list[Line], content: bytes
    ) -> dict[int, Verdict]:
        """One job from its making to its results."""
        started = time.monotonic()
        try:
            missing = await self._headroom.missing()
            if missing is not None:
                return dict.fromkeys((line.place for line in lines), missing)
            job = Noted(await self._jobs.create(), number)
            # Noted before the data goes out: whatever happens from here on, the job is found again.
            begun.jobs.append(job)
            await asyncio.to_thread(self._notes.keep, place, begun.name, begun.jobs)
            await self._jobs.upload(job.id, content)
        except RetriableError as error:
            # Not closed, so without effect; the job that is left is aborted when its range comes again.
            return dict.fromkeys((line.place for line in lines), Retry.of(error))
        try:
            await self._jobs.close(job.id)
        except RetriableError as error:
            self._log.info("salesforce job may not be closed", job=job.id, reason=str(error))
        found = await self._finished(place, begun, job, lines, ours=True)
        self._log.info(
            "salesforce job",
            job=job.id,
            range=begun.name,
            records=len(lines),
            open=len(found),
            seconds=round(time.monotonic() - started, 2),
        )
        return found

    async def _finished(
        self, place: Place, begun: _Range, job: Noted, lines: list[Line], *, ours: bool
    ) -> dict[int, Verdict]:
        """Waits for a job and settles its rows. `ours` says that this run uploaded its data whole.

        Without, `lines` may hold more rows than the job does: those that it does not tell of are left for another one.
        """
        waiting = [line for line in lines if line.place not in begun.settled]
        try:
            state = await self._jobs.ended(job.id)
            if state is not None and state.state == "Open":
                if ours:
                    await self._jobs.close(job.id)
                    state = await self._jobs.ended(job.id)
                else:
                    await self._jobs.abort(job.id)
                    return await self._forgotten(place, begun, job)
            if state is None:
                return await self._forgotten(place, begun, job)
            if state.state in UNDER_WAY or state.state == "Open":
                reason = f"the job {job.id} is {state.state} after {self._settings.job_timeout:g} s"
                return {line.place: Unknown(reason, "salesforce.job_pending") for line in waiting}
            found = await self._verdicts(job.id, state, waiting)
        except _RefusedJobError:
            await self._forgotten(place, begun, job)
            raise
        except RetriableError as error:
            unknown = Unknown(f"the job {job.id} can't be followed: {error}", error.code)
            return {line.place: unknown for line in waiting}
        begun.read.add(job.id)
        if ours:
            lost = Unknown(f"the results of the job {job.id} do not tell of this record", "salesforce.unreadable")
            for line in waiting:
                found.setdefault(line.place, lost)
        begun.settled.update({at: one for at, one in found.items() if isinstance(one, Ok | Dead)})
        left: dict[int, Verdict] = {at: one for at, one in found.items() if not isinstance(one, Ok | Dead)}
        # What an earlier run's job did not settle is sent again now: its waiting time is over.
        return left if ours else {}

    async def _forgotten(self, place: Place, begun: _Range, job: Noted) -> dict[int, Verdict]:
        begun.jobs.remove(job)
        await asyncio.to_thread(self._notes.keep, place, begun.name, begun.jobs)
        return {}

    async def _verdicts(self, job: str, state: JobState, lines: list[Line]) -> dict[int, Verdict]:
        """What the results say of these rows, by place."""
        places = {line.identity: line.place for line in lines}
        found: dict[int, Verdict] = {}

        def take(results: Sequence[Result], judge: _Judge) -> None:
            for result in results:
                at = places.get(self._mapping.identity(result.key)) if result.key.strip() else None
                if at is not None:
                    found[at] = judge(result)

        take(await self._jobs.results(job, "successfulResults"), lambda result: Ok(result.record_id))
        if len(found) < len(lines):
            take(await self._jobs.results(job, "failedResults"), self._refusal)
        if len(found) < len(lines):
            unprocessed = self._unprocessed(job, state)
            take(await self._jobs.results(job, "unprocessedrecords"), lambda _: unprocessed)
        refused = [one for one in found.values() if isinstance(one, Dead) and one.access]
        if len(refused) == len(found) > 1:
            raise _RefusedJobError(
                f"every record of the job {job} was refused; the last: {refused[-1].reason}",
                hint="check the rights of the app's user; nothing was dead-lettered",
                code="salesforce.refused",
            )
        return found

    def _refusal(self, result: Result) -> Verdict:
        failure = failure_of(result.error or "")
        found = outcome(failure, excerpt(str(failure), 1000), limit_pause=self._settings.limit_pause)
        if isinstance(found, Refused):
            raise _RefusedJobError(
                f"Salesforce refuses the records of a job: {found.reason}",
                hint="check the permissions of the app's user, and the object and fields of the sink",
                code="salesforce.refused",
            )
        return found

    def _unprocessed(self, job: str, state: JobState) -> Retry:
        """Rows that a job did not come to. Raises `FatalError` where no job would: its table is refused as a whole."""
        reason = f"the job {job} ended as {state.state} before it came to this record: {excerpt(state.error, 500)}"
        if state.state == "Failed" and state.error.replace(" ", "").startswith("InvalidBatch:"):
            raise _RefusedJobError(reason, hint="check the fields of the sink", code="salesforce.job")
        failure = Failure(state.error.partition(":")[0].strip(), state.error)
        if failure.kind != "limit":
            return Retry(reason, code="salesforce.job_unfinished")
        found = outcome(failure, reason, limit_pause=self._settings.limit_pause)
        assert isinstance(found, Retry)
        return found


def waves_of(lines: Sequence[Line]) -> list[list[Line]]:
    """The rows in their order, cut so that no external id is twice in one wave: a job works on its rows in no order."""
    waves: list[list[Line]] = []
    seen: dict[object, int] = {}
    for line in lines:
        wave = seen[line.identity] = seen.get(line.identity, -1) + 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(line)
    return waves
