"""The worksheets of the Google Sheets stand-in: cells, what `RAW` and `USER_ENTERED` make of input, appends and rendering.

Facts from https://developers.google.com/workspace/sheets/api/reference/rest/v4/ValueInputOption, `ValueRenderOption` and
the guide to reading and writing values: RAW stores as it is, USER_ENTERED parses as the user interface does, null skips a cell,
and what is read has no empty rows and columns at its end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Any

from sinks.google_sheets.a1 import Span, column_letters, quoted

MAX_CHARACTERS = 50_000
_NUMBER = re.compile(r"^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?$")
_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}$")
_LABEL = re.compile(r'^=HYPERLINK\("[^"]*"\s*[,;]\s*"([^"]*)"\)$', re.IGNORECASE)
_DAY_ZERO = date(1899, 12, 30)


class BadRequestError(ValueError):
    """What the API answers with 400 INVALID_ARGUMENT."""


@dataclass(slots=True)
class Cell:
    """What a cell holds: the value, and the formula that makes it where it is live."""

    value: Any = None
    formula: str | None = None

    @property
    def empty(self) -> bool:
        """True for a cell that was never filled, or filled with the empty text."""
        return self.formula is None and (self.value is None or self.value == "")

    def shown(self, option: str) -> Any:
        """The value as `FORMATTED_VALUE`, `UNFORMATTED_VALUE` or `FORMULA` renders it."""
        if option == "FORMULA" and self.formula is not None:
            return self.formula
        if self.value is None:
            return ""
        if option != "FORMATTED_VALUE":
            return self.value
        if isinstance(self.value, bool):
            return "TRUE" if self.value else "FALSE"
        if isinstance(self.value, float) and self.value.is_integer():
            return str(int(self.value))
        return str(self.value)


class Worksheet:
    """One sheet of a spreadsheet."""

    def __init__(self, number: int, title: str, rows: int = 1000, columns: int = 26) -> None:
        self.number = number
        self.title = title
        self.row_count = rows
        self.column_count = columns
        self._rows: list[list[Cell]] = []

    @property
    def formulas(self) -> list[str]:
        """The formulas that are live."""
        return [cell.formula for row in self._rows for cell in row if cell.formula is not None]

    def values(self) -> list[list[Any]]:
        """All rows as they are, unformatted, without empty cells at the ends."""
        return self.read(Span(), "UNFORMATTED_VALUE")

    def read(self, span: Span, option: str) -> list[list[Any]]:
        """The values of a rectangle, without empty rows and cells at the ends."""
        top, left, bottom, right = self._bounded(span)
        found = []
        for number in range(top, min(bottom, len(self._rows)) + 1):
            cells = self._rows[number - 1][left - 1 : right]
            while cells and cells[-1].empty:
                cells.pop()
            found.append([cell.shown(option) for cell in cells])
        while found and not found[-1]:
            found.pop()
        return found

    def write(self, span: Span, values: list[list[Any]], option: str) -> str:
        """Writes a rectangle from its upper left corner and returns the range that was written."""
        top, left, _, _ = self._bounded(span)
        width = max((len(row) for row in values), default=0)
        if left + width - 1 > self.column_count or top + len(values) - 1 > self.row_count:
            place = f"{self.title}!{column_letters(left)}{top}"
            raise BadRequestError(
                f"Range ({place}) exceeds grid limits. Max rows: {self.row_count}, max columns: {self.column_count}"
            )
        # Everything is read before anything is written, so that a refused request has no effect.
        cells = [[None if value is None else _cell(value, option) for value in row] for row in values]
        for down, row in enumerate(cells):
            for along, cell in enumerate(row):
                if cell is not None:
                    self._put(top + down, left + along, cell)
        return self._name(top, left, top + max(len(values), 1) - 1, left + max(width, 1) - 1)

    def append(self, span: Span, values: list[list[Any]], option: str, *, insert: bool) -> tuple[str | None, str]:
        """Writes below the last table within `span`; returns the table's range (None without one) and the one that was written."""
        table = self._table(span)
        row, column = (table[2] + 1, table[1]) if table else (span.first_row or 1, span.first_column or 1)
        width = max((len(each) for each in values), default=0)
        cells = [[None if value is None else _cell(value, option) for value in each] for each in values]
        if insert and row <= len(self._rows):
            self._rows[row - 1 : row - 1] = [[] for _ in values]
            self.row_count += len(values)
        self.row_count = max(self.row_count, row + len(values) - 1)
        self.column_count = max(self.column_count, column + width - 1)
        for down, each in enumerate(cells):
            for along, cell in enumerate(each):
                if cell is not None:
                    self._put(row + down, column + along, cell)
        written = self._name(row, column, row + max(len(values), 1) - 1, column + max(width, 1) - 1)
        return (self._name(*table) if table else None), written

    def clear(self, span: Span) -> str:
        """Empties a rectangle and returns its range."""
        top, left, bottom, right = self._bounded(span)
        for row in self._rows[top - 1 : bottom]:
            for index in range(left - 1, min(right, len(row))):
                row[index] = Cell()
        return self._name(top, left, bottom, right)

    def delete_rows(self, start: int, end: int) -> None:
        """Takes away the rows from `start` (counted from 0) up to and without `end`."""
        del self._rows[start:end]
        self.row_count -= end - start

    def insert_rows(self, start: int, count: int) -> None:
        """Puts empty rows before row `start` (counted from 0)."""
        self._rows[start:start] = [[] for _ in range(count)]
        self.row_count += count

    def sort(self, column: int) -> None:
        """Sorts everything below the first row by a column, as a person might."""
        head, rest = self._rows[:1], self._rows[1:]
        self._rows = head + sorted(rest, key=lambda row: str(row[column - 1].value) if len(row) >= column else "")

    def dump(self) -> dict[str, Any]:
        """The sheet as JSON, to be kept on disk."""
        rows = [[[cell.value, cell.formula] for cell in row] for row in self._rows]
        return {
            "number": self.number,
            "title": self.title,
            "rows": self.row_count,
            "columns": self.column_count,
            "cells": rows,
        }

    @classmethod
    def load(cls, kept: dict[str, Any]) -> Worksheet:
        """The sheet that `dump` kept."""
        sheet = cls(kept["number"], kept["title"], kept["rows"], kept["columns"])
        sheet._rows = [[Cell(value, formula) for value, formula in row] for row in kept["cells"]]
        return sheet

    def range_of(self, span: Span) -> str:
        """The range in full, as answers give it back."""
        return self._name(*self._bounded(span))

    def _bounded(self, span: Span) -> tuple[int, int, int, int]:
        top, left = span.first_row or 1, span.first_column or 1
        if top > self.row_count or left > self.column_count:
            place = f"{self.title}!{column_letters(left)}{top}"
            raise BadRequestError(
                f"Range ({place}) exceeds grid limits. Max rows: {self.row_count}, max columns: {self.column_count}"
            )
        return (
            top,
            left,
            min(span.last_row or self.row_count, self.row_count),
            min(span.last_column or self.column_count, self.column_count),
        )

    def _table(self, span: Span) -> tuple[int, int, int, int] | None:
        """The last block of rows without a blank one between, within the columns of `span`."""
        left, right = span.first_column or 1, span.last_column or self.column_count
        filled = [
            [index for index, cell in enumerate(row, 1) if left <= index <= right and not cell.empty]
            for row in self._rows
        ]
        bottom = next((number for number in range(len(filled), 0, -1) if filled[number - 1]), None)
        if bottom is None:
            return None
        top = bottom
        while top > 1 and filled[top - 2]:
            top -= 1
        block = filled[top - 1 : bottom]
        return top, min(min(row) for row in block), bottom, max(max(row) for row in block)

    def _put(self, row: int, column: int, cell: Cell) -> None:
        while len(self._rows) < row:
            self._rows.append([])
        cells = self._rows[row - 1]
        while len(cells) < column:
            cells.append(Cell())
        cells[column - 1] = cell

    def _name(self, top: int, left: int, bottom: int, right: int) -> str:
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.title)
        title = self.title if plain else quoted(self.title)
        start, end = f"{column_letters(left)}{top}", f"{column_letters(right)}{bottom}"
        return f"{title}!{start}" if start == end else f"{title}!{start}:{end}"


def _cell(value: Any, option: str) -> Cell:
    if isinstance(value, (dict, list)):
        raise BadRequestError("Invalid values: a cell takes a number, a text or a boolean")
    if isinstance(value, str) and len(value) > MAX_CHARACTERS:
        raise BadRequestError(
            f"Your input contains more than the maximum of {MAX_CHARACTERS} characters in a single cell."
        )
    if option == "USER_ENTERED" and isinstance(value, str):
        return _typed_in(value)
    return Cell(value)


def _typed_in(text: str) -> Cell:
    """What the user interface makes of typed text: formulas live, numbers, booleans, dates, and `'` for plain text."""
    if text.startswith("'"):
        return Cell(text[1:])
    if text.upper() in ("TRUE", "FALSE"):
        return Cell(text.upper() == "TRUE")
    if _NUMBER.match(text):
        number = float(text)
        return Cell(int(number) if number.is_integer() else number)
    if _DATE.match(text):
        return Cell((date.fromisoformat(text) - _DAY_ZERO).days)
    if text[:1] in ("=", "+"):
        formula = text if text.startswith("=") else f"={text}"
        label = _LABEL.match(formula)
        return Cell(label.group(1) if label else "#ERROR!", formula)
    return Cell(text)
