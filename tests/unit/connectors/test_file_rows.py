"""Rows and documents: what a file's content becomes."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from file_runs import opened, started
from pydantic import ValidationError

from connectors.file.settings import FileSettings
from trunkline.core.casting import cast_to_schema
from trunkline.core.errors import ConfigurationError

FLIGHTS = Path(__file__).parents[4] / "shared/data/flights.csv.gz"


async def read(tmp_path: Path, content: bytes, name: str = "a.csv", **config: Any) -> Any:
    path = tmp_path / name
    path.write_bytes(content)
    run = await started(path, watch=False, **config)
    await run.drain_finite()
    return run


@pytest.mark.parametrize("batch", [1, 2, 3, 5000])
async def test_rows_become_text_by_column_and_null_values_become_null(tmp_path: Path, batch: int) -> None:
    run = await read(tmp_path, b"carrier,delay\nUA,5\nAA,NA\n,7\n", csv={"null_values": ["NA", ""]}, batch=batch)
    assert run.values == [
        {"carrier": "UA", "delay": "5"},
        {"carrier": "AA", "delay": None},
        {"carrier": None, "delay": "7"},
    ]
    assert [event.place for event in run.events] == ["a.csv:2", "a.csv:3", "a.csv:4"]
    assert [event.subject for event in run.events] == ["a.csv"] * 3
    assert [event.raw for event in run.events] == [b"UA,5", b"AA,NA", b",7"]
    assert len({event.id for event in run.events}) == 3


@pytest.mark.parametrize("batch", [1, 2, 7])
async def test_a_quoted_field_may_hold_delimiters_quotes_and_line_ends(tmp_path: Path, batch: int) -> None:
    content = b'a,b\r\n1,"x,y"\r\n2,"he said ""no"""\r\n3,"two\nlines"\r\n4,"three\r\n\r\nlines"\r\n5,plain\r\n'
    run = await read(tmp_path, content, batch=batch)
    assert [value["b"] for value in run.values] == ["x,y", 'he said "no"', "two\nlines", "three\r\n\r\nlines", "plain"]
    assert [event.place for event in run.events] == [f"a.csv:{line}" for line in (2, 3, 4, 6, 9)]


async def test_other_characters_that_python_takes_for_line_ends_are_content(tmp_path: Path) -> None:
    text = "a,b\n1,x\u2028y\x0b\x0c\x85\n"
    run = await read(tmp_path, text.encode())
    assert run.values == [{"a": "1", "b": "x\u2028y\x0b\x0c\x85"}]


async def test_a_bad_row_is_set_apart_with_file_and_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    content = b'a,b\n1,2\n1,2,3\n\xff,2\n"x"y,2\n\n3,4\n"never closed,5\n6,7\n'
    run = await read(tmp_path, content)
    assert run.values == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "6", "b": "7"}]
    assert [(bad.place, bad.raw) for bad in run.rejected] == [
        ("a.csv:3", b"1,2,3"),
        ("a.csv:4", b"\xff,2"),
        ("a.csv:5", b'"x"y,2'),
        ("a.csv:8", b'"never closed,5'),
    ]
    assert "3 columns" in run.rejected[0].reason
    assert "utf-8" in run.rejected[1].reason


@pytest.mark.parametrize(
    ("row", "found", "mend"),
    [
        (b"a\rb,2", "a carriage return stands in a field without quotes", "end lines with a line feed"),
        (
            b'"a"b,2',
            "after the closing quote comes neither ',' nor the end of the line",
            "write a quote that is content",
        ),
    ],
)
async def test_what_is_no_csv_is_said_in_words_of_ours_with_what_to_do(
    tmp_path: Path, row: bytes, found: str, mend: str
) -> None:
    run = await read(tmp_path, b"a,b\n1,2\n" + row + b"\n3,4\n")
    (bad,) = run.rejected
    assert bad.raw == row
    assert found in bad.reason
    assert mend in bad.reason
    assert "universal" not in bad.reason


async def test_a_row_that_is_too_long_is_set_apart_and_memory_stays_small(tmp_path: Path) -> None:
    content = b"a,b\n1,2\n" + b"x" * 3_000_000 + b",2\n3,4\n" + b"y" * 5000 + b",2\n5,6\n"
    run = await read(tmp_path, content, max_line=4096)
    assert run.values == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "5", "b": "6"}]
    assert [(bad.place, len(bad.raw)) for bad in run.rejected] == [("a.csv:3", 4096), ("a.csv:5", 4096)]


