"""Files of records: what a reader that knows nothing of Trunkline finds in them."""

from __future__ import annotations

import csv
import io
import json
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import fastavro
import pytest
from hostile_texts import CELLS, NAMES
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from trunkline.core.batchfile import BatchFileSettings, build_file, fault_of_name, leftovers, temporary_name
from trunkline.core.contracts import Batch
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import FatalError
from trunkline.core.event import Event
from trunkline.core.formats import AvroFormat, CsvFormat, FileFormat, JsonLinesFormat, render
from trunkline.core.verdicts import Dead, Ok, Retry

SCHEMA = {
    "type": "record",
    "name": "Flight",
    "fields": [
        {"name": "carrier", "type": "string"},
        {"name": "delay", "type": ["null", "long"], "default": None},
        {"name": "note", "type": "string", "default": ""},
    ],
}
RICH = {
    "type": "record",
    "name": "Rich",
    "fields": [
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 30, "scale": 8}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "blob", "type": "bytes"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "ok", "type": "boolean"},
        {"name": "none", "type": ["null", "string"]},
        {"name": "ratio", "type": "double"},
    ],
}
RICH_VALUE = {
    "price": Decimal("0.00000012"),
    "day": date(2013, 1, 2),
    "at": datetime(2013, 1, 2, 3, 4, 5, tzinfo=UTC),
    "id": uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057"),
    "blob": b"\x00\xff",
    "tags": ["a", "ü"],
    "ok": True,
    "none": None,
    "ratio": 0.1,
}


def schema(shape: Any, number: int | None = 1) -> Any:
    return SimpleNamespace(id=number, json=shape, name=shape["name"])


def events(*values: Any, written_with: Any = None) -> list[Event]:
    known = schema(SCHEMA) if written_with is None else written_with
    return [Event(value, schema=known, topic="flights", offset=index) for index, value in enumerate(values)]


def flight(carrier: str = "AA", delay: int | None = 5, note: str = "") -> dict[str, Any]:
    return {"carrier": carrier, "delay": delay, "note": note}


def rows(content: bytes, **dialect: Any) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline=""), **dialect))


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_columns_follow_the_schema_and_not_the_order_of_the_values() -> None:
    made = render(events({"note": "n", "delay": None, "carrier": "AA"}), CsvFormat(), "r")
    assert made.content == b"carrier,delay,note\r\nAA,,n\r\n"


def test_each_type_of_avro_has_a_form_that_can_be_read_back() -> None:
    made = render(events(RICH_VALUE, written_with=schema(RICH)), CsvFormat(), "r")
    found = dict(zip(*rows(made.content), strict=True))
    assert found == {
        "price": "0.00000012",
        "day": "2013-01-02",
        "at": "2013-01-02T03:04:05Z",
        "id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "blob": "AP8=",
        "tags": '["a","ü"]',
        "ok": "true",
        "none": "",
        "ratio": "0.1",
    }


def test_options_choose_columns_header_delimiter_quoting_line_ending_and_null() -> None:
    shape = CsvFormat(
        columns=["delay", "carrier"], header=False, delimiter=";", quoting="all", line_ending="lf", null="NULL"
    )
    assert render(events(flight(delay=None), flight()), shape, "r").content == b'"NULL";"AA"\n"5";"AA"\n'


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8), st.sampled_from(["crlf", "lf"])
)
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back_as_it_was(notes: list[str], line_ending: Any) -> None:
    made = render(events(*(flight(note=note) for note in notes)), CsvFormat(line_ending=line_ending), "r")
    assert [row[2] for row in rows(made.content)[1:]] == notes


def test_a_lone_line_break_is_quoted_whatever_the_line_ending() -> None:
    for ending in ("crlf", "lf"):
        made = render(events(flight(note="a\rb"), flight(note="a\nb")), CsvFormat(line_ending=ending), "r")
        assert made.content.count(b'"') == 4


@pytest.mark.parametrize("cell", CELLS)
def test_a_guarded_file_has_no_live_formula(cell: str) -> None:
    guarded = rows(render(events(flight(note=cell)), CsvFormat(guard_formulas=True), "r").content)
    plain = rows(render(events(flight(note=cell)), CsvFormat(), "r").content)
    assert guarded[1][2] == "'" + cell
    assert plain[1][2] == cell


def test_a_guard_leaves_numbers_and_harmless_text_alone() -> None:
    made = render(events(flight(delay=-5, note="a=b")), CsvFormat(guard_formulas=True), "r")
    assert made.content.endswith(b"AA,-5,a=b\r\n")


