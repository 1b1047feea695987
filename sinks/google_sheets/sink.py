"""Delivers events as rows of a worksheet."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sinks.google_sheets.a1 import column_letters, first_cell, quoted
from sinks.google_sheets.client import MisplacedRangeError, SheetsClient
from sinks.google_sheets.header import settle_header
from sinks.google_sheets.index import RowIndex
from sinks.google_sheets.rows import RowMaker
from sinks.google_sheets.settings import GoogleSheetsConnection, GoogleSheetsSettings
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import FatalError, RejectedError, RetriableError
from trunkline.core.event import Event
from trunkline.core.http import NoAnswerError
from trunkline.core.uses import ExpressionUse, FieldUse, Use
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

MAX_REQUEST = 1_000_000
"""Bytes of cells a request. Google recommends payloads of at most 2 MB (https://developers.google.com/workspace/sheets/api/limits);
half of that leaves room for what JSON adds.
"""


@dataclass(slots=True)
class _Row:
    """A row to be written and the events of the batch that it settles; the last of them made its cells."""

    cells: list[Any]
    events: list[int] = field(default_factory=list)
    number: int | None = None

    @property
    def size(self) -> int:
        return sum(3 + len(value.encode()) if isinstance(value, str) else 20 for value in self.cells)


_Send = Callable[[Sequence[_Row]], Awaitable[None]]


class GoogleSheetsSink(Sink):
    """Appends a row for each event, or keeps one row for each key up to date. Batches share requests, which Google counts."""

    settings_type = GoogleSheetsSettings
    connection_type = GoogleSheetsConnection
    summary = "Writes events as rows of a Google Sheets worksheet: append, or upsert by a key column."
    promises = Promises(idempotent=True, max_batch=500)

    settings: GoogleSheetsSettings
    connection: GoogleSheetsConnection

    def __init__(self, settings: GoogleSheetsSettings, connection: GoogleSheetsConnection) -> None:
        super().__init__(settings, connection)
        if settings.identity_column is None:
            # Nothing in the sheet then tells whether a row has been appended.
            self.promises = Promises(idempotent=False, max_batch=500)
        self._client: SheetsClient | None = None
        self._context: PluginContext | None = None
        self._rows: RowMaker | None = None
        self._index: RowIndex | None = None
        # Row numbers change with every append, so one write at a time looks and then writes. The quota allows one a second anyway.
        self._turn = asyncio.Lock()

    def uses(self) -> Sequence[Use]:
        """An expression for each column, or the fields that columns are called after."""
        settings = self.settings
        if isinstance(settings.columns, dict):
            return [ExpressionUse(text, f"config.columns.{name}") for name, text in settings.columns.items()]
        return [FieldUse((name,), f"config.columns[{index}]") for index, name in enumerate(settings.columns)]

    async def open(self, context: PluginContext) -> None:
        """Signs in, finds the worksheet, and checks its header or writes it into an empty worksheet."""
        self._context = context
        self._client = SheetsClient(self.connection, self.settings.spreadsheet)
        header = await settle_header(self._client, self.settings)
        self._rows = RowMaker(self.settings, header)
        identity = self.settings.identity_column
        if identity is not None:
            column = header.index(identity) + 1
            self._index = RowIndex(self._client, self.settings.worksheet, identity, column)
        context.log.info("worksheet_ready", worksheet=self.settings.worksheet, mode=self.settings.mode)

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """Writes what is not there yet, with as few requests as it takes, and one verdict for each event."""
        verdicts: dict[int, Verdict] = {}
        async with self._turn:
            made = self._made(batch.events, verdicts)
            before = self._client.requests if self._client is not None else 0
            try:
                if self._index is not None and made:
                    await self._index.look(identity for identity, _, _ in made)
            except RetriableError as error:
                # Only reading failed, so that nothing has happened, whatever became of the answer.
                waiting = Retry.of(error)
                return [verdicts.get(index, waiting) for index in range(len(batch.events))]
            await self._deliver(self._planned(made, verdicts), batch.events, verdicts)
            if self._client is not None and self._context is not None:
                self._context.quota.spend(max(0, self._client.requests - before - 1))
        return [verdicts[index] for index in range(len(batch.events))]

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.close()

    # --- from events to rows ------------------------------------------------------------------------------------------

    def _made(self, events: Sequence[Event], verdicts: dict[int, Verdict]) -> list[tuple[str, int, list[Any]]]:
        """Identity, place in the batch, and cells of each event; those that make no row get their verdict."""
        assert self._rows is not None, "open comes first"
        made = []
        for index, event in enumerate(events):
            try:
                cells = self._rows.row(event)
                made.append((self._rows.identity(cells), index, cells))
            except RejectedError as error:
                verdicts[index] = Dead(error.message, code=error.code)
        return made

    def _planned(self, made: list[tuple[str, int, list[Any]]], verdicts: dict[int, Verdict]) -> list[_Row]:
        """The rows to write: one for each identity, with its row number where it is there already."""
        if self._index is None:
            return [_Row(cells, [index]) for _, index, cells in made]
        planned: dict[str, _Row] = {}
        upsert = self.settings.mode == "upsert"
        for identity, index, cells in made:
            number = self._index.row(identity)
            if number is not None and not upsert:
                verdicts[index] = Ok(self._reference(number))
                continue
            row = planned.setdefault(identity, _Row(cells, number=number))
            # Of several events of one key in a batch, the last says what the row holds.
            row.cells = cells
            row.events.append(index)
        return list(planned.values())

    # --- from rows to verdicts ----------------------------------------------------------------------------------------

    async def _deliver(self, rows: list[_Row], events: Sequence[Event], verdicts: dict[int, Verdict]) -> None:
        """Updates, then appends; after the first failure that may pass the rest is not sent and is to be retried, in order."""

        def ids(chunk: Sequence[_Row]) -> dict[str, str | None]:
            # A request carries one id; the column expression meta.correlation_id carries each row's own.
            first = events[chunk[0].events[-1]]
            return {"correlation_id": first.correlation_id, "traceparent": first.envelope.traceparent}

        async def update(chunk: Sequence[_Row]) -> None:
            await self._update(chunk, ids(chunk))

        async def append(chunk: Sequence[_Row]) -> None:
            await self._append(chunk, ids(chunk))

        failure: Retry | Unknown | None = None
        there, new = [row for row in rows if row.number is not None], [row for row in rows if row.number is None]
        for send, all_rows in ((update, there), (append, new)):
            for chunk in _chunks(all_rows):
                failure = await self._settle(chunk, send, verdicts, failure)

    async def _settle(
        self, rows: Sequence[_Row], send: _Send, verdicts: dict[int, Verdict], failure: Retry | Unknown | None
    ) -> Retry | Unknown | None:
        """Sends rows in one request; refused ones again in halves, until the bad row stands alone. Returns a failure that may pass."""
        if failure is not None:
            after = failure.after if isinstance(failure, Retry) else None
            unsent = Retry(f"not sent after: {failure.reason}", after=after, code=failure.code)
            return _all(rows, verdicts, unsent, failure)
        try:
            await send(rows)
        except MisplacedRangeError as error:
            raise FatalError(
                f"the worksheet {self.settings.worksheet!r} is not as it was: {error.message}",
                hint="put the worksheet back as it was, then restart the pipeline",
                code="google_sheets.worksheet",
            ) from error
        except RejectedError as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                failure = await self._settle(rows[:middle], send, verdicts, None)
                return await self._settle(rows[middle:], send, verdicts, failure)
            # The refused cells are the last event's; the earlier ones of the same key have not been tried yet.
            *earlier, last = rows[0].events
            verdicts.update(dict.fromkeys(earlier, Retry("a later event of the same key was refused")))
            verdicts[last] = Dead(error.message, code=error.code)
            return None
        except NoAnswerError as error:
            if self._index is not None:
                self._index.forget()
            return _all(rows, verdicts, Unknown.of(error), Retry.of(error))
        except RetriableError as error:
            waiting = Retry.of(error)
            return _all(rows, verdicts, waiting, waiting)
        for row in rows:
            verdicts.update(dict.fromkeys(row.events, Ok(self._reference(row.number))))
        return None

    async def _update(self, rows: Sequence[_Row], ids: dict[str, str | None]) -> None:
        assert self._client is not None
        assert self._rows is not None
        title, last = quoted(self.settings.worksheet), column_letters(self._rows.width)
        await self._client.update([(f"{title}!A{row.number}:{last}{row.number}", row.cells) for row in rows], **ids)

    async def _append(self, rows: Sequence[_Row], ids: dict[str, str | None]) -> None:
        assert self._client is not None
        assert self._rows is not None
        table = f"{quoted(self.settings.worksheet)}!A:{column_letters(self._rows.width)}"
        written = await self._client.append(table, [row.cells for row in rows], **ids)
        try:
            number, column = first_cell(written)
        except ValueError as error:
            raise NoAnswerError(f"Google Sheets says it appended at {written!r}") from error
        if column != 1:
            # Google appends below the last block of cells it finds, which a stray cell further right begins elsewhere.
            raise FatalError(
                f"the rows were appended at {written}, not from column A on",
                hint="move them, take away what stands apart from the table, then restart the pipeline",
                code="google_sheets.misplaced",
            )
        for offset, row in enumerate(rows):
            row.number = number + offset

    def _reference(self, number: int | None) -> str:
        return f"{self.settings.worksheet}!A{number}"


def _all(
    rows: Sequence[_Row], verdicts: dict[int, Verdict], verdict: Verdict, failure: Retry | Unknown
) -> Retry | Unknown:
    for row in rows:
        verdicts.update(dict.fromkeys(row.events, verdict))
    return failure


def _chunks(rows: Sequence[_Row], limit: int = MAX_REQUEST) -> Iterator[Sequence[_Row]]:
    """The rows in pieces of at most `limit` bytes each; a row that is larger stands alone."""
    start, size = 0, 0
    for index, row in enumerate(rows):
        if index > start and size + row.size > limit:
            yield rows[start:index]
            start, size = index, 0
        size += row.size
    if rows[start:]:
        yield rows[start:]