async def test_a_header_that_can_not_be_used_sets_every_row_apart(tmp_path: Path) -> None:
    run = await read(tmp_path, b"a,a\n1,2\n3,4\n")
    assert run.events == []
    assert [bad.raw for bad in run.rejected] == [b"1,2", b"3,4"]
    assert "'a' twice" in run.rejected[0].reason


async def test_the_dialect_is_the_manifests(tmp_path: Path) -> None:
    dialect = {"delimiter": ";", "quotechar": "'", "escapechar": "\\", "skip_rows": 2}
    content = b"made by a tool\n\na;b\n'1;1';x\\;y\n"
    run = await read(tmp_path, content, csv=dialect)
    assert run.values == [{"a": "1;1", "b": "x;y"}]
    assert run.events[0].place == "a.csv:4"


async def test_columns_can_be_given_in_place_of_a_header_or_where_there_is_none(tmp_path: Path) -> None:
    named = {"columns": ["x", "y"]}
    assert (await read(tmp_path, b"a,b\n1,2\n", csv=named)).values == [{"x": "1", "y": "2"}]
    assert (await read(tmp_path, b"1,2\n", csv={**named, "header": False})).values == [{"x": "1", "y": "2"}]


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("utf-8", b"\xef\xbb\xbfn\xc3\xa4me\n\xe2\x82\xac\n"),
        ("utf-8-sig", "näme\n€\n".encode()),
        ("cp1252", "näme\n€\n".encode("cp1252")),
    ],
)
async def test_encodings_and_a_byte_order_mark_are_understood(tmp_path: Path, encoding: str, content: bytes) -> None:
    run = await read(tmp_path, content, encoding=encoding)
    assert run.values == [{"näme": "€"}]


