"""Ingest jobs of Bulk API 2.0: made, filled, closed, followed, and what became of their rows.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/bulk_api_2_0_ingest.htm
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from sinks.salesforce.client import SalesforceClient, describe_refusal, json_of, refusals
from sinks.salesforce.outcomes import request_outcome
from sinks.salesforce.settings import SalesforceSettings
from sinks.salesforce.table import Result, read_results
from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.http import HttpResponse
from trunkline.core.verdicts import Retry

Kind = Literal["successfulResults", "failedResults", "unprocessedrecords"]
ENDED = frozenset({"JobComplete", "Failed", "Aborted"})
UNDER_WAY = frozenset({"UploadComplete", "InProgress"})
DATA_SECONDS = 600.0
"""The patience with an upload or a download: the tables may be large and the line slow."""
_FIRST_WAIT = 0.1


@dataclass(frozen=True, slots=True)
class JobState:
    """What Salesforce says of a job."""

    state: str
    failed: int = 0
    error: str = ""


class IngestJobs:
    """The jobs of one sink. Every call raises `RetriableError` for what may pass and `FatalError` when the account is refused."""

    def __init__(self, client: SalesforceClient, settings: SalesforceSettings) -> None:
        self._client = client
        self._settings = settings

    async def create(self) -> str:
        """Makes an upsert job and returns its id. A job without data has no effect, and Salesforce removes it after a week."""
        wanted = {
            "object": self._settings.object,
            "operation": "upsert",
            "externalIdFieldName": self._settings.external_id,
            "contentType": "CSV",
            "columnDelimiter": "COMMA",
            "lineEnding": "LF",
        }
        answer = json_of(await self._asked("POST", "jobs/ingest", content=orjson.dumps(wanted)))
        if not isinstance(answer, dict) or not answer.get("id"):
            raise RetriableError("Salesforce's answer to a new job can't be read", code="salesforce.unreadable")
        return str(answer["id"])

    async def upload(self, job: str, table: bytes) -> None:
        """Sends the job's only table. A job whose table did not arrive whole is not closed, and so has no effect."""
        await self._asked("PUT", f"jobs/ingest/{job}/batches", content=table, media="text/csv; charset=UTF-8")

    async def close(self, job: str) -> None:
        """Says that the table is complete: the job is queued."""
        await self._asked("PATCH", f"jobs/ingest/{job}", content=b'{"state":"UploadComplete"}')

    async def abort(self, job: str) -> None:
        """Ends a job that is not to be worked on."""
        await self._asked("PATCH", f"jobs/ingest/{job}", content=b'{"state":"Aborted"}')

    async def state(self, job: str) -> JobState | None:
        """How the job stands, or None when Salesforce does not know it (any more: it keeps them for seven days)."""
        response = await self._request("GET", f"jobs/ingest/{job}")
        if response.status == 404:
            return None
        answer = json_of(self._judged(response))
        if not isinstance(answer, dict) or not isinstance(answer.get("state"), str):
            raise RetriableError(f"Salesforce's answer on the job {job} can't be read", code="salesforce.unreadable")
        failed = answer.get("numberRecordsFailed")
        return JobState(
            answer["state"], failed if isinstance(failed, int) else 0, str(answer.get("errorMessage") or "")
        )

    async def ended(self, job: str) -> JobState | None:
        """Waits until the job is no longer under way, asking ever more patiently; gives up after `job_timeout`.

        What comes back may still be under way, then, or `Open`, which no time changes. An org that does not answer is asked again.
        """
        deadline = time.monotonic() + self._settings.job_timeout
        wait = min(_FIRST_WAIT, self._settings.job_poll)
        while True:
            failure: RetriableError | None = None
            found: JobState | None = None
            try:
                found = await self.state(job)
                if found is None or found.state not in UNDER_WAY:
                    return found
            except RetriableError as error:
                failure = error
            pause = max(wait, failure.after or 0.0) if failure is not None else wait
            if time.monotonic() + pause > deadline:
                if failure is not None:
                    raise failure
                return found
            await asyncio.sleep(pause)
            wait = min(wait * 1.5, self._settings.job_poll)

    async def results(self, job: str, kind: Kind) -> list[Result]:
        """The rows that ended so, in no order."""
        response = await self._asked("GET", f"jobs/ingest/{job}/{kind}")
        key = self._settings.external_id or ""
        try:
            return await asyncio.to_thread(lambda: list(read_results(response.content, key)))
        except ValueError as error:
            raise RetriableError(
                f"the {kind} of the job {job} can't be read: {error}", code="salesforce.unreadable"
            ) from error

    async def under_way(self) -> list[str]:
        """The jobs of our user on our object and external id that Salesforce has still to work on."""
        found: list[str] = []
        path = "jobs/ingest?jobType=V2Ingest"
        while path:
            answer = json_of(await self._asked("GET", path))
            if not isinstance(answer, dict):
                raise RetriableError("Salesforce's list of jobs can't be read", code="salesforce.unreadable")
            found += [str(job["id"]) for job in answer.get("records", []) if self._is_ours(job)]
            following = urlsplit(str(answer.get("nextRecordsUrl") or ""))
            path = f"jobs/ingest?{following.query}" if following.query and not answer.get("done") else ""
        return found

    def _is_ours(self, job: Any) -> bool:
        user = self._client.user
        return (
            isinstance(job, dict)
            and job.get("state") in UNDER_WAY
            and job.get("object") == self._settings.object
            and str(job.get("externalIdFieldName", "")).lower() == str(self._settings.external_id).lower()
            and (user is None or str(job.get("createdById"))[:15] == user[:15])
        )

    async def _request(
        self, method: str, path: str, *, content: bytes | None = None, media: str = "application/json"
    ) -> HttpResponse:
        return await self._client.request(method, path, content=content, media=media, timeout=DATA_SECONDS)

    async def _asked(
        self, method: str, path: str, *, content: bytes | None = None, media: str = "application/json"
    ) -> HttpResponse:
        return self._judged(await self._request(method, path, content=content, media=media))

    def _judged(self, response: HttpResponse) -> HttpResponse:
        if 200 <= response.status < 300:
            return response
        outcome = request_outcome(
            response.status, refusals(response), limit_pause=self._settings.limit_pause, after=response.retry_after()
        )
        if isinstance(outcome, Retry):
            raise RetriableError(outcome.reason, after=outcome.after, code=outcome.code, limit=outcome.limit)
        raise FatalError(
            f"Salesforce refuses a bulk job: {describe_refusal(response)}",
            hint="the app's user needs the right to use the Bulk API and to edit the object and its mapped fields",
            code="salesforce.job",
        )
