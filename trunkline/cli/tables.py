"""Tables that can be copied from: a name, an id, a time or a number stands whole in one line, however narrow the terminal is.

Three forms, the first that fits: everything side by side, free text broken at its spaces into what is left of the line; free text
in lines of its own below the row; the columns themselves in several lines, those after the first indented.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from trunkline.cli.printable import printable

TEXT_COLUMNS = frozenset(
    {
        "CHANGE",
        "DETAIL",
        "EXTRA",
        "FAULT",
        "FOUND",
        "HINT",
        "LACKS",
        "MEANING",
        "MISSING",
        "PROBLEM",
        "PROGRESS",
        "PROMISE",
        "REASON",
        "REFERENCE",
        "REMARK",
        "SUMMARY",
        "VALUE",
    }
)
"""Columns of sentences and lists, which may be broken between words. A cell of any other is never broken."""

_GAP = 2
_INDENT = 4
_LEAST_TEXT = 24
"""Free text that would get fewer columns than this stands below its row."""


def laid_out(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    styles: Mapping[str, str],
) -> Iterator[Text]:
    """The lines of a table. `width` is that of the terminal, None where none shows it; `styles` gives cells of a text a style."""
    cells = [[printable(cell) for cell in row] for row in rows]
    form = _form(columns, cells, width)
    if any(columns):
        yield from _lines(columns, columns, form, {}, "bold")
    for row in cells:
        yield from _lines(columns, row, form, styles)


@dataclass(frozen=True, slots=True)
class _Form:
    """Which columns stand in which line, how wide each is, and which stand below; `width` bounds the lines of the latter."""

    lines: list[list[int]]
    widths: dict[int, int]
    below: list[int]
    width: int | None


def _form(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int | None) -> _Form:
    every = range(len(columns))
    natural = {at: max(cell_len(columns[at]), *(cell_len(row[at]) for row in cells), 0) for at in every}
    if width is None or _needed(natural.values()) <= width:
        return _Form([list(every)], natural, [], None)
    texts = {at for at in every if columns[at] in TEXT_COLUMNS}
    least = {
        at: min(natural[at], max(_LEAST_TEXT, _longest_word(columns[at], [row[at] for row in cells]))) for at in texts
    }
    below: list[int] = []
    while texts:
        beside = [at for at in every if at not in below]
        room = width - _needed(natural[at] for at in beside if at not in texts) - _GAP * len(texts)
        if sum(least[at] for at in texts) <= room:
            return _Form([beside], {**natural, **_shared({at: natural[at] for at in texts}, least, room)}, below, width)
        below.append(max(texts, key=lambda at: (least[at], at)))
        texts.remove(below[-1])
    return _Form(_stacked([at for at in every if at not in below], natural, width), natural, sorted(below), width)


def _needed(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + _GAP * max(len(found) - 1, 0)


def _longest_word(title: str, texts: Sequence[str]) -> int:
    return max((cell_len(word) for text in (title, *texts) for word in text.split()), default=0)


def _shared(natural: Mapping[int, int], least: Mapping[int, int], room: int) -> dict[int, int]:
    """Widths that together fill the room at most: who needs little gets it, the others share the rest."""
    found = {}
    for left, at in zip(range(len(natural), 0, -1), sorted(natural, key=lambda one: natural[one]), strict=True):
        reserved = sum(least[other] for other in natural if other not in found and other != at)
        found[at] = max(least[at], min(natural[at], room // left, room - reserved))
        room -= found[at]
    return found


def _stacked(columns: Sequence[int], widths: Mapping[int, int], width: int) -> list[list[int]]:
    """The columns in as few lines as they need, in their order; one that is wider than a line has one for itself."""
    lines: list[list[int]] = [[]]
    used = 0
    for at in columns:
        more = widths[at] + (_GAP if lines[-1] else 0)
        if lines[-1] and used + more > width:
            lines.append([])
            used, more = _INDENT, widths[at]
        lines[-1].append(at)
        used += more
    return lines


def _lines(
    columns: Sequence[str], row: Sequence[str], form: _Form, styles: Mapping[str, str], style: str = ""
) -> Iterator[Text]:
    for number, line in enumerate(form.lines):
        broken = {at: _wrapped(row[at], form.widths[at]) if columns[at] in TEXT_COLUMNS else [row[at]] for at in line}
        for part in range(max((len(one) for one in broken.values()), default=1)):
            text = Text(" " * _INDENT if number else "")
            for at in line:
                cell = broken[at][part] if part < len(broken[at]) else ""
                text.append(cell, styles.get(cell, style))
                text.append(" " * (form.widths[at] - cell_len(cell) + _GAP))
            text.rstrip()
            yield text
    if row is columns:
        return
    for at in form.below:
        label = f"{columns[at]}: "
        room = (form.width or 0) - _INDENT - len(label)
        for part, words in enumerate(_wrapped(row[at], room) if row[at] else ()):
            yield Text(" " * _INDENT + (label if part == 0 else " " * len(label)) + words)


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines, broken at its spaces only: a word that is longer than a line stands whole in a line of its own."""
    if cell_len(text) <= width:
        return [text]
    lines: list[str] = []
    for word in text.split():
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]