async def test_json_lines_are_objects_and_everything_else_is_set_apart(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\n\n[1]\n{"a": NaN}\n{"a": 2}\r\n{"a": \n{"a": 3}'
    run = await read(tmp_path, content, "a.jsonl", format="jsonl")
    assert run.values == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [bad.place for bad in run.rejected] == ["a.jsonl:3", "a.jsonl:4", "a.jsonl:6"]


@pytest.mark.parametrize("batch", [1, 2, 100])
async def test_a_json_list_gives_an_event_for_each_item(tmp_path: Path, batch: int) -> None:
    run = await read(tmp_path, b'[{"a": 1}, 5, {"a": 2}]', "a.json", format="json", batch=batch)
    assert run.values == [{"a": 1}, {"a": 2}]
    assert [bad.place for bad in run.rejected] == ["a.json:[1]"]


async def test_a_json_object_is_one_event(tmp_path: Path) -> None:
    run = await read(tmp_path, gzip.compress(b'{"a": 1}'), "a.json.gz", format="json")
    assert run.values == [{"a": 1}]


@pytest.mark.parametrize("content", [b"{", b"", b'[{"a": 1}' + b" " * 2000 + b"]"])
async def test_a_json_document_that_is_broken_or_too_large_is_set_apart(tmp_path: Path, content: bytes) -> None:
    run = await read(tmp_path, content, "a.json", format="json", max_document=1000)
    assert run.events == []
    assert [bad.place for bad in run.rejected] == ["a.json"]


async def test_a_damaged_gzip_file_gives_what_is_whole_and_says_where_it_ends(tmp_path: Path) -> None:
    rows = b"a,b\n" + b"".join(b"%d,x\n" % number for number in range(20_000))
    cut = gzip.compress(rows)[:-2000]
    run = await read(tmp_path, cut, "a.csv.gz")
    assert 0 < len(run.events) < 20_000
    assert [value["a"] for value in run.values] == [str(number) for number in range(len(run.values))]
    assert "ends in the middle" in run.rejected[-1].reason
    broken = bytearray(gzip.compress(b"a,b\n1,2\n"))
    broken[12] ^= 0xFF
    run = await read(tmp_path, bytes(broken), "b.csv.gz")
    assert run.events == []
    assert "gzip" in run.rejected[-1].reason


async def test_a_gzip_file_of_several_members_is_one_file(tmp_path: Path) -> None:
    run = await read(tmp_path, gzip.compress(b"a\n1\n2") + gzip.compress(b"3\n4\n") + b"\0" * 512, "a.csv.gz")
    assert [value["a"] for value in run.values] == ["1", "23", "4"]


async def test_a_gzip_file_of_empty_members_ends_with_the_reason(tmp_path: Path) -> None:
    empty = gzip.compress(b"", mtime=0)
    run = await read(tmp_path, gzip.compress(b"a\n1\n") + empty * 900 + gzip.compress(b"2\n"), "a.csv.gz")
    assert [value["a"] for value in run.values] == ["1", "2"]
    run = await read(tmp_path, gzip.compress(b"a\n1\n") + empty * 20_000 + gzip.compress(b"2\n"), "b.csv.gz")
    [letter] = run.rejected
    assert (run.values, letter.raw) == ([], b"a\n1\n")
    assert "more than 1,000 gzip members in a row are empty" in letter.reason


async def test_a_small_gzip_file_that_unpacks_to_a_huge_line_is_set_apart(tmp_path: Path) -> None:
    bomb = gzip.compress(b"a\n" + b"x" * 50_000_000 + b"\n7\n")
    run = await read(tmp_path, bomb, "a.csv.gz")
    assert run.values == [{"a": "7"}]
    assert [bad.place for bad in run.rejected] == ["a.csv.gz:2"]


@pytest.mark.slow
async def test_rows_of_all_flights_equal_what_the_csv_module_reads(tmp_path: Path) -> None:
    if not FLIGHTS.exists():
        pytest.skip("the flights of 2013 are not on this machine")
    run = await started(FLIGHTS, watch=False, csv={"null_values": ["NA", ""]})
    with gzip.open(FLIGHTS, "rt", encoding="utf-8", newline="") as text:
        expected = csv.DictReader(text)
        count = 0
        while True:
            batch = await run.source.poll("0", run.position)
            run.position = batch.position
            for event in batch.events:
                row = next(expected)
                count += 1
                assert event.value == {name: None if cell == "NA" else cell for name, cell in row.items()}
            assert not batch.rejected
            assert len(json.dumps(batch.position)) < 4096
            if batch.finished:
                break
        assert next(expected, None) is None
    assert count == 336_776


async def test_csv_values_are_text_and_cast_to_the_topics_schema(tmp_path: Path) -> None:
    source = await opened(tmp_path / "a.csv")
    assert source.textual
    assert not (await opened(tmp_path / "a.json", format="json")).textual
    schema = {"type": "record", "name": "F", "fields": [{"name": "delay", "type": ["null", "int"]}]}
    run = await read(tmp_path, b"delay\nNA\n5\n", csv={"null_values": ["NA"]})
    assert [cast_to_schema(value, schema) for value in run.values] == [{"delay": None}, {"delay": 5}]


@pytest.mark.parametrize(
    "config",
    [
        {"format": "csv", "encoding": "utf-16"},
        {"format": "csv", "encoding": "klingon"},
        {"format": "csv", "csv": {"delimiter": "\n"}},
        {"format": "csv", "csv": {"header": False}},
        {"format": "csv", "csv": {"columns": ["a", "a"]}},
        {"format": "csv", "when_done": "move"},
        {"format": "csv", "move_to": "/done"},
        {"format": "csv", "pattern": "a/*.csv"},
        {"format": "csv", "pattern": "*.csv", "when_done": "move", "move_to": "/in"},
        {"format": "xml"},
    ],
)
def test_settings_that_can_not_work_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FileSettings.model_validate({"path": "/in", **config})


async def test_a_folder_or_file_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder"):
        await opened(tmp_path / "nowhere" / "a.csv")
    with pytest.raises(ConfigurationError, match="is a folder"):
        await opened(tmp_path)
    with pytest.raises(ConfigurationError, match="no file"):
        await opened(tmp_path / "a.csv", watch=False)


def test_the_csv_module_agrees_on_what_a_line_without_quotes_is() -> None:
    line = "a, b ,,c\x00d\t'e'"
    assert next(csv.reader(io.StringIO(line), strict=True)) == line.split(",")
