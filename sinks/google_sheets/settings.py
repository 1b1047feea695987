"""Settings of the Google Sheets sink and of its connection."""

from __future__ import annotations

import json
from typing import Literal

from pydantic import field_validator, model_validator

from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.expressions import compile_expression
from trunkline.core.http import HttpOptions
from trunkline.core.settings import Secret, Settings, setting


class GoogleSheetsConnection(Settings):
    """A Google service account. The spreadsheet must be shared with its e-mail address, as an editor."""

    service_account: Secret = setting(
        description="The service account's key file: the JSON text that Google's console lets you download.",
        examples=["${file:/run/secrets/sheets.json}"],
    )
    base_url: str = setting("https://sheets.googleapis.com", description="Where the Sheets API is.", references=True)
    http: HttpOptions = setting(HttpOptions(), description="Time-outs, limits and addresses of the requests.")

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str) -> str:
        return value.rstrip("/")


class GoogleSheetsSettings(Settings):
    """Which worksheet gets which columns. Values are written RAW: a text that looks like a formula stays a text."""

    spreadsheet: str = setting(
        min_length=1,
        description="The spreadsheet's id: the long part of its address after /d/.",
        examples=["1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms"],
        references=True,
    )
    worksheet: str = setting("Sheet1", min_length=1, description="The title of the worksheet (the tab).")
    columns: dict[str, str] | list[str] = setting(
        min_length=1,
        description=(
            "What each column gets: an expression by the column's name, or a list of fields that are columns of the same name. "
            "Row 1 holds the names; an empty worksheet gets them, in this order. Columns that are not named here are left alone."
        ),
        examples=[{"Flight": "event.carrier + string(event.flight)", "Minutes": "event.minutes"}],
    )
    mode: Literal["append", "upsert"] = setting(
        "append", description="append: a new row for each event. upsert: one row for each value of the key column."
    )
    key: str | None = setting(
        None, description="With upsert: the column whose value names the row.", examples=["Flight"]
    )
    dedupe_column: str | None = setting(
        "_trunkline_id",
        description=(
            "With append: a column that gets the delivery's idempotency key, so that a row is never appended twice. "
            "null leaves it out; then a crash or a lost answer may append rows again."
        ),
    )

    @property
    def expressions(self) -> dict[str, str]:
        """The expression of each column, in order."""
        if isinstance(self.columns, dict):
            return self.columns
        return {name: f"event.{name}" if name.isidentifier() else f"event[{json.dumps(name)}]" for name in self.columns}

    @property
    def identity_column(self) -> str | None:
        """The column that tells whether an event has its row: the key's, or the idempotency key's; None where nothing does."""
        return self.key if self.mode == "upsert" else self.dedupe_column

    @property
    def header(self) -> list[str]:
        """The names of all columns that are written, in order."""
        names = list(self.expressions)
        return [*names, self.dedupe_column] if self.mode == "append" and self.dedupe_column else names

    @field_validator("columns")
    @classmethod
    def _compiles(cls, value: dict[str, str] | list[str]) -> dict[str, str] | list[str]:
        names = list(value)
        if not all(name.strip() for name in names):
            raise ValueError("a column has no name")
        if len(set(names)) != len(names):
            raise ValueError("a column is named twice")
        for name, text in value.items() if isinstance(value, dict) else ():
            try:
                compile_expression(text)
            except ConfigurationError as error:
                raise ValueError(f"column {name!r}: {error}") from error
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> GoogleSheetsSettings:
        if self.mode == "append" and self.key is not None:
            raise ValueError("key belongs to mode: upsert")
        if self.mode == "upsert" and self.key is None:
            raise ValueError("mode: upsert needs key, the column whose value names the row")
        if self.key is not None and self.key not in self.expressions:
            raise ValueError(f"key {self.key!r} is none of the columns ({did_you_mean(self.key, self.expressions)})")
        if self.mode == "append" and self.dedupe_column in self.expressions:
            raise ValueError(f"dedupe_column {self.dedupe_column!r} is also in columns; give one of them another name")
        return self
