"""The Google Sheets sink against the stand-in, and the stand-in against gspread with google-auth."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import gspread
import pytest
import structlog
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.service_account import Credentials
from gspread.exceptions import APIError
from requests.adapters import HTTPAdapter

from sinks.google_sheets.mock import GoogleSheetsMock, GoogleSheetsMockSettings
from sinks.google_sheets.settings import GoogleSheetsConnection, GoogleSheetsSettings
from sinks.google_sheets.sink import GoogleSheetsSink
from tests.unit.sinks.hostile_texts import FORMULAS
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.event import Event
from trunkline.core.http import HttpOptions
from trunkline.core.plugins import load_plugin
from trunkline.core.secret import Secret
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown

LOOPBACK = HttpOptions(allow_private=["127.0.0.1"])
CONTEXT = PluginContext("test", "to-sheets", Path(), structlog.get_logger())
COLUMNS = {"Flight": "event.flight", "Minutes": "event.minutes"}


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One throw-away key for all tests: making one takes longer than most of them."""
    return tmp_path_factory.mktemp("account") / "key.json"


@pytest.fixture
def settings(key_file: Path) -> Callable[..., GoogleSheetsMockSettings]:
    return lambda **given: GoogleSheetsMockSettings(key_file=key_file, **given)


@pytest.fixture
async def sheets(settings: Callable[..., GoogleSheetsMockSettings]) -> AsyncIterator[GoogleSheetsMock]:
    mock = GoogleSheetsMock(settings(worksheets=["Sheet1", "it's 2013!"]))
    await mock.start()
    yield mock
    await mock.stop()


def event(number: int, **value: Any) -> Event:
    envelope = Envelope(f"id-{number}", "/test", "flight", correlation_id=f"corr-{number}")
    made = Event({"flight": f"UA{number}", "minutes": 20 + number} | value, headers=envelope_to_headers(envelope))
    made.idempotency_key = f"idem-{number}"
    return made


def events(count: int) -> list[Event]:
    return [event(number) for number in range(count)]


def connection(mock: GoogleSheetsMock) -> GoogleSheetsConnection:
    secret = Secret.of(mock.environment["GOOGLE_SHEETS_KEY"])
    return GoogleSheetsConnection(service_account=secret, base_url=mock.url, http=LOOPBACK)


async def opened(mock: GoogleSheetsMock, **given: Any) -> GoogleSheetsSink:
    given = {"spreadsheet": "mock-spreadsheet", "columns": COLUMNS} | given
    sink = GoogleSheetsSink(GoogleSheetsSettings(**given), connection(mock))
    try:
        await sink.open(CONTEXT)
    except BaseException:
        await sink.close()
        raise
    return sink


async def upserting(mock: GoogleSheetsMock, **given: Any) -> GoogleSheetsSink:
    return await opened(mock, mode="upsert", key="Flight", **given)


def flights(mock: GoogleSheetsMock, worksheet: str = "Sheet1") -> list[Any]:
    return [row[0] for row in mock.contents()[worksheet][1:]]


def writes(mock: GoogleSheetsMock) -> int:
    return sum(request["method"] != "GET" for request in mock.requests)


# --- the stand-in -----------------------------------------------------------------------------------------------------


