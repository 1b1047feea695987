"""What a table shows can be copied: no name, id, time or number is broken or cut, in any terminal, and no text is obeyed by it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from terminal import shown_in_terminal

from trunkline.cli.output import Output
from trunkline.cli.printable import printable
from trunkline.cli.tables import TEXT_COLUMNS, laid_out

CLI = Path(__file__).parents[3] / "trunkline" / "cli"
ID = "0198f3c2-7a1b-7c3d-9e4f-5a6b7c8d9e0f"
REASON = (
    f"the other system answered 422 to {ID}: field Amount__c is not of the type that its object wants, and so on " * 3
)


def _columns() -> Iterator[tuple[str, ...]]:
    """The columns of every table of the command line: each list of texts in capitals that stands in its code."""
    for module in sorted(CLI.rglob("*.py")):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.List, ast.Tuple)) and len(node.elts) > 1:
                texts = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
                named = [one or "" if isinstance(one, str) else "NAME" for one in texts]
                if texts.count(None) < 2 and all(re.fullmatch(r"|[A-Z][A-Z ]+(?:(?:/| )s)?", one) for one in named):
                    yield tuple(named)


TABLES = sorted(set(_columns()))


def _cell(column: str, at: int, row: int, script: str) -> str:
    if column in TEXT_COLUMNS:
        return REASON
    return f"{script}{row}.{at}.{column.replace(' ', '-')}.".ljust(70 - len(script), "x")


def test_the_tables_of_the_command_line_are_found() -> None:
    assert len(TABLES) >= 20
    assert any(columns[0] == "JOB" for columns in TABLES)
    assert any({"PIPELINE", "STATE", "READ", "LEDGER"} <= set(columns) for columns in TABLES)


@pytest.mark.parametrize("columns", TABLES, ids=" ".join)
def test_every_long_value_stands_whole_in_one_line(columns: tuple[str, ...]) -> None:
    for script in ("", "順序", "é🧾"):
        for width in (40, 80, 120, 200, None):
            _check_whole(columns, script, width)


def _check_whole(columns: tuple[str, ...], script: str, width: int | None) -> None:
    rows = [[_cell(column, at, row, script) for at, column in enumerate(columns)] for row in range(3)]
    lines = [line.plain for line in laid_out(columns, rows, width, {})]
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        for cell in cells:
            if column in TEXT_COLUMNS:
                assert any(ID in line for line in lines)
            else:
                assert sum(cell in line for line in lines) == 1, f"{column} is broken at {width}"
    if width is None:
        assert len(lines) == 1 + len(rows)
    else:
        widest = max(cell_len(cell) for row in rows for cell in row if cell != REASON)
        assert all(cell_len(line) <= max(width, 4 + widest) for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_short_values_stand_in_one_line_each_whatever_the_reason(width: int) -> None:
    columns = ["JOB", "PIPELINE", "STATE", "REASON"]
    rows = [["job-1", "orders-out", "FAILED", REASON], ["job-2", "orders-in", "DONE", ""]]
    lines = [line.plain for line in laid_out(columns, rows, width, {})]
    assert [line.split()[:3] for line in lines if line.startswith("job")] == [row[:3] for row in rows]
    assert " ".join(" ".join(line[27:] for line in lines if "job-2" not in line).split()) == f"REASON {REASON.strip()}"


def test_a_text_for_which_too_little_is_left_stands_below_its_row() -> None:
    columns, row = (
        ["PIPELINE", "FIRST", "REASON"],
        ["p" * 40, "2026-12-01T08:00:00Z", "no account of this name is there"],
    )
    assert [line.plain for line in laid_out(columns, [row], 80, {})] == [
        f"PIPELINE{' ' * 34}FIRST",
        f"{row[0]}  {row[1]}",
        "    REASON: no account of this name is there",
    ]


def test_columns_that_do_not_fit_beside_each_other_stand_in_lines_under_their_titles() -> None:
    columns, row = ["PIPELINE", "KIND", "STATE"], ["p" * 30, "Stream", "RUNNING"]
    assert [line.plain for line in laid_out(columns, [row], 40, {})] == [
        f"PIPELINE{' ' * 24}KIND",
        "    STATE",
        f"{row[0]}  Stream",
        "    RUNNING",
    ]


NAMES = st.text(st.characters(codec="utf-8"), max_size=90)
TEXTS = st.lists(st.text("abcdefgh界", min_size=1, max_size=40), max_size=30).map(" ".join)


@settings(deadline=None)
@given(
    st.lists(st.tuples(NAMES, NAMES, TEXTS, TEXTS, NAMES), min_size=1, max_size=4),
    st.integers(20, 250),
)
def test_whatever_the_cells_hold_they_are_shown_whole_and_in_order(rows: list[tuple[str, ...]], width: int) -> None:
    columns = ["KEY", "PLACE", "REASON", "HINT", "ID"]
    lines = [line.plain for line in laid_out(columns, rows, width, {})]
    for row in rows:
        for at in (0, 1, 4):
            assert any(printable(row[at]).rstrip() in line for line in lines)
        for at in (2, 3):
            assert all(any(word in line for line in lines) for word in row[at].split())
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u202e]", "".join(lines))


def test_what_a_terminal_would_obey_is_shown_as_its_escape() -> None:
    hostile = "a\x1b[2Jb\x9b31mc\rd\ne\u202ef\ud800"
    assert printable(hostile) == "a\\x1b[2Jb\\x9b31mc\\rd\\ne\\u202ef\\ud800"
    assert printable("Zürich 順序 👩\u200d🚀\u00a0€") == "Zürich 順序 👩\u200d🚀\u00a0€"
    [_, line] = laid_out(["KEY"], [[hostile]], 80, {})
    assert line.plain == printable(hostile)


@pytest.mark.parametrize("print_", ["line", "note", "fields", "error"])
def test_no_result_note_or_error_moves_the_cursor(print_: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from elsewhere: \x1b]0;title\x07 and\na second line"
    out = Output()
    if print_ == "fields":
        out.fields({"value": text}, None)
    elif print_ == "error":
        out.error(ValueError(text))
    else:
        getattr(out, print_)(text)
    said = "".join(capsys.readouterr())
    assert "\x1b" not in said
    assert "\\x1b]0;title\\x07 and\na second line" in said


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_terminal_gets_no_line_break_within_a_value(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    columns, row = ["ID", "PIPELINE", "TIME", "REASON"], [ID, "p" * 130, "2026-12-01T08:00:00.123Z", REASON]
    shown = shown_in_terminal(monkeypatch, lambda: Output().table(columns, [row], None), width)
    lines = re.sub(r"\x1b\[[\d;]*m", "", shown).splitlines()
    assert all(any(cell in line for line in lines) for cell in row[:3])
    assert [line for line in lines if len(line) > width and "ppp" not in line] == []


def test_one_piece_lays_out_tables() -> None:
    users = [path.name for path in CLI.rglob("*.py") if "rich.table" in path.read_text(encoding="utf-8")]
    assert users == []
