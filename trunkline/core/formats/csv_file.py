"""Rows as CSV (RFC 4180)."""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.formats.columns import ENVELOPE_COLUMNS, envelope_row, row_reader
from trunkline.core.formats.rendered import Rendered
from trunkline.core.formats.settings import CsvFormat
from trunkline.core.jsonable import to_json_bytes

_FORMULA_STARTS = frozenset("=+-@＝＋－＠")
"""OWASP, "CSV Injection": what makes a spreadsheet read a cell as a formula, with the full-width forms of some locales."""
_QUOTING: dict[str, Literal[0, 1]] = {"minimal": csv.QUOTE_MINIMAL, "all": csv.QUOTE_ALL}
_CONTROL_STARTS = frozenset("\t\r\n")


class _Lines(list[str]):
    """What the csv writer takes for a file: it calls `write` once a row, so that a row can be taken out again."""

    write = list.append


def render_csv(events: Sequence[Event], shape: CsvFormat) -> Rendered:
    """The file of these events. Equal events give equal bytes."""
    columns, row = row_reader(events, shape.columns)
    names = [*columns, *(ENVELOPE_COLUMNS[field] for field in shape.envelope)]
    native = _native(shape)
    cell = _cell(shape)
    lines = _Lines()
    # "\r\n" whatever the setting: the writer of Python 3.11 and 3.12 quotes only those line breaks that its terminator contains.
    writer = csv.writer(lines, delimiter=shape.delimiter, quoting=_QUOTING[shape.quoting], lineterminator="\r\n")
    if shape.header:
        # Only a record without a schema can name a column by what is no Unicode; it is named by its escape then.
        clean = [name.encode("utf-8", "backslashreplace").decode() for name in names]
        writer.writerow([name if str in native else cell(name) for name in clean])
    rejected: dict[int, RejectedError] = {}
    written: list[int] = []
    for index, event in enumerate(events):
        try:
            values = row(event)
            if shape.envelope:
                values = (*values, *envelope_row(event, shape.envelope).values())
            writer.writerow([value if type(value) in native else cell(value) for value in values])
            written.append(index)
        except RejectedError as error:
            rejected[index] = error
        except (TypeError, ValueError) as error:
            rejected[index] = RejectedError(
                f"the record has no form in CSV: {error}", where=event.place, code="file.no_form"
            )
    body = _encoded(lines, written, events, rejected, lf=shape.line_ending == "lf")
    rows = len(events) - len(rejected)
    return Rendered(body if rows else b"", rows, rejected)


def _encoded(
    lines: list[str], written: list[int], events: Sequence[Event], rejected: dict[int, RejectedError], *, lf: bool
) -> bytes:
    if lf:
        lines = [line[:-2] + "\n" for line in lines]
    try:
        return "".join(lines).encode()
    except UnicodeEncodeError:
        pass
    kept: list[bytes] = []
    head = len(lines) - len(written)
    kept += [line.encode() for line in lines[:head]]
    for index, line in zip(written, lines[head:], strict=True):
        try:
            kept.append(line.encode())
        except UnicodeEncodeError:
            rejected[index] = RejectedError(
                "the record has text that is no Unicode (a lone surrogate)",
                where=events[index].place,
                code="file.not_unicode",
            )
    return b"".join(kept)


def _native(shape: CsvFormat) -> frozenset[type]:
    """The types that the csv module writes as we want them: most cells, so they must cost nothing."""
    kinds: set[type] = {int, float}
    if not shape.guard_formulas:
        kinds.add(str)
    if not shape.null:
        kinds.add(type(None))
    return frozenset(kinds)


def _cell(shape: CsvFormat) -> Callable[[Any], str]:
    """What turns a value into the text of its cell. Numbers are never guarded: a spreadsheet reads -5 as a number."""
    convert: dict[type, Callable[[Any], str]] = {
        type(None): lambda _value: shape.null,
        bool: lambda value: "true" if value else "false",
        int: str,
        float: repr,
        Decimal: lambda value: format(value, "f"),
        datetime: _moment,
        timedelta: lambda value: repr(value.total_seconds()),
        date: date.isoformat,
        time: time.isoformat,
        UUID: str,
    }
    text: dict[type, Callable[[Any], str]] = {
        str: str,
        bytes: lambda value: base64.b64encode(value).decode(),
        dict: _nested,
        list: _nested,
    }
    if shape.guard_formulas:
        convert.update({kind: _guarded(made) for kind, made in text.items()})
    else:
        convert.update(text)

    def cell(value: Any) -> str:
        known = convert.get(type(value))
        if known is None:
            raise TypeError(f"{type(value).__name__} is no type of Avro")
        return known(value)

    return cell


def _moment(value: datetime) -> str:
    text = value.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _nested(value: Any) -> str:
    return to_json_bytes(value).decode()


def _guarded(made: Callable[[Any], str]) -> Callable[[Any], str]:
    def guarded(value: Any) -> str:
        text = made(value)
        if text[:1].isalnum():
            return text
        risky = text[:1] in _CONTROL_STARTS or text.lstrip()[:1] in _FORMULA_STARTS
        return "'" + text if risky else text

    return guarded
