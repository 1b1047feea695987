"""The CSV of bulk jobs."""

from __future__ import annotations

import csv
import io

from hypothesis import example, given
from hypothesis import strategies as st

from sinks.salesforce.table import written

TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=2), max_size=5))
@example([["a\rb", "\r"], ["a\nb", "a\r\nb"], ['"', ","]])
def test_every_text_is_read_back_as_it_was_with_rows_that_end_in_lf(rows: list[list[str]]) -> None:
    table = written(["id", "text"], rows)
    assert list(csv.reader(io.StringIO(table.decode(), newline=""), strict=True)) == [["id", "text"], *rows]
    assert table.startswith(b"id,text\n")
    assert table.endswith(b"\n")
