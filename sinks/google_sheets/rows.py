"""Rows: what the cells of an event's row hold.

The Sheets API takes texts, numbers and booleans; null leaves a cell as it is, the empty text empties it
(https://developers.google.com/workspace/sheets/api/reference/rest/v4/spreadsheets.values#ValueRange).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from sinks.google_sheets.settings import GoogleSheetsSettings
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import compile_expression

MAX_CHARACTERS = 50_000
"""Characters that a cell takes (https://support.google.com/drive/answer/37603)."""
_MAX_EXACT = 2**53
"""Sheets keeps numbers as doubles: a larger integer would lose its last digits, so it goes as a text."""


class RowMaker:
    """Makes an event's row for a worksheet whose row 1 is `header`: cells of columns that are not ours are None."""

    def __init__(self, settings: GoogleSheetsSettings, header: Sequence[str]) -> None:
        self._columns = [
            (header.index(name), name, compile_expression(text, where=f"config.columns.{name}"))
            for name, text in settings.expressions.items()
        ]
        self._dedupe = header.index(settings.dedupe_column) if settings.dedupe_column in settings.header else None
        identity = settings.identity_column
        self._identity = None if identity is None else header.index(identity)
        self.width = 1 + max(header.index(name) for name in settings.header)

    def row(self, event: Event) -> list[Any]:
        """The cells. Raises `RejectedError` for an expression that fails and for a value that no cell can hold."""
        cells: list[Any] = [None] * self.width
        for index, name, expression in self._columns:
            try:
                cells[index] = cell(expression.datum(event.value, event))
            except RejectedError as error:
                raise RejectedError(f"column {name!r}: {error.message}", code=error.code) from error
        if self._dedupe is not None:
            cells[self._dedupe] = event.idempotency_key or f"{event.envelope.source}#{event.envelope.id}"
        return cells

    def identity(self, cells: Sequence[Any]) -> str:
        """What names this row in its worksheet. Raises `RejectedError` when that cell is empty; the empty text where nothing does."""
        if self._identity is None:
            return ""
        found = identity_text(cells[self._identity])
        if not found:
            raise RejectedError("the key column would be empty", code="google_sheets.key_empty")
        return found


def identity_text(value: Any) -> str:
    """A key cell as text, alike for what was sent and what is read back: 5, 5.0 and "5" name the same row."""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None else str(value)


def cell(value: Any) -> str | int | float | bool:
    """The cell for a value: numbers and booleans stay what they are, null is the empty text, all else is a text.

    Times are ISO 8601, bytes base64, lists and maps JSON. Raises `RejectedError` for a text that is too long or no Unicode.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) <= _MAX_EXACT else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        return _decimal(value)
    return _checked(_text(value))


def _decimal(value: Decimal) -> float | int | str:
    number = float(value)
    return number if math.isfinite(number) and Decimal(str(number)) == value else str(value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    try:
        return orjson.dumps(value, default=_text, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError as error:
        raise RejectedError(f"a {type(value).__name__} fits no cell: {error}", code="google_sheets.value") from error


def _checked(text: str) -> str:
    if len(text) > MAX_CHARACTERS:
        raise RejectedError(
            f"the text has {len(text):,} characters and a cell takes {MAX_CHARACTERS:,}", code="google_sheets.too_long"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RejectedError("the text is no valid Unicode", code="google_sheets.value") from error
    return text
