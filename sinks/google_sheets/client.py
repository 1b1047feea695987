"""The few calls of the Sheets API that the sink needs (https://developers.google.com/workspace/sheets/api/reference/rest)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sinks.google_sheets.account import ServiceAccount, fetch_token
from sinks.google_sheets.settings import GoogleSheetsConnection
from trunkline.core.errors import FatalError, RejectedError, RetriableError
from trunkline.core.http import HttpClient, HttpResponse, NoAnswerError, TokenAuthorizer

Row = Sequence[Any]

_FULL = "above the limit"
_LIMIT = re.compile(r"limit '([^']+)'")
"""How Google names the limit of a quota that is used up."""
_MISPLACED = ("Unable to parse range", "exceeds grid limits")


class MisplacedRangeError(RejectedError):
    """The range is not there: the worksheet was renamed, or has fewer rows or columns than thought."""

    code = "google_sheets.range"


@dataclass(frozen=True, slots=True)
class Sheet:
    """A worksheet's title and how many rows its grid has, filled or not."""

    title: str
    rows: int


class SheetsClient:
    """One spreadsheet.

    Every call raises `FatalError` when the account may not (401 after a new token, 403) or there is no such spreadsheet (404);
    `RejectedError` when the content is refused (400); `RetriableError` with the wait that was asked for (429, 503) and when the
    request was not sent; `NoAnswerError` when a write may have happened.
    """

    def __init__(self, connection: GoogleSheetsConnection, spreadsheet: str) -> None:
        """Resolves the key. Raises `ConfigurationError` for a key file that is none."""
        account = ServiceAccount.parse(connection.service_account)
        self._login = HttpClient(connection.http)
        self._http = HttpClient(
            connection.http,
            auth=TokenAuthorizer(lambda: fetch_token(account, self._login)),
            base_url=connection.base_url,
        )
        self._spreadsheet = spreadsheet
        self.requests = 0
        """Requests made until now."""
        self._path = f"/v4/spreadsheets/{quote(spreadsheet, safe='')}"

    async def sheets(self) -> list[Sheet]:
        """All worksheets of the spreadsheet that hold cells."""
        fields = "sheets.properties(title,sheetType,gridProperties(rowCount))"
        answer = await self._call("GET", "", params={"fields": fields})
        properties = [each["properties"] for each in answer.get("sheets", [])]
        return [
            Sheet(each["title"], each["gridProperties"]["rowCount"]) for each in properties if "gridProperties" in each
        ]

    async def read(self, where: str) -> list[list[Any]]:
        """The values of a range, as they are stored; empty rows and cells at the ends are left out."""
        params = {"valueRenderOption": "UNFORMATTED_VALUE", "majorDimension": "ROWS"}
        answer = await self._call("GET", f"/values/{quote(where, safe='')}", params=params)
        values: list[list[Any]] = answer.get("values", [])
        return values

    async def update(
        self, data: Sequence[tuple[str, Row]], *, correlation_id: str | None = None, traceparent: str | None = None
    ) -> None:
        """Writes rows at their ranges in one request, which takes effect as a whole or not at all."""
        body = {
            "valueInputOption": "RAW",
            "data": [{"range": where, "majorDimension": "ROWS", "values": [row]} for where, row in data],
        }
        await self._call(
            "POST", "/values:batchUpdate", body=body, correlation_id=correlation_id, traceparent=traceparent
        )

    async def append(
        self, where: str, rows: Sequence[Row], *, correlation_id: str | None = None, traceparent: str | None = None
    ) -> str:
        """Appends rows below the table in `where`, as a whole or not at all, and returns the range that they got."""
        answer = await self._call(
            "POST",
            f"/values/{quote(where, safe='')}:append",
            params={"valueInputOption": "RAW", "insertDataOption": "INSERT_ROWS"},
            body={"majorDimension": "ROWS", "values": rows},
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        written = answer.get("updates", {}).get("updatedRange")
        if not isinstance(written, str):
            raise NoAnswerError("Google Sheets did not say which rows it appended")
        return written

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.close()
        await self._login.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> dict[str, Any]:
        self.requests += 1
        response = await self._http.request(
            method,
            self._path + path,
            params=params,
            correlation_id=correlation_id,
            traceparent=traceparent,
            **({} if body is None else {"json": body}),
        )
        return self._judged(response, writes=method != "GET")

    def _judged(self, response: HttpResponse, *, writes: bool) -> dict[str, Any]:
        answer = _parsed(response)
        status, reason = response.status, _reason(answer, response.status)
        if 200 <= status < 300:
            if answer is None:
                raise NoAnswerError("what answered for Google Sheets sent no JSON")
            return answer
        if status == 400 and any(sign in reason for sign in _MISPLACED):
            raise MisplacedRangeError(reason)
        if status == 400 and _FULL not in reason:
            raise RejectedError(f"Google Sheets refused the row: {reason}", code="google_sheets.refused")
        if status in (429, 503):
            named = _LIMIT.search(reason)
            raise RetriableError(
                f"Google Sheets answered {status}: {reason}",
                after=response.retry_after(),
                code="google_sheets.quota" if status == 429 else "google_sheets.unavailable",
                limit=named[1] if named is not None else None,
            )
        if status >= 500 or status == 408:
            # Other server errors don't say whether the write took place.
            text = f"Google Sheets answered {status}: {reason}"
            code = "google_sheets.unavailable"
            raise NoAnswerError(text) if writes else RetriableError(text, after=response.retry_after(), code=code)
        raise FatalError(
            f"Google Sheets answered {status} for spreadsheet {self._spreadsheet}: {reason}",
            hint=_ADVICE.get(status, "mend the spreadsheet or the connection, then restart the pipeline"),
            code="google_sheets.refused",
        )


_ADVICE = {
    400: "the spreadsheet is full: move old rows away",
    401: "the service account's key was refused: make a new one",
    403: "share the spreadsheet with the service account's e-mail address as an editor, and enable the Sheets API",
    404: "check the spreadsheet's id",
}


def _parsed(response: HttpResponse) -> dict[str, Any] | None:
    try:
        found = response.json()
    except RetriableError:
        return None
    return found if isinstance(found, dict) else None


def _reason(answer: dict[str, Any] | None, status: int) -> str:
    error = (answer or {}).get("error")
    if isinstance(error, dict):
        return f"{error.get('status', status)}: {error.get('message', '')}"
    return "no reason given"