def test_a_record_that_can_not_be_written_is_rejected_and_its_neighbours_are_written() -> None:
    lacking = {"delay": 1, "note": ""}
    for shape in (CsvFormat(), CsvFormat(columns=["carrier"]), JsonLinesFormat(columns=["carrier"]), AvroFormat()):
        made = render(
            events(flight("A1"), flight("\ud800"), flight("A2"), lacking, None, flight("A3"), "text"), shape, "r"
        )
        assert made.rows == 3
        assert sorted(made.rejected) == [1, 3, 4, 6]
        positions = [made.content.index(carrier) for carrier in (b"A1", b"A2", b"A3")]
        assert positions == sorted(positions)
        assert "flights[0]@3" in str(made.rejected[3])


def test_a_file_of_nothing_has_no_header() -> None:
    assert render(events(None, None), CsvFormat(), "r").content == b""


def test_records_of_an_older_schema_get_the_newest_schemas_defaults() -> None:
    older = schema({"type": "record", "name": "Flight", "fields": [{"name": "carrier", "type": "string"}]}, 1)
    batch = [Event({"carrier": "old"}, schema=older), Event(flight("new", note="n"), schema=schema(SCHEMA, 2))]
    assert rows(render(batch, CsvFormat(), "r").content)[1:] == [["old", "", ""], ["new", "5", "n"]]
    found = list(fastavro.reader(io.BytesIO(render(batch, AvroFormat(), "r").content)))
    assert found == [flight("old", None), flight("new", note="n")]


def test_a_field_that_only_older_schemas_have_keeps_its_column() -> None:
    gone = schema({"type": "record", "name": "Flight", "fields": [{"name": "gate", "type": "string"}]}, 1)
    batch = [Event({"gate": "B4"}, schema=gone), Event(flight(), schema=schema(SCHEMA, 2))]
    assert rows(render(batch, CsvFormat(), "r").content) == [
        ["carrier", "delay", "note", "gate"],
        ["", "", "", "B4"],
        ["AA", "5", "", ""],
    ]


def test_records_without_a_schema_give_columns_in_order_of_appearance() -> None:
    batch = [Event({"b": 1}), Event({"a": 2, "b": 3})]
    assert rows(render(batch, CsvFormat(), "r").content) == [["b", "a"], ["1", ""], ["3", "2"]]


# --- JSON Lines and Avro ----------------------------------------------------------------------------------------------


def test_each_line_of_json_is_one_record() -> None:
    made = render(events(RICH_VALUE, RICH_VALUE, written_with=schema(RICH)), JsonLinesFormat(), "r")
    first, second = [json.loads(line) for line in made.content.decode().splitlines()]
    assert first == second
    assert first["at"] == "2013-01-02T03:04:05Z"
    assert Decimal(first["price"]) == Decimal("0.00000012")
    assert first["blob"] == "AP8="
    assert first["none"] is None


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_an_avro_file_is_read_by_another_reader(codec: Any) -> None:
    values = [dict(RICH_VALUE, tags=[str(number) * 20]) for number in range(5_000)]
    made = render(events(*values, written_with=schema(RICH)), AvroFormat(codec=codec), "r")
    found = fastavro.reader(io.BytesIO(made.content))
    assert [(value["tags"], value["price"]) for value in found] == [(value["tags"], value["price"]) for value in values]
    assert found.metadata["avro.codec"] == codec
    assert made.content.count(made.content[-16:]) > 2  # the header's sync marker and one after each of several blocks


@pytest.mark.parametrize("shape", [CsvFormat(), JsonLinesFormat(), AvroFormat(), AvroFormat(codec="deflate")])
def test_the_same_range_gives_the_same_bytes(shape: Any) -> None:
    values = [flight(note=str(number)) for number in range(100)]
    assert render(events(*values), shape, "r-0-99").content == render(events(*values), shape, "r-0-99").content


def test_two_ranges_of_equal_records_have_different_sync_markers() -> None:
    first, second = (render(events(flight()), AvroFormat(), name).content for name in ("r-0-0", "r-1-1"))
    assert first[-16:] != second[-16:]


def test_a_record_without_a_schema_is_rejected_by_avro_alone() -> None:
    assert list(render([Event(flight())], AvroFormat(), "r").rejected) == [0]
    assert render([Event(flight())], JsonLinesFormat(), "r").rows == 1


def test_the_envelope_is_added_under_its_header_names_in_every_format() -> None:
    headers = envelope_to_headers(
        Envelope(id="e-1", source="/s", type="t", correlation_id="c-1", time=datetime(2013, 1, 1, tzinfo=UTC))
    )
    batch = [Event(flight(), schema=schema(SCHEMA), headers=headers)]
    wanted = {"ce_id": "e-1", "ce_correlationid": "c-1", "ce_time": "2013-01-01T00:00:00Z"}
    fields: Any = ["id", "correlation_id", "time"]
    table = rows(render(batch, CsvFormat(envelope=fields), "r").content)
    assert dict(zip(*table, strict=True)) == {"carrier": "AA", "delay": "5", "note": "", **wanted}
    assert json.loads(render(batch, JsonLinesFormat(envelope=fields), "r").content) == {**flight(), **wanted}
    (found,) = fastavro.reader(io.BytesIO(render(batch, AvroFormat(envelope=fields), "r").content))
    assert found == {**flight(), **wanted}


