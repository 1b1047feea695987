"""The CSV of bulk jobs: cells and tables that are sent, and results that are read.

https://developer.salesforce.com/docs/atlas.en-us.api_asynch.meta/api_asynch/datafiles_prepare_csv.htm
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sinks.salesforce.outcomes import Failure

Cells = list[str]

NULL = "#N/A"
"""Empties a field; an empty cell leaves it as it is ("Prepare CSV Files")."""
MAX_CELL = 32_000
"""The most characters of one field of a job ("Limits and Allocations", Bulk API 2.0)."""
MAX_UPLOAD = 100 * 1000 * 1000
"""Bytes of one job's CSV: 150 MB after base64, which Salesforce applies, so 100 MB are advised."""


class Result(NamedTuple):
    """One row of a job's results: its external id as it was sent, its record id or None, and why it was refused or None."""

    key: str
    record_id: str | None = None
    error: str | None = None


def cell(value: Any, *, empties: bool) -> str | None:
    """A JSON value as a cell, or None where CSV can't say it: text that CSV takes for a null, or that is too long.

    A null leaves the field as it is, unless `empties`. Empty text always empties it, as it does in JSON.
    """
    if value is None:
        return NULL if empties else ""
    if value is True:
        return "true"
    if value is False:
        return "false"
    if not isinstance(value, str):
        return str(value)
    if value == NULL or len(value) > MAX_CELL:
        return None
    return value if value and not value.isspace() else NULL


def written(columns: Sequence[str], rows: Sequence[Cells]) -> bytes:
    """A job's CSV: a header, comma, LF, quotes where a cell needs them."""
    lines = _Lines()
    # Until Python 3.13 the writer quotes a CR only where its own line end has one, and a bare CR ends a row for who reads it.
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return "".join(lines).encode("utf-8", "replace")


class _Lines(list[str]):
    """What the writer writes: a row at a time, which is given the line end of jobs."""

    def write(self, row: str) -> None:
        self.append(row[:-2] + "\n")


def read_results(data: bytes, key: str) -> Iterator[Result]:
    """The rows of successful, failed or unprocessed results. Raises ValueError for what is no such table."""
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""), strict=True)
    try:
        header = next(reader, [])
        at = _column(header, key)
        id_at, error_at = _place(header, "sf__Id"), _place(header, "sf__Error")
        if at is None:
            raise ValueError(f"the results have no column {key}")
        for row in reader:
            yield Result(
                row[at],
                (row[id_at] or None) if id_at is not None else None,
                row[error_at] if error_at is not None else None,
            )
    except (csv.Error, IndexError) as error:
        raise ValueError(f"the results are no CSV: {error}") from error


def failure_of(error: str) -> Failure:
    """The error of a failed row, such as `REQUIRED_FIELD_MISSING:Required fields are missing: [Name]:Name --`."""
    code, _, rest = error.partition(":")
    body = rest.removesuffix("--").rstrip()
    message, colon, fields = body.rpartition(":")
    if not colon:
        message, fields = body, ""
    return Failure(
        code.strip() or "UNKNOWN", message.strip(), tuple(name for name in fields.split(",") if name.strip())
    )


def _column(header: Sequence[str], key: str) -> int | None:
    """The column of the external id: Salesforce may spell it as the object does."""
    return next((at for at, name in enumerate(header) if name.lower() == key.lower()), None)


def _place(header: Sequence[str], name: str) -> int | None:
    return header.index(name) if name in header else None
