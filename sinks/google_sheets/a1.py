"""A1 notation (https://developers.google.com/workspace/sheets/api/guides/concepts#expression)."""

from __future__ import annotations

import re
from dataclasses import dataclass

_CELL = re.compile(r"^\$?([A-Za-z]{1,3})?\$?([1-9][0-9]*)?$")


@dataclass(frozen=True, slots=True)
class Span:
    """A rectangle of cells. Rows and columns count from 1; None is open: from the first, or to the last."""

    first_row: int | None = None
    first_column: int | None = None
    last_row: int | None = None
    last_column: int | None = None


def column_letters(number: int) -> str:
    """The letters of a column: 1 is A, 27 is AA."""
    letters = ""
    while number > 0:
        number, rest = divmod(number - 1, 26)
        letters = chr(ord("A") + rest) + letters
    return letters


def column_number(letters: str) -> int:
    """The number of a column: A is 1, AA is 27."""
    number = 0
    for letter in letters.upper():
        number = number * 26 + ord(letter) - ord("A") + 1
    return number


def quoted(title: str) -> str:
    """A worksheet's title as it stands in a range: always quoted, inner quotes doubled."""
    return "'" + title.replace("'", "''") + "'"


def split_title(text: str) -> tuple[str | None, str]:
    """The worksheet's title (None where the range names none) and the cells of a range.

    A title may itself hold an exclamation mark, so only the one after the closing quote, or the last one, divides.
    """
    if text.startswith("'"):
        match = re.match(r"^'((?:[^']|'')*)'(?:!(.*))?$", text, re.DOTALL)
        if match is None:
            raise ValueError(f"Unable to parse range: {text}")
        return match.group(1).replace("''", "'"), match.group(2) or ""
    title, mark, cells = text.rpartition("!")
    return (title, cells) if mark else (None, text)


def parse_span(text: str) -> Span:
    """The rectangle that `A1`, `A1:C9`, `A:C`, `2:5`, `A5:A` or the empty text (everything) means.

    Raises ValueError in Google's own words for anything else.
    """
    if not text:
        return Span()
    start, colon, end = text.partition(":")
    first, last = _CELL.match(start), _CELL.match(end if colon else start)
    if first is None or last is None or not start or (colon and not end) or (not colon and None in first.groups()):
        raise ValueError(f"Unable to parse range: {text}")
    return Span(
        int(first.group(2)) if first.group(2) else None,
        column_number(first.group(1)) if first.group(1) else None,
        int(last.group(2)) if last.group(2) else None,
        column_number(last.group(1)) if last.group(1) else None,
    )


def first_cell(text: str) -> tuple[int, int]:
    """Row and column of the upper left cell of a range such as `'My sheet'!B5:F9`. Raises ValueError where it names none."""
    span = parse_span(split_title(text)[1])
    if span.first_row is None or span.first_column is None:
        raise ValueError(f"Unable to parse range: {text}")
    return span.first_row, span.first_column