def test_a_record_with_a_field_named_as_the_envelope_is_rejected() -> None:
    batch = [Event({"ce_id": "mine"}), Event({"a": 1})]
    assert list(render(batch, JsonLinesFormat(envelope=["id"]), "r").rejected) == [0]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_format_is_written_as_a_word_or_with_options_and_editors_know_both() -> None:
    class Holder(BaseModel):
        format: FileFormat

    assert Holder.model_validate({"format": "avro"}).format == AvroFormat()
    assert Holder.model_validate({"format": {"type": "csv", "null": "-"}}).format == CsvFormat(null="-")
    shown = json.dumps(TypeAdapter(FileFormat).json_schema())
    assert '"enum": ["csv", "jsonl", "avro"]' in shown
    with pytest.raises(ValidationError):
        Holder.model_validate({"format": "xlsx"})


@pytest.mark.parametrize("delimiter", ["", '"', "\n", "\r", "a", "1", "\0", ",,"])
def test_a_delimiter_that_would_break_the_file_is_refused(delimiter: str) -> None:
    with pytest.raises(ValidationError):
        CsvFormat(delimiter=delimiter)


def test_a_column_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="twice: a"):
        CsvFormat(columns=["a", "b", "a"])


# --- names, manifests and verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_is_no_base_name(name: str) -> None:
    assert fault_of_name(name) is not None
    with pytest.raises(FatalError, match="no file can be named so"):
        build_file(Batch(events(flight()), name), BatchFileSettings(name="{range}"), "p")


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("flights.csv", "range.* is required"),
        ("{range}/{pipeline}.csv", "no place in a file name"),
        ("../{range}", "begins with a dot"),
        ("{range}{}", "is no placeholder"),
        ("{range.__class__}", "is no placeholder"),
        ("{range!r}", "is no placeholder"),
        ("{range:>900000000}", "is no placeholder"),
        ("{pipelin}-{range}", "known are range, pipeline"),
        ("{range", "expected '}'"),
    ],
)
def test_a_template_that_can_not_name_a_file_is_refused(template: str, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        BatchFileSettings(name=template)


def test_a_template_is_filled_from_the_batch() -> None:
    batch = [Event(flight(), schema=schema(SCHEMA), topic="flights.delayed", partition=3, timestamp=1_357_000_000_000)]
    shape = BatchFileSettings(
        name="{pipeline}_{topic}_{partition}_{date}_{range}.{extension}", format=JsonLinesFormat()
    )
    assert build_file(Batch(batch, "R"), shape, "out").name == "out_flights.delayed_3_2013-01-01_R.jsonl"


def test_a_time_that_is_no_date_does_not_stop_the_sink() -> None:
    batch = [Event(flight(), schema=schema(SCHEMA), timestamp=10**17)]
    assert build_file(Batch(batch, "R"), BatchFileSettings(name="{date}-{range}"), "p").name == "undated-R"


def test_verdicts_name_path_and_row_and_count_past_rejected_records() -> None:
    file = build_file(Batch(events(flight(), None, flight()), "R"), BatchFileSettings(), "p")
    first, second, third = file.verdicts("/out/R.csv")
    assert (first, third) == (Ok("/out/R.csv#1"), Ok("/out/R.csv#2"))
    assert isinstance(second, Dead)
    assert second.code == "file.not_a_record"


def test_a_file_that_is_not_in_place_is_retried_as_a_whole() -> None:
    file = build_file(Batch(events(flight(), None), "R"), BatchFileSettings(), "p")
    assert file.retry("down") == [Retry("down"), Retry("down")]


def test_a_manifest_belongs_to_its_content_and_to_no_other() -> None:
    file = build_file(Batch(events(flight()), "R"), BatchFileSettings(), "p")
    other = build_file(Batch(events(flight("ZZ")), "R"), BatchFileSettings(), "p")
    manifest = file.manifest(datetime(2026, 1, 1, tzinfo=UTC))
    assert file.is_described_by(manifest)
    assert not other.is_described_by(manifest)
    assert not file.is_described_by(b"{")
    assert not file.is_described_by(b"[]")


def test_temporary_names_differ_at_each_attempt_and_are_known_as_leftovers_of_their_range_alone() -> None:
    mine, again, other = temporary_name("R.csv"), temporary_name("R.csv"), temporary_name("R2.csv")
    manifest = temporary_name("R.csv.manifest.json")
    assert mine != again
    assert leftovers([mine, other, "R.csv", again, manifest, ".R.csv.part", "x" + mine], "R.csv") == [
        mine,
        again,
        manifest,
    ]
