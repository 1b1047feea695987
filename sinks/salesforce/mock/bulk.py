"""Bulk API 2.0 of the stand-in org: ingest jobs, their CSV data, and what became of each row.

Resources: https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/bulk_api_2_0_ingest.htm
"""

from __future__ import annotations

import asyncio
import csv
import io
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sinks.salesforce.mock.columns import Column, columns_of
from sinks.salesforce.mock.org import Org, record_id
from sinks.salesforce.mock.rest import Answer, Call
from sinks.salesforce.mock.values import RequestError, RowError

CHUNK = 200
"""Rows of one transaction: an external id may be in it once."""
MAX_DATA = 150 * 2**20
PAGE = 1000
_ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
_LINE_ENDS = {"LF": "\n", "CRLF": "\r\n"}
_DELIMITERS = {"COMMA": ",", "SEMICOLON": ";", "TAB": "\t", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}


@dataclass(slots=True)
class Job:
    """One ingest job. `rows` are its CSV rows until they are processed, the three lists what became of them."""

    id: str
    object: str
    operation: str
    external_id: str | None
    line_ending: str
    delimiter: str
    user: str
    state: str = "Open"
    data: bytes | None = None
    created: str = ""
    error: str | None = None
    header: list[str] = field(default_factory=list)
    successful: list[list[str]] = field(default_factory=list)
    failed: list[list[str]] = field(default_factory=list)
    unprocessed: list[list[str]] = field(default_factory=list)

    def info(self, version: str) -> dict[str, Any]:
        """The job as Get Job Info tells it."""
        found: dict[str, Any] = {
            "id": self.id,
            "operation": self.operation,
            "object": self.object,
            "createdById": self.user,
            "createdDate": self.created,
            "systemModstamp": self.created,
            "state": self.state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(version),
            "jobType": "V2Ingest",
            "lineEnding": self.line_ending,
            "columnDelimiter": self.delimiter,
            "numberRecordsProcessed": len(self.successful) + len(self.failed),
            "numberRecordsFailed": len(self.failed),
            "retries": 0,
            "totalProcessingTime": 0,
        }
        if self.external_id is not None:
            found["externalIdFieldName"] = self.external_id
        if self.state == "Open":
            found["contentUrl"] = f"services/data/v{version}/jobs/ingest/{self.id}/batches"
        if self.error is not None:
            found["errorMessage"] = self.error
        return found


