"""Where the rows are: the identity column of a worksheet, kept in memory and checked against the sheet before each write.

People sort, insert and delete rows at any time, and other workers append; a row number that was right a minute ago may name
another row now. So each look reads the column again from the first row that matters, and all of it when anything moved.
"""

from __future__ import annotations

from collections.abc import Iterable

from sinks.google_sheets.a1 import column_letters, quoted
from sinks.google_sheets.client import MisplacedRangeError, SheetsClient
from sinks.google_sheets.rows import identity_text
from trunkline.core.errors import FatalError

_CHUNK = 50_000
"""Rows a read, so that an answer stays within some megabytes."""


class RowIndex:
    """The row numbers (from 1) by identity. A row that was written is found here, whoever wrote it."""

    def __init__(self, client: SheetsClient, worksheet: str, name: str, column: int) -> None:
        self._client = client
        self._worksheet = worksheet
        self._name = name
        self._letters = column_letters(column)
        self._column: list[str] = []
        self._rows: dict[str, int] = {}

    def row(self, identity: str) -> int | None:
        """The row of an identity, or None. Where two rows have the same one, the upper."""
        return self._rows.get(identity)

    def forget(self) -> None:
        """Makes the next look read everything: after an answer that never came."""
        self._column, self._rows = [], {}

    async def look(self, identities: Iterable[str]) -> None:
        """Brings the index up to date for these identities and for all rows at the end. Raises what the client raises for reads."""
        if not self._column:
            await self._read_all()
            return
        last = len(self._column)
        first = min((self._rows[each] for each in identities if each in self._rows), default=last)
        if last - first > _CHUNK:
            await self._read_all()
            return
        try:
            found = await self._read(f"{self._letters}{first}:{self._letters}")
        except MisplacedRangeError:
            # Rows were deleted, so that the grid ends before the row that was the last.
            await self._read_all()
            return
        known = self._column[first - 1 :]
        if found[: len(known)] != known:
            await self._read_all()
        else:
            self._add(found[len(known) :])

    async def _read_all(self) -> None:
        sheet = next((each for each in await self._client.sheets() if each.title == self._worksheet), None)
        if sheet is None:
            raise FatalError(
                f"the worksheet {self._worksheet!r} is gone",
                hint="name it again as the manifest does",
                code="google_sheets.worksheet",
            )
        self.forget()
        for start in range(1, sheet.rows + 1, _CHUNK):
            end = min(start + _CHUNK - 1, sheet.rows)
            found = await self._read(f"{self._letters}{start}:{self._letters}{end}")
            if found:
                # Empty rows at a chunk's end are left out of the answer, yet the rows behind them count on.
                self._add([""] * (start - 1 - len(self._column)) + found)
        if self._column[:1] != [self._name]:
            head = self._column[0] if self._column else ""
            self.forget()
            raise FatalError(
                f"column {self._letters} of {self._worksheet!r} is headed {head!r} and was {self._name!r}",
                hint="put the columns back as they were, then restart the pipeline",
                code="google_sheets.header",
            )

    async def _read(self, cells: str) -> list[str]:
        rows = await self._client.read(f"{quoted(self._worksheet)}!{cells}")
        return [identity_text(row[0]) if row else "" for row in rows]

    def _add(self, identities: list[str]) -> None:
        for identity in identities:
            self._column.append(identity)
            # Row 1 is the header; a key that reads like it must not name it.
            if identity and len(self._column) > 1:
                self._rows.setdefault(identity, len(self._column))
