"""What commands print: tables for people, JSON and YAML for programs; errors as one line with their code, place and hint.

Results go to standard output, everything else (notes, progress, errors) to standard error, so that a pipe gets data only.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from trunkline.cli.printable import printable
from trunkline.core.errors import TrunklineError
from trunkline.core.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 240
"""The width of what is not a table where no terminal shows it."""

_LINES = "\n\t"
"""What texts of several lines may have."""


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


class Output:
    """Prints results in one format."""

    def __init__(self, form: Format = Format.TABLE, *, debug: bool = False) -> None:
        self.form = form
        self.debug = debug

    @property
    def for_people(self) -> bool:
        """Whether a table or text is wanted, and not data."""
        return self.form is Format.TABLE

    def data(self, data: Any) -> None:
        """Prints data as JSON, or as YAML where that or a table was asked for."""
        sys.stdout.write(rendered(data, self.form) + "\n")
        sys.stdout.flush()

    def record(self, data: Any) -> None:
        """Prints data as one of many: a line of JSON, or a document of YAML."""
        if self.form is Format.JSON:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
        else:
            sys.stdout.write(f"---\n{rendered(data, self.form)}\n")
        sys.stdout.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], data: Any, *, empty: str = "none") -> None:
        """Prints rows under their columns, or `data` where a program reads. `empty` is said where there is no row."""
        if not self.for_people:
            self.data(data)
            return
        if not rows:
            self.note(empty)
            return
        from trunkline.cli.tables import laid_out

        screen = console(sys.stdout)
        for line in laid_out(columns, [[shown(cell) for cell in row] for row in rows], width_of(sys.stdout), STYLES):
            screen.print(line, soft_wrap=True)

    def fields(self, pairs: Mapping[str, Any], data: Any) -> None:
        """Prints names and values, one a line, or `data` where a program reads."""
        if not self.for_people:
            self.data(data)
            return
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            sys.stdout.write(f"{name.ljust(width)}  {printable(shown(value), _LINES)}\n")

    def line(self, text: str) -> None:
        """A line of the result for people; nothing where a program reads."""
        if self.for_people:
            sys.stdout.write(printable(text, _LINES) + "\n")
            sys.stdout.flush()

    def note(self, text: str) -> None:
        """A line beside the result, on standard error."""
        sys.stderr.write(printable(text, _LINES) + "\n")
        sys.stderr.flush()

    def error(self, error: BaseException) -> int:
        """Prints an error on standard error and returns the exit code that its class asks for (3 for a defect of ours)."""
        if self.debug:
            sys.stderr.write(redact("".join(traceback.format_exception(error))))
        if self.form is Format.JSON:
            sys.stderr.write(json.dumps({"error": error_data(error)}) + "\n")
        else:
            sys.stderr.write(printable(error_text(error), _LINES) + "\n")
        return error.exit_code if isinstance(error, TrunklineError) else 3


def width_of(stream: Any) -> int | None:
    """How many columns the terminal behind a stream has; None where no terminal is there. `COLUMNS` says otherwise."""
    if not stream.isatty():
        return None
    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdecimal() and int(said) else os.get_terminal_size(stream.fileno()).columns or None


def console(stream: Any) -> Console:
    """A Rich console: as wide as the terminal, and wide enough for everything where there is none."""
    from rich.console import Console

    return Console(file=stream, highlight=False, width=None if stream.isatty() else WIDE)


def shown(value: Any) -> str:
    """A cell's text: nothing for None, `yes` and `no`, numbers as they are."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


def rendered(data: Any, form: Format) -> str:
    """Data as text."""
    if form is Format.JSON:
        return json.dumps(data, indent=2, ensure_ascii=False, default=str)
    import yaml

    plain = json.loads(json.dumps(data, default=str))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)).rstrip("\n")


def error_text(error: BaseException) -> str:
    """An error for people: `error[code] where: message`, then what to do. Of manifests every problem has a line."""
    problems = getattr(error, "problems", None)
    if problems:
        lines = [
            _error_lines(one.code, f"{one.file}:{one.line}" + (f": {one.field}" if one.field else ""), one)
            for one in problems
        ]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return "\n".join([*lines, f"{count}; nothing was applied"])
    if isinstance(error, TrunklineError):
        return _error_lines(error.code, error.where, error)
    return f"error[internal]: {_named(error)}\n  hint: this is a defect of Trunkline; --debug shows where"


def error_data(error: BaseException) -> dict[str, Any]:
    """An error for programs."""
    if isinstance(error, TrunklineError):
        problems = getattr(error, "problems", None)
        if problems:
            return {"code": error.code, "problems": [one.as_dict() for one in problems]}
        return dict(error.as_dict())
    return {"code": "internal", "message": _named(error)}


def _named(error: BaseException) -> str:
    """An error that is none of ours. Ours are redacted as they are made."""
    return redact(f"{type(error).__name__}: {error}")


def _error_lines(code: str, where: str | None, error: Any) -> str:
    head = f"error[{code}]" + (f" {where}" if where else "")
    text = f"{head}: {error.message}"
    return f"{text}\n  hint: {error.hint}" if error.hint else text


STYLES = {
    "BREAKER OPEN": "yellow",
    "RUNNING": "green",
    "OK": "green",
    "PAUSED": "yellow",
    "STOPPED": "yellow",
    "RESTARTING": "yellow",
    "UNASSIGNED": "yellow",
    "WARN": "yellow",
    "SILENT": "red",
    "FAILED": "bold red",
    "FAIL": "bold red",
    "create": "green",
    "change": "yellow",
    "delete": "red",
}
