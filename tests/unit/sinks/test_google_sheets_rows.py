"""How the Google Sheets sink makes cells, checks its settings, and reads ranges."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from sinks.google_sheets.a1 import Span, column_letters, column_number, first_cell, parse_span, quoted, split_title
from sinks.google_sheets.account import ServiceAccount
from sinks.google_sheets.mock_grid import Worksheet
from sinks.google_sheets.rows import RowMaker, cell, identity_text
from sinks.google_sheets.settings import GoogleSheetsSettings
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.secret import Secret


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (True, True),
        (5, 5),
        (2**53 + 1, "9007199254740993"),
        (2.5, 2.5),
        (float("nan"), "nan"),
        (Decimal("12.50"), 12.5),
        (Decimal("0.12345678901234567890"), "0.12345678901234567890"),
        ("=1+1", "=1+1"),
        ("'quoted", "'quoted"),
        (datetime(2013, 1, 1, 5, 17, tzinfo=UTC), "2013-01-01T05:17:00+00:00"),
        (date(2013, 1, 1), "2013-01-01"),
        (time(5, 17), "05:17:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "AP8="),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ([datetime(2013, 1, 1, tzinfo=UTC)], '["2013-01-01T00:00:00+00:00"]'),
    ],
)
def test_a_value_becomes_the_cell_that_shows_it_best(value: Any, expected: Any) -> None:
    found = cell(value)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize("value", ["x" * 50_001, "\ud800", object()])
def test_what_no_cell_can_hold_is_rejected(value: Any) -> None:
    with pytest.raises(RejectedError):
        cell(value)


def test_a_text_of_the_largest_size_is_taken() -> None:
    assert cell("x" * 50_000) == "x" * 50_000


@pytest.mark.parametrize(("one", "other"), [(5, 5.0), (5, "5"), (True, "TRUE"), (2.5, "2.5")])
def test_a_key_is_recognised_however_it_comes_back(one: Any, other: Any) -> None:
    assert identity_text(one) == identity_text(other)


def test_a_row_follows_the_header_and_leaves_other_columns_alone() -> None:
    settings = GoogleSheetsSettings(spreadsheet="s", columns={"B": "event.b", "A": "event.a + 1"})
    made = RowMaker(settings, ["A", "people's own", "B", "_trunkline_id", "more"])
    event = Event({"a": 1, "b": "x"})
    event.idempotency_key = "k1"
    row = made.row(event)
    assert row == [2, None, "x", "k1"]
    assert made.identity(row) == "k1"


def test_a_field_that_only_passes_through_keeps_its_type_and_its_digits() -> None:
    fields = {"day": date(2013, 1, 1), "at": time(5, 17), "exact": Decimal("0.1234567890123456789"), "id": UUID(int=7)}
    made = RowMaker(GoogleSheetsSettings(spreadsheet="s", columns=list(fields), dedupe_column=None), list(fields))
    shown = ["2013-01-01", "05:17:00", "0.1234567890123456789", "00000000-0000-0000-0000-000000000007"]
    assert made.row(Event(fields)) == shown


def test_a_failing_expression_names_its_column() -> None:
    settings = GoogleSheetsSettings(spreadsheet="s", columns={"Flight": "event.flight"})
    with pytest.raises(RejectedError, match="'Flight'"):
        RowMaker(settings, ["Flight", "_trunkline_id"]).row(Event({"a": 1}))


def test_an_empty_key_is_rejected() -> None:
    settings = GoogleSheetsSettings(spreadsheet="s", columns=["id"], mode="upsert", key="id")
    made = RowMaker(settings, ["id"])
    with pytest.raises(RejectedError, match="key column would be empty"):
        made.identity(made.row(Event({"id": None})))


def test_a_list_of_columns_names_fields() -> None:
    settings = GoogleSheetsSettings(spreadsheet="s", columns=["dep_delay", "odd name"])
    assert settings.expressions == {"dep_delay": "event.dep_delay", "odd name": 'event["odd name"]'}
    assert settings.header == ["dep_delay", "odd name", "_trunkline_id"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"columns": {}}, "columns"),
        ({"columns": ["a", "a"]}, "twice"),
        ({"columns": {"a": "event."}}, "column 'a'"),
        ({"columns": ["a"], "key": "a"}, "belongs to mode: upsert"),
        ({"columns": ["a"], "mode": "upsert"}, "needs key"),
        ({"columns": ["carrier"], "mode": "upsert", "key": "carier"}, "did you mean 'carrier'"),
        ({"columns": ["_trunkline_id"]}, "another name"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        GoogleSheetsSettings.model_validate({"spreadsheet": "s"} | given)


@pytest.mark.parametrize(("number", "letters"), [(1, "A"), (26, "Z"), (27, "AA"), (702, "ZZ"), (703, "AAA")])
def test_columns_have_letters(number: int, letters: str) -> None:
    assert (column_letters(number), column_number(letters)) == (letters, number)


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("", Span()),
        ("B5", Span(5, 2, 5, 2)),
        ("A1:C9", Span(1, 1, 9, 3)),
        ("A:C", Span(None, 1, None, 3)),
        ("2:5", Span(2, None, 5, None)),
        ("K7:K", Span(7, 11, None, 11)),
        ("$A$1", Span(1, 1, 1, 1)),
    ],
)
def test_a_range_is_read(text: str, span: Span) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["A", "1", "A1:", ":B2", "A0", "ABCD1", "A1:B2:C3", "x y"])
def test_what_is_no_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="Unable to parse range"):
        parse_span(text)


@pytest.mark.parametrize("title", ["Sheet1", "it's", "a!b", "x'!'y", "ü/%"])
def test_a_quoted_title_comes_back_whole(title: str) -> None:
    assert split_title(f"{quoted(title)}!B5:C6") == (title, "B5:C6")
    assert first_cell(f"{quoted(title)}!B5:C6") == (5, 2)


@pytest.mark.parametrize(
    ("typed", "value", "live"),
    [
        ("=1+1", "#ERROR!", True),
        ('=HYPERLINK("http://x","click")', "click", True),
        ("+cmd", "#ERROR!", True),
        ("+1", 1, False),
        ("12.5", 12.5, False),
        ("TRUE", True, False),
        ("2013-01-01", 41275, False),
        ("'=1+1", "=1+1", False),
        ("plain", "plain", False),
    ],
)
def test_the_stand_in_interprets_what_is_user_entered_and_nothing_that_is_raw(
    typed: str, value: Any, live: bool
) -> None:
    entered, raw = Worksheet(0, "entered"), Worksheet(1, "raw")
    entered.write(parse_span("A1"), [[typed]], "USER_ENTERED")
    raw.write(parse_span("A1"), [[typed]], "RAW")
    assert entered.values() == [[value]]
    assert bool(entered.formulas) is live
    assert (raw.values(), raw.formulas) == ([[typed]], [])


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("no json, but-a-secret", "is no JSON"),
        (json.dumps(["but-a-secret"]), "lacks client_email, private_key, token_uri"),
        (json.dumps({"client_email": "a@b", "private_key": "but-a-secret"}), "lacks token_uri"),
    ],
)
def test_a_key_file_that_is_none_is_refused_without_showing_it(key: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        ServiceAccount.parse(Secret.of(key))
    assert "but-a-secret" not in str(caught.value)


def test_a_private_key_that_is_none_is_refused_without_showing_it() -> None:
    account = ServiceAccount("a@b", "https://token.test", "but-a-secret")
    assert "but-a-secret" not in repr(account)
    with pytest.raises(ConfigurationError, match="no RSA key") as caught:
        account.assertion(0.0)
    assert "but-a-secret" not in str(caught.value)
