"""The conformance of the `google_sheets` sink, appending with the idempotency key in a column."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sinks.google_sheets.mock import GoogleSheetsMock, GoogleSheetsMockSettings
from sinks.google_sheets.sink import GoogleSheetsSink
from trunkline.core.testing import NotApplicableError, SinkKit, sink_suite

_OCCASIONS: tuple[Literal["write", "read", "token"], ...] = ("write", "read", "token")


class GoogleSheetsKit(SinkKit):
    """Google Sheets' stand-in, which is checked against gspread elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._mock = GoogleSheetsMock(GoogleSheetsMockSettings(retry_after=7.0, key_file=folder / "key.json"))

    @property
    def environment(self) -> Mapping[str, str]:
        return self._mock.environment

    @property
    def secrets(self) -> Sequence[str]:
        key = json.loads(self._mock.environment["GOOGLE_SHEETS_KEY"])["private_key"]
        return (key, key.splitlines()[1])

    @property
    def config(self) -> Any:
        return {"spreadsheet": self._mock.environment["GOOGLE_SHEETS_ID"], "columns": {"Number": "int(event.number)"}}

    @property
    def connection(self) -> dict[str, Any]:
        return {
            "service_account": "${env:GOOGLE_SHEETS_KEY}",
            "base_url": self._mock.url,
            "http": {"allow_private": ["127.0.0.1"]},
        }

    async def start(self) -> None:
        await self._mock.start()

    async def stop(self) -> None:
        await self._mock.stop()

    def value(self, number: int) -> Any:
        return {"number": number}

    def bad_value(self) -> Any:
        return {"number": "no number"}

    async def arrived(self) -> Sequence[int]:
        rows = self._mock.contents()["Sheet1"]
        return [int(row[0]) for row in rows[1:] if row]

    async def break_down(self) -> None:
        self._mock.fail(1, "unavailable", "write")

    async def throttle(self) -> float:
        self._mock.fail(1, "throttled", "write")
        return 7

    async def refuse(self) -> None:
        for occasion in _OCCASIONS:
            self._mock.fail(100, "denied", occasion)

    async def hang(self) -> None:
        raise NotApplicableError(
            "the stand-in always answers; the `http` sink's suite hangs the client that both share"
        )


TestGoogleSheetsSink = sink_suite(GoogleSheetsSink, factory=GoogleSheetsKit)
