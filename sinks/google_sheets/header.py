"""The header row: checked at the start, written into an empty worksheet."""

from __future__ import annotations

from sinks.google_sheets.a1 import column_letters, quoted
from sinks.google_sheets.client import SheetsClient
from sinks.google_sheets.rows import identity_text
from sinks.google_sheets.settings import GoogleSheetsSettings
from trunkline.core.errors import ConfigurationError, RejectedError, did_you_mean


async def settle_header(client: SheetsClient, settings: GoogleSheetsSettings) -> list[str]:
    """The names in row 1, after writing ours if the worksheet was empty.

    Raises `ConfigurationError` when there is no such worksheet, when a column is missing or there twice, and when the table
    does not begin in A1; and what the client raises.
    """
    titles = [sheet.title for sheet in await client.sheets()]
    if settings.worksheet not in titles:
        raise ConfigurationError(
            f"the spreadsheet has no worksheet {settings.worksheet!r}",
            hint=did_you_mean(settings.worksheet, titles),
            code="google_sheets.worksheet",
        )
    found = await client.read(f"{quoted(settings.worksheet)}!1:1")
    header = [identity_text(value) for value in found[0]] if found else []
    if not header:
        header = await _written(client, settings)
    _check(header, settings)
    return header


async def _written(client: SheetsClient, settings: GoogleSheetsSettings) -> list[str]:
    """Writes the header into an empty worksheet, unless another worker has done so meanwhile, and returns it."""
    title, names = quoted(settings.worksheet), settings.header
    last = column_letters(len(names))
    try:
        rows = await client.read(f"{title}!A:{last}")
        if rows and rows[0]:
            return [identity_text(value) for value in rows[0]]
        if rows:
            raise ConfigurationError(
                f"row 1 of worksheet {settings.worksheet!r} is empty, but there are rows below it",
                hint=f"write the column names into row 1: {', '.join(names)}",
                code="google_sheets.header",
            )
        await client.update([(f"{title}!A1:{last}1", names)])
    except RejectedError as error:
        raise ConfigurationError(
            f"the header can't be written into worksheet {settings.worksheet!r}: {error.message}",
            hint=f"it needs {len(names)} columns",
            code="google_sheets.header",
        ) from error
    return names


def _check(header: list[str], settings: GoogleSheetsSettings) -> None:
    where = f"row 1 of worksheet {settings.worksheet!r}"
    if not header[0]:
        # The API appends where it finds the table's first column.
        raise ConfigurationError(f"{where} must begin in column A", code="google_sheets.header")
    missing = [name for name in settings.header if name not in header]
    if missing:
        raise ConfigurationError(
            f"{where} lacks {', '.join(repr(name) for name in missing)}; it holds {', '.join(header)}",
            hint="add the columns to the worksheet, or name its columns in the manifest",
            code="google_sheets.header",
        )
    twice = [name for name in settings.header if header.count(name) > 1]
    if twice:
        raise ConfigurationError(
            f"{where} holds {', '.join(repr(name) for name in twice)} twice",
            hint="rename one of the columns",
            code="google_sheets.header",
        )