class IngestApi:
    """Answers calls below `jobs/ingest`, and works on what was uploaded, one job after another.

    While `held`, jobs wait in the queue. `faults` is what happens to the next jobs: `lock` refuses the first row with
    UNABLE_TO_LOCK_ROW, `break` fails the job after half of its rows.
    """

    def __init__(self, org: Org, user: str) -> None:
        self._org = org
        self._user = user
        self.jobs: dict[str, Job] = {}
        self.faults: deque[str] = deque()
        self._numbers = itertools.count(1)
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._open = asyncio.Event()
        self._open.set()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work on jobs."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Works on no job any more."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
            self._worker = None

    @property
    def held(self) -> bool:
        """Whether closed jobs wait."""
        return not self._open.is_set()

    @held.setter
    def held(self, held: bool) -> None:
        (self._open.clear if held else self._open.set)()

    # --- calls ---

    def answer(self, call: Call, data: bytes) -> Answer:
        """What the org answers; `data` is the body as it came. Raises `RequestError`."""
        match call.method, _known(call.segments[2:]):
            case "POST", ():
                return Answer(200, self._create(call.body).info(call.version))
            case "GET", ():
                return self._list(call)
            case "GET", (job_id,):
                return Answer(200, self._job(job_id).info(call.version))
            case "PUT", (job_id, "batches"):
                self._upload(self._job(job_id), data)
                return Answer(201)
            case "PATCH", (job_id,):
                return Answer(200, self._change(self._job(job_id), call.body).info(call.version))
            case "DELETE", (job_id,):
                if self._job(job_id).state not in _ENDED | {"UploadComplete"}:
                    raise RequestError(400, "API_ERROR", "The job is in a state that can't be deleted")
                del self.jobs[job_id]
                return Answer(204)
            case "GET", (job_id, "successfulResults" | "failedResults" | "unprocessedrecords" as kind):
                return Answer(200, self._results(self._job(job_id), kind))
        raise RequestError(404, "NOT_FOUND", "The requested resource does not exist")

    def _job(self, job_id: str) -> Job:
        found = self.jobs.get(job_id)
        if found is None:
            raise RequestError(404, "NOT_FOUND", "The requested resource does not exist")
        return found

    def _create(self, body: Any) -> Job:
        if not isinstance(body, dict) or "object" not in body or "operation" not in body:
            raise RequestError(400, "INVALIDJOB", "object and operation are required")
        if body.get("contentType", "CSV") != "CSV" or body["operation"] not in {"insert", "upsert"}:
            raise RequestError(400, "INVALIDJOB", "unsupported operation or content type")
        try:
            obj = self._org.object_name(body["object"])
        except RequestError as error:
            raise RequestError(400, "INVALIDJOB", f"Unable to find object: {body['object']}") from error
        external = None
        if body["operation"] == "upsert":
            if not body.get("externalIdFieldName"):
                raise RequestError(400, "INVALIDJOB", "External ID was blank for upsert")
            external = self._org.external_field(obj, body["externalIdFieldName"])
        job = Job(
            record_id("750", next(self._numbers)),
            obj,
            body["operation"],
            external,
            body.get("lineEnding", "LF"),
            body.get("columnDelimiter", "COMMA"),
            self._user,
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000+0000",
        )
        self.jobs[job.id] = job
        return job

    def _upload(self, job: Job, data: bytes) -> None:
        if job.state != "Open":
            raise RequestError(400, "INVALIDJOBSTATE", f"Job is in state {job.state}: data can't be uploaded")
        if job.data is not None:
            raise RequestError(400, "INVALIDJOBSTATE", "Job data has already been uploaded")
        if len(data) * 4 // 3 > MAX_DATA:
            raise RequestError(413, "REQUEST_ENTITY_TOO_LARGE", "The job data is too large")
        job.data = data

    def _change(self, job: Job, body: Any) -> Job:
        state = body.get("state") if isinstance(body, dict) else None
        if state == "UploadComplete" and job.state == "Open" and job.data is not None:
            job.state = state
            self._queue.put_nowait(job)
        elif state == "Aborted" and job.state not in _ENDED:
            job.state = state
        elif state != job.state:
            raise RequestError(400, "INVALIDJOBSTATE", f"Job can't go from {job.state} to {state}")
        return job

    def _list(self, call: Call) -> Answer:
        start = int(call.query.get("queryLocator", "0"))
        found = list(self.jobs.values())
        page: dict[str, Any] = {
            "done": start + PAGE >= len(found),
            "records": [job.info(call.version) for job in found[start : start + PAGE]],
        }
        if not page["done"]:
            page["nextRecordsUrl"] = f"/services/data/v{call.version}/jobs/ingest?queryLocator={start + PAGE}"
        return Answer(200, page)

    def _results(self, job: Job, kind: str) -> bytes:
        if job.state not in _ENDED:
            raise RequestError(400, "INVALIDJOBSTATE", f"Job is in state {job.state}: it has no results yet")
        text = io.StringIO()
        write = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        if kind == "successfulResults":
            write.writerow(["sf__Id", "sf__Created", *job.header])
            write.writerows(job.successful)
        elif kind == "failedResults":
            write.writerow(["sf__Id", "sf__Error", *job.header])
            write.writerows(job.failed)
        else:
            write.writerow(job.header)
            write.writerows(job.unprocessed)
        return text.getvalue().encode()

    # --- the work ---

    async def _work(self) -> None:
        while True:
            job = await self._queue.get()
            await self._open.wait()
            if job.state == "UploadComplete":
                job.state = "InProgress"
                await self._process(job)

    async def _process(self, job: Job) -> None:
        data, job.data = job.data or b"", None
        fault = self.faults.popleft() if self.faults else ""
        text = io.StringIO(data.decode("utf-8"), newline="")
        reader = csv.reader(text, delimiter=_DELIMITERS[job.delimiter], strict=True)
        try:
            job.header = next(reader, [])
            columns = columns_of(self._org, job.object, job.header)
            chunks = _chunks(reader, len(job.header))
            size = data.count(_LINE_ENDS[job.line_ending].encode())
            done = 0
            for chunk in chunks:
                if job.state == "Aborted" or (fault == "break" and done >= size // 2):
                    job.unprocessed.extend(chunk)
                    continue
                self._chunk(job, columns, chunk, locked=fault == "lock" and done == 0)
                done += len(chunk)
                await asyncio.sleep(0)
        except (RequestError, csv.Error, UnicodeDecodeError) as error:
            job.state, job.error = "Failed", f"InvalidBatch : {error}"
            return
        if fault == "break":
            job.state, job.error = "Failed", "InternalServerError : the batch was retried too often"
        elif job.state == "InProgress":
            job.state = "JobComplete"
        # Nobody may rely on the order of the results.
        job.successful.reverse()

    def _chunk(self, job: Job, columns: Sequence[Column], chunk: list[list[str]], *, locked: bool) -> None:
        org = self._org
        org.attempts += len(chunk)
        read: list[tuple[list[str], dict[str, Any] | RowError]] = []
        for row in chunk:
            record: dict[str, Any] | RowError = {}
            try:
                for column, cell in zip(columns, row, strict=True):
                    column.put(record, cell)  # type: ignore[arg-type]
            except RowError as error:
                record = error
            read.append((row, record))
        external = job.external_id
        repeated = (
            org.repeated(job.object, external, [one if isinstance(one, dict) else {} for _, one in read])
            if external is not None
            else set()
        )
        for at, (row, record) in enumerate(read):
            try:
                if isinstance(record, RowError):
                    raise record
                if locked and at == 0:
                    raise RowError("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
                if external is not None and at in repeated:
                    raise RowError("DUPLICATE_VALUE", f"Duplicate external id specified: {record[external]}")
                if external is None:
                    rid, created = org.create(job.object, record), True
                else:
                    rid, created = org.upsert(job.object, external, record)
            except RowError as error:
                named = ",".join(error.fields)
                job.failed.append(["", f"{error.code}:{error.message}:{named} --", *row])
            else:
                job.successful.append([rid, "true" if created else "false", *row])


def _known(segments: tuple[str, ...]) -> tuple[str, ...]:
    """The path with the last resource's name spelt as the guide does: Salesforce takes any capitals."""
    names = {name.lower(): name for name in ("batches", "successfulResults", "failedResults", "unprocessedrecords")}
    return segments if len(segments) < 2 else (segments[0], names.get(segments[1].lower(), segments[1]), *segments[2:])


def _chunks(rows: Iterator[list[str]], width: int) -> Iterator[list[list[str]]]:
    """Rows in transactions. Raises `RequestError` for one with another number of cells."""
    while chunk := list(itertools.islice(rows, CHUNK)):
        if any(len(row) != width for row in chunk):
            raise RequestError(400, "InvalidBatch", "a row has another number of columns than the header")
        yield chunk