class _ToLoopback(HTTPAdapter):
    """Sends what gspread addresses to Google to the stand-in: gspread's addresses are constants."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: Any, *arguments: Any, **named: Any) -> Any:
        request.url = request.url.replace("https://sheets.googleapis.com", self._url)
        return super().send(request, *arguments, **named)


def with_gspread(mock: GoogleSheetsMock, use: Callable[[gspread.Client], None]) -> None:
    account = Credentials.from_service_account_file(mock.key_file, scopes=gspread.auth.DEFAULT_SCOPES)
    with AuthorizedSession(account) as session:
        session.mount("https://sheets.googleapis.com", _ToLoopback(mock.url))
        use(gspread.Client(auth=account, session=session))


async def test_the_stand_in_satisfies_gspread(sheets: GoogleSheetsMock) -> None:
    def use(client: gspread.Client) -> None:
        book = client.open_by_key("mock-spreadsheet")
        sheet = book.worksheet("it's 2013!")
        sheet.append_row(["flight", "minutes", "late"])
        sheet.append_rows([["UA1", 1, True], ["UA2", 2.5, False]])
        sheet.update([["UA3", 3]], "A4")
        sheet.batch_update([{"range": "B2", "values": [[10]]}, {"range": "B3:C3", "values": [[20, True]]}])
        assert sheet.get_all_records() == [
            {"flight": "UA1", "minutes": 10, "late": "TRUE"},
            {"flight": "UA2", "minutes": 20, "late": "TRUE"},
            {"flight": "UA3", "minutes": 3, "late": ""},
        ]
        assert sheet.col_values(1) == ["flight", "UA1", "UA2", "UA3"]
        assert sheet.find("UA2").address == "A3"
        assert sheet.batch_get(["A2:A3", "B2:B3"]) == [[["UA1"], ["UA2"]], [["10"], ["20"]]]
        sheet.batch_clear(["A4:C4"])
        sheet.delete_rows(2)
        assert sheet.get_all_values() == [["flight", "minutes", "late"], ["UA2", "20", "TRUE"]]
        added = book.add_worksheet("new", rows=3, cols=2)
        assert [each.title for each in book.worksheets()] == ["Sheet1", "it's 2013!", "new"]
        with pytest.raises(APIError, match="exceeds grid limits"):
            added.update([[1, 2, 3]], "A1")
        with pytest.raises(APIError, match="50000 characters"):
            added.append_row(["x" * 50_001])
        with pytest.raises(APIError, match="already exists"):
            book.add_worksheet("new", rows=1, cols=1)
        with pytest.raises(gspread.SpreadsheetNotFound):
            client.open_by_key("another")

    await asyncio.to_thread(with_gspread, sheets, use)


async def test_the_stand_in_tells_raw_from_user_entered_as_google_does(sheets: GoogleSheetsMock) -> None:
    def use(client: gspread.Client) -> None:
        sheet = client.open_by_key("mock-spreadsheet").sheet1
        link = '=HYPERLINK("https://x.test","click")'
        sheet.append_row([link], value_input_option="RAW")
        sheet.append_row([link], value_input_option="USER_ENTERED")
        assert sheet.col_values(1) == [link, "click"]

    await asyncio.to_thread(with_gspread, sheets, use)
    assert len(sheets.formulas()) == 1


async def test_the_stand_in_has_google_s_quota(settings: Callable[..., GoogleSheetsMockSettings]) -> None:
    mock = GoogleSheetsMock(settings(writes=2, private=["theirs"]))
    await mock.start()

    def use(client: gspread.Client) -> None:
        sheet = client.open_by_key("mock-spreadsheet").sheet1
        sheet.append_row([1])
        sheet.append_row([2])
        with pytest.raises(APIError, match="429"):
            sheet.append_row([3])
        with pytest.raises(PermissionError):
            client.open_by_key("theirs")

    try:
        await asyncio.to_thread(with_gspread, mock, use)
    finally:
        await mock.stop()


async def test_the_stand_in_keeps_its_rows_over_a_restart(
    settings: Callable[..., GoogleSheetsMockSettings], tmp_path: Path
) -> None:
    for number in range(2):
        mock = GoogleSheetsMock(settings(state=tmp_path / "sheets.json"))
        await mock.start()
        sink = await opened(mock)
        await sink.write(Batch([event(number)]))
        await sink.close()
        await mock.stop()
    assert flights(mock) == ["UA0", "UA1"]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_the_plug_in_is_found_by_its_name() -> None:
    assert load_plugin("sink", "google_sheets") is GoogleSheetsSink


async def test_an_empty_worksheet_gets_its_header_and_a_row_for_each_event(sheets: GoogleSheetsMock) -> None:
    columns = COLUMNS | {"Correlation": "meta.correlation_id", "Late": "event.minutes > 20", "Gate": "event.gate"}
    sink = await opened(sheets, worksheet="it's 2013!", columns=columns)
    verdicts = await sink.write(Batch([event(0, gate=None), event(1, gate="B7")]))
    await sink.close()
    assert sheets.contents()["it's 2013!"] == [
        ["Flight", "Minutes", "Correlation", "Late", "Gate", "_trunkline_id"],
        ["UA0", 20, "corr-0", False, "", "idem-0"],
        ["UA1", 21, "corr-1", True, "B7", "idem-1"],
    ]
    assert verdicts == [Ok("it's 2013!!A2"), Ok("it's 2013!!A3")]
    assert sheets.requests[-1]["headers"]["X-Correlation-ID"] == "corr-0"


async def test_500_events_share_one_write_request(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    before = writes(sheets)
    verdicts = await sink.write(Batch(events(500)))
    await sink.close()
    assert writes(sheets) - before == 1
    assert verdicts[499] == Ok("Sheet1!A501")
    assert flights(sheets) == [f"UA{number}" for number in range(500)]


async def test_columns_of_people_are_left_alone(sheets: GoogleSheetsMock) -> None:
    def prepare(client: gspread.Client) -> None:
        sheet = client.open_by_key("mock-spreadsheet").sheet1
        sheet.append_rows([["Minutes", "Notes", "Flight"], [1, "keep me", "UA0"]])

    await asyncio.to_thread(with_gspread, sheets, prepare)
    sink = await upserting(sheets)
    assert await sink.write(Batch(events(2))) == [Ok("Sheet1!A2"), Ok("Sheet1!A3")]
    await sink.close()
    assert sheets.contents()["Sheet1"] == [["Minutes", "Notes", "Flight"], [20, "keep me", "UA0"], [21, "", "UA1"]]


async def test_200_formulas_stay_texts(sheets: GoogleSheetsMock) -> None:
    sink, other = await opened(sheets), await upserting(sheets, worksheet="it's 2013!")
    for writer in (sink, other):
        batch = Batch([event(number, minutes=text) for number, text in enumerate(FORMULAS)])
        assert all(isinstance(verdict, Ok) for verdict in await writer.write(batch))
        assert all(isinstance(verdict, Ok) for verdict in await writer.write(batch))
        await writer.close()
    assert len(FORMULAS) == 200
    assert sheets.formulas() == []
    assert [row[1] for row in sheets.contents()["Sheet1"][1:]] == FORMULAS
    assert [row[1] for row in sheets.contents()["it's 2013!"][1:]] == FORMULAS


async def test_one_bad_event_of_200_is_dead_and_199_are_rows(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    batch = events(200)
    batch[77] = event(77, flight="x" * 50_001)
    verdicts = await sink.write(Batch(batch))
    await sink.close()
    assert [index for index, verdict in enumerate(verdicts) if not isinstance(verdict, Ok)] == [77]
    assert isinstance(verdicts[77], Dead)
    assert "50,001 characters" in verdicts[77].reason
    assert flights(sheets) == [f"UA{number}" for number in range(200) if number != 77]


@pytest.mark.parametrize("mode", ["append", "upsert"])
async def test_a_row_that_only_google_refuses_is_found_by_halving(
    sheets: GoogleSheetsMock, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = await (opened(sheets) if mode == "append" else upserting(sheets))
    # A limit of Google's that the sink does not know of.
    monkeypatch.setattr("sinks.google_sheets.mock_grid.MAX_CHARACTERS", 100)
    batch = events(200)
    batch[13], batch[150] = event(13, minutes="x" * 101), event(150, minutes="y" * 101)
    verdicts = await sink.write(Batch(batch))
    await sink.close()
    assert [index for index, verdict in enumerate(verdicts) if isinstance(verdict, Dead)] == [13, 150]
    assert sum(isinstance(verdict, Ok) for verdict in verdicts) == 198
    assert flights(sheets) == [f"UA{number}" for number in range(200) if number not in (13, 150)]
    rows = sheets.contents()["Sheet1"]
    references = [verdict.reference for verdict in verdicts if isinstance(verdict, Ok)]
    assert references == [f"Sheet1!A{number}" for number in range(2, len(rows) + 1)]


async def test_large_rows_are_sent_in_several_requests(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    verdicts = await sink.write(Batch([event(number, minutes="x" * 50_000) for number in range(100)]))
    await sink.close()
    assert all(isinstance(verdict, Ok) for verdict in verdicts)
    assert max(request["size"] for request in sheets.requests) <= 2_000_000
    assert flights(sheets) == [f"UA{number}" for number in range(100)]


# --- effect once ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "upsert"])
async def test_a_batch_that_is_written_again_after_a_crash_makes_no_row_twice(
    sheets: GoogleSheetsMock, mode: str
) -> None:
    make = opened if mode == "append" else upserting
    crashed = await make(sheets)
    first = await crashed.write(Batch(events(50)))
    await crashed.close()
    restarted = await make(sheets)
    assert await restarted.write(Batch(events(50), attempt=2)) == first
    assert all(isinstance(verdict, Ok) for verdict in await restarted.write(Batch(events(60))))
    await restarted.close()
    assert flights(sheets) == [f"UA{number}" for number in range(60)]
    assert restarted.promises.idempotent


@pytest.mark.parametrize("mode", ["append", "upsert"])
async def test_an_answer_lost_after_the_effect_is_unknown_and_the_retry_makes_no_row_twice(
    sheets: GoogleSheetsMock, mode: str
) -> None:
    sink = await (opened(sheets) if mode == "append" else upserting(sheets))
    await sink.write(Batch(events(3)))
    sheets.fail(1, "lost")
    verdicts = await sink.write(Batch([event(number) for number in (3, 4)]))
    assert all(isinstance(verdict, Unknown) for verdict in verdicts)
    retried = await sink.write(Batch([event(number) for number in (3, 4, 5)], attempt=2))
    await sink.close()
    assert retried == [Ok("Sheet1!A5"), Ok("Sheet1!A6"), Ok("Sheet1!A7")]
    assert flights(sheets) == [f"UA{number}" for number in range(6)]


async def test_a_connection_lost_before_the_effect_is_unknown_and_the_retry_makes_the_row(
    sheets: GoogleSheetsMock,
) -> None:
    sink = await opened(sheets)
    sheets.fail(1, "reset")
    assert isinstance((await sink.write(Batch(events(1))))[0], Unknown)
    assert flights(sheets) == []
    assert await sink.write(Batch(events(1), attempt=2)) == [Ok("Sheet1!A2")]
    await sink.close()
    assert flights(sheets) == ["UA0"]


async def test_rows_of_another_worker_are_not_appended_again(sheets: GoogleSheetsMock) -> None:
    mine, theirs = await opened(sheets), await opened(sheets)
    await mine.write(Batch([event(0)]))
    await theirs.write(Batch([event(1), event(2)]))
    # Their partition comes to me, with what they did not commit.
    assert await mine.write(Batch([event(1), event(2), event(3)])) == [
        Ok("Sheet1!A3"),
        Ok("Sheet1!A4"),
        Ok("Sheet1!A5"),
    ]
    await mine.close()
    await theirs.close()
    assert flights(sheets) == ["UA0", "UA1", "UA2", "UA3"]


async def test_without_a_dedupe_column_the_sink_promises_less(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets, dedupe_column=None)
    assert not sink.promises.idempotent
    assert GoogleSheetsSink.promises.idempotent
    await sink.write(Batch(events(1)))
    await sink.write(Batch(events(1)))
    await sink.close()
    assert sheets.contents()["Sheet1"] == [["Flight", "Minutes"], ["UA0", 20], ["UA0", 20]]


async def test_an_event_twice_in_a_batch_is_one_row(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    assert await sink.write(Batch([event(0), event(1), event(0)])) == [
        Ok("Sheet1!A2"),
        Ok("Sheet1!A3"),
        Ok("Sheet1!A2"),
    ]
    await sink.close()
    assert flights(sheets) == ["UA0", "UA1"]


async def test_upsert_changes_the_row_of_a_key_and_the_last_event_of_a_batch_wins(sheets: GoogleSheetsMock) -> None:
    sink = await upserting(sheets)
    await sink.write(Batch([event(1), event(2)]))
    changed = [event(2, minutes=1), event(3), event(2, minutes=2), event(3, minutes=3)]
    assert await sink.write(Batch(changed)) == [Ok("Sheet1!A3"), Ok("Sheet1!A4"), Ok("Sheet1!A3"), Ok("Sheet1!A4")]
    await sink.close()
    assert sheets.contents()["Sheet1"] == [["Flight", "Minutes"], ["UA1", 21], ["UA2", 2], ["UA3", 3]]


async def test_upsert_finds_numeric_keys_again(sheets: GoogleSheetsMock) -> None:
    for minutes in (1, 2):
        sink = await upserting(sheets)
        await sink.write(Batch([event(0, flight=7, minutes=minutes), event(0, flight=2.5, minutes=minutes)]))
        await sink.close()
    assert sheets.contents()["Sheet1"] == [["Flight", "Minutes"], [7, 2], [2.5, 2]]


async def test_a_key_that_reads_like_the_header_does_not_overwrite_it(sheets: GoogleSheetsMock) -> None:
    sink = await upserting(sheets)
    await sink.write(Batch([event(0, flight="Flight")]))
    await sink.write(Batch([event(0, flight="Flight", minutes=5)]))
    await sink.close()
    assert sheets.contents()["Sheet1"] == [["Flight", "Minutes"], ["Flight", 5]]


@pytest.mark.parametrize("disturb", ["sort", "delete", "shrink", "insert"])
async def test_rows_that_people_move_are_still_updated_in_their_place(sheets: GoogleSheetsMock, disturb: str) -> None:
    sink = await upserting(sheets)
    await sink.write(Batch([event(number, flight=name) for number, name in enumerate("dcba")]))
    sheet = sheets.spreadsheet().worksheet("Sheet1")
    if disturb == "sort":
        sheet.sort(1)
    elif disturb == "delete":
        sheet.delete_rows(1, 3)
    elif disturb == "shrink":
        sheet.delete_rows(3, 1000)
    else:
        sheet.insert_rows(1, 2)
    verdicts = await sink.write(Batch([event(number, flight=name, minutes=0) for number, name in enumerate("dcba")]))
    await sink.close()
    assert all(isinstance(verdict, Ok) for verdict in verdicts)
    rows = [row for row in sheets.contents()["Sheet1"][1:] if row]
    assert sorted(rows) == [["a", 0], ["b", 0], ["c", 0], ["d", 0]]


# --- what can go wrong ------------------------------------------------------------------------------------------------


async def test_a_429_waits_as_long_as_it_says(settings: Callable[..., GoogleSheetsMockSettings]) -> None:
    mock = GoogleSheetsMock(settings(retry_after=17))
    await mock.start()
    sink = await opened(mock)
    mock.fail(1, "throttled")
    [verdict] = await sink.write(Batch(events(1)))
    await sink.close()
    await mock.stop()
    assert isinstance(verdict, Retry)
    assert verdict.after == 17.0


@pytest.mark.parametrize(
    ("kind", "occasion", "expected"),
    [
        ("unavailable", "write", Retry),
        ("throttled", "write", Retry),
        ("internal", "write", Unknown),
        ("garbage", "write", Unknown),
        ("unavailable", "read", Retry),
        ("throttled", "read", Retry),
        ("internal", "read", Retry),
        ("reset", "read", Retry),
    ],
)
async def test_a_failure_that_may_pass_is_retried_and_nothing_is_lost_or_doubled(
    sheets: GoogleSheetsMock, kind: str, occasion: Any, expected: type[Any]
) -> None:
    sink = await opened(sheets)
    sheets.fail(1, kind, occasion)
    verdicts = await sink.write(Batch([*events(2), event(9, flight="x" * 50_001)]))
    assert [type(verdict) for verdict in verdicts] == [expected, expected, Dead]
    assert all(isinstance(verdict, Ok) for verdict in await sink.write(Batch(events(2), attempt=2)))
    await sink.close()
    assert flights(sheets) == ["UA0", "UA1"]


async def test_after_a_failure_the_rest_of_the_batch_waits_in_order(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    sheets.fail(1, "throttled")
    batch = Batch([event(number, minutes="x" * 50_000) for number in range(100)])
    assert all(isinstance(verdict, Retry) for verdict in await sink.write(batch))
    assert flights(sheets) == []
    await sink.write(batch)
    await sink.close()
    assert flights(sheets) == [f"UA{number}" for number in range(100)]


async def test_a_token_that_ended_is_renewed_once(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    sheets.expire_tokens()
    assert isinstance((await sink.write(Batch(events(1))))[0], Ok)
    sheets.fail(1, "denied")
    assert isinstance((await sink.write(Batch([event(1)])))[0], Ok)
    sheets.fail(2, "denied")
    with pytest.raises(FatalError, match="401"):
        await sink.write(Batch([event(2)]))
    await sink.close()
    assert flights(sheets) == ["UA0", "UA1"]


async def test_a_token_endpoint_that_is_away_leaves_no_doubt_about_the_rows(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets, dedupe_column=None)
    for kind in ("unavailable", "reset"):
        sheets.expire_tokens()
        sheets.fail(1, kind, "token")
        assert isinstance((await sink.write(Batch(events(1))))[0], Retry)
    assert isinstance((await sink.write(Batch(events(1))))[0], Ok)
    await sink.close()
    assert flights(sheets) == ["UA0"]


@pytest.mark.parametrize(("kind", "status"), [("forbidden", "403"), ("missing", "404")])
async def test_a_spreadsheet_that_was_taken_away_stops_the_pipeline(
    sheets: GoogleSheetsMock, kind: str, status: str
) -> None:
    sink = await opened(sheets)
    sheets.fail(1, kind)
    with pytest.raises(FatalError, match=status):
        await sink.write(Batch(events(1)))
    await sink.close()


async def test_a_full_spreadsheet_stops_the_pipeline_and_is_no_fault_of_the_row(
    settings: Callable[..., GoogleSheetsMockSettings],
) -> None:
    mock = GoogleSheetsMock(settings(max_rows=3))
    await mock.start()
    sink = await opened(mock)
    with pytest.raises(FatalError, match="full"):
        await sink.write(Batch(events(5)))
    await sink.close()
    await mock.stop()
    assert flights(mock) == []


async def test_a_renamed_worksheet_stops_the_pipeline(sheets: GoogleSheetsMock) -> None:
    sink, plain = await opened(sheets), await opened(sheets, worksheet="it's 2013!", dedupe_column=None)
    await sink.write(Batch(events(1)))
    sheets.spreadsheet().worksheet("Sheet1").title = "Renamed"
    sheets.spreadsheet().worksheet("it's 2013!").title = "Too"
    for writer in (sink, plain):
        with pytest.raises(FatalError, match="worksheet"):
            await writer.write(Batch([event(1)]))
        await writer.close()


async def test_a_moved_column_stops_the_pipeline_before_anything_is_written(sheets: GoogleSheetsMock) -> None:
    sink = await upserting(sheets)
    await sink.write(Batch(events(2)))

    def swap(client: gspread.Client) -> None:
        client.open_by_key("mock-spreadsheet").sheet1.update([["Minutes", "Flight"], [20, "UA0"], [21, "UA1"]], "A1")

    await asyncio.to_thread(with_gspread, sheets, swap)
    with pytest.raises(FatalError, match="was 'Flight'"):
        await sink.write(Batch(events(2)))
    await sink.close()
    assert sheets.contents()["Sheet1"] == [["Minutes", "Flight"], [20, "UA0"], [21, "UA1"]]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([["Flight", "Other"]], "lacks 'Minutes', '_trunkline_id'"),
        ([["", "Flight", "Minutes", "_trunkline_id"]], "must begin in column A"),
        ([["Flight", "Minutes", "_trunkline_id", "Flight"]], "'Flight' twice"),
        ([[""], ["UA1", 5]], "is empty, but there are rows below"),
    ],
)
async def test_a_header_that_does_not_fit_is_refused_at_the_start(
    sheets: GoogleSheetsMock, rows: list[list[Any]], complaint: str
) -> None:
    def prepare(client: gspread.Client) -> None:
        client.open_by_key("mock-spreadsheet").sheet1.update(rows, "A1")

    await asyncio.to_thread(with_gspread, sheets, prepare)
    before = sheets.contents()
    with pytest.raises(ConfigurationError, match=complaint):
        await opened(sheets)
    assert sheets.contents() == before


async def test_a_wrong_name_is_refused_at_the_start_with_the_nearest_one(sheets: GoogleSheetsMock) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'Sheet1'"):
        await opened(sheets, worksheet="Sheet 1")
    with pytest.raises(FatalError, match="404"):
        await opened(sheets, spreadsheet="another")


async def test_a_spreadsheet_that_is_not_shared_is_refused_at_the_start(
    settings: Callable[..., GoogleSheetsMockSettings],
) -> None:
    mock = GoogleSheetsMock(settings(private=["theirs"]))
    await mock.start()
    with pytest.raises(FatalError, match="share the spreadsheet"):
        await opened(mock, spreadsheet="theirs")
    await mock.stop()


async def test_a_refused_key_is_found_at_the_start_and_stays_secret(sheets: GoogleSheetsMock, tmp_path: Path) -> None:
    other = GoogleSheetsMock(GoogleSheetsMockSettings(key_file=tmp_path / "other.json"))
    await other.start()
    forged = other.environment["GOOGLE_SHEETS_KEY"].replace(other.url, sheets.url)
    await other.stop()
    secret = GoogleSheetsConnection(service_account=Secret.of(forged), base_url=sheets.url, http=LOOPBACK)
    sink = GoogleSheetsSink(GoogleSheetsSettings(spreadsheet="mock-spreadsheet", columns=COLUMNS), secret)
    with pytest.raises(FatalError, match="invalid_grant") as caught:
        await sink.open(CONTEXT)
    await sink.close()
    assert "PRIVATE KEY" not in str(caught.value)


async def test_google_being_away_at_the_start_may_pass(sheets: GoogleSheetsMock) -> None:
    sheets.fail(1, "unavailable", "read")
    with pytest.raises(RetriableError):
        await opened(sheets)
    sheets.fail(1, "unavailable", "token")
    with pytest.raises(RetriableError):
        await opened(sheets)


async def test_writes_at_the_same_time_take_turns(sheets: GoogleSheetsMock) -> None:
    sink = await opened(sheets)
    batches = [[event(number), event(number + 100)] for number in range(10)]
    results = await asyncio.gather(*(sink.write(Batch(batch)) for batch in batches))
    await sink.close()
    places = [verdict.reference for result in results for verdict in result if isinstance(verdict, Ok)]
    assert sorted(flights(sheets)) == sorted(f"UA{number + add}" for number in range(10) for add in (0, 100))
    assert len(set(places)) == 20
