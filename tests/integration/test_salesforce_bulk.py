"""The Salesforce sink's bulk jobs against the stand-in org: a verdict for every row, and no job lost by a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from sinks.salesforce.mock import SalesforceMock
from sinks.salesforce.mock.bulk import Job
from sinks.salesforce.settings import SalesforceConnection, SalesforceSettings
from sinks.salesforce.sink import SalesforceSink
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import FatalError
from trunkline.core.event import Event
from trunkline.core.settings import Secret
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

CONFIG: dict[str, Any] = {
    "object": "Flight__c",
    "external_id": "Flight_Key__c",
    "fields": {
        "Flight_Key__c": "event.key",
        "Carrier__c": "event.carrier",
        "Name": "event.name",
        "Minutes_Late__c": "event.minutes",
        "Cancelled__c": "event.cancelled",
        "Scheduled_Departure__c": "event.departs",
        "Operator__r.ExtId__c": "event.operator",
    },
    "correlation_field": "Correlation_Id__c",
    "job_poll": "20ms",
}
BULK = {**CONFIG, "api": "bulk"}
AUTO = {**CONFIG, "api": "auto", "bulk_above": 10}
RANGE = "flights-to-salesforce-topic-0-0-99"


@pytest.fixture
async def mock() -> AsyncIterator[SalesforceMock]:
    server = SalesforceMock()
    await server.start()
    server.org.create("Account", {"Name": "United", "ExtId__c": "UA"})
    server.org.attempts = 0
    yield server
    await server.stop()


@asynccontextmanager
async def opened(mock: SalesforceMock, path: Path, config: dict[str, Any] = BULK) -> AsyncIterator[SalesforceSink]:
    auth = {
        "type": "client_credentials",
        "client_id": mock.tokens.client_id,
        "client_secret": Secret.of(mock.tokens.client_secret),
    }
    options = {"url": mock.url, "auth": auth, "http": {"timeout": 5, "allow_private": ["127.0.0.1"]}}
    sink = SalesforceSink(SalesforceSettings.model_validate(config), SalesforceConnection.model_validate(options))
    try:
        await sink.open(PluginContext("test", "flights-to-salesforce", path, structlog.get_logger("test")))
        yield sink
    finally:
        await sink.close()


def event(key: str, *, offset: int = 0, **more: Any) -> Event:
    value = {
        "key": key,
        "carrier": "UA",
        "name": f"Flight {key}",
        "minutes": 20.5,
        "cancelled": False,
        "departs": datetime(2013, 1, 1, 5, 15, tzinfo=UTC),
        "operator": "UA",
        **more,
    }
    envelope = Envelope(id=f"e{offset}", source="/test", type="flight", correlation_id=f"c{offset}")
    return Event(value, headers=envelope_to_headers(envelope), topic="flights", topic_id="topic", offset=offset)


def flights(count: int) -> list[Event]:
    return [event(f"F{number}", offset=number) for number in range(count)]


async def written(sink: SalesforceSink, events: Sequence[Event], **more: Any) -> list[Verdict]:
    verdicts = list(await sink.write(Batch(events, name=RANGE, **more)))
    assert len(verdicts) == len(events)
    return verdicts


def stored(mock: SalesforceMock) -> dict[str, dict[str, Any]]:
    return {record["Flight_Key__c"]: record for record in mock.org.records("Flight__c")}


def jobs(mock: SalesforceMock) -> list[Job]:
    return list(mock.ingest.jobs.values())


def collections(mock: SalesforceMock) -> list[int]:
    return [len(call.body["records"]) for call in mock.calls if call.segments[:2] == ("composite", "sobjects")]


def only(verdicts: Sequence[Verdict], kind: type[Any]) -> list[int]:
    return [at for at, verdict in enumerate(verdicts) if isinstance(verdict, kind)]


# --- rows ---


async def test_a_range_is_one_job_whose_results_are_the_verdicts(mock: SalesforceMock, tmp_path: Path) -> None:
    events = flights(500)
    events[77] = event("F77", offset=77, carrier="much too long a carrier")
    events[78] = event("F78", offset=78, minutes="many")
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, events)
    assert only(verdicts, Dead) == [77, 78]
    refused, impossible = verdicts[77], verdicts[78]
    assert isinstance(refused, Dead)
    assert refused.code == "salesforce.string_too_long"
    assert "Carrier__c" in refused.reason
    assert isinstance(impossible, Dead)
    assert impossible.code == "salesforce.value_type"
    found = stored(mock)
    assert len(found) == 498
    assert [verdict.reference for verdict in verdicts if isinstance(verdict, Ok)] == [
        found[one.value["key"]]["Id"] for one in events if one.value["key"] in found
    ]
    [job] = jobs(mock)
    assert (job.state, len(job.successful), len(job.failed)) == ("JobComplete", 498, 1)
    assert collections(mock) == []


NASTY = [
    "plain",
    'quoted "so", and so',
    "two\nlines",
    "carriage\r\nreturn",
    "日本語, žluťoučký 🛩",
    "#N/A",
    "",
    "   ",
    "null",
    "'single'",
    "=1+1",
    "tab\there",
]


async def test_what_goes_by_a_job_is_stored_as_what_goes_by_requests(mock: SalesforceMock, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"name": text} for text in NASTY]
    rows += [{"minutes": number} for number in (0, -1, 7, 1e15, 0.1, -2.5e-3, None)]
    rows += [{"cancelled": True}, {"departs": None}, {"operator": None}, {"carrier": None}]
    by = {}
    for api in ("rest", "bulk"):
        events = [event(f"{api}{number}", offset=number, **{"name": "same", **row}) for number, row in enumerate(rows)]
        async with opened(mock, tmp_path / api, {**CONFIG, "api": api}) as sink:
            assert only(await written(sink, events), Ok) == list(range(len(rows)))
        found = stored(mock)
        by[api] = [
            {name: found[f"{api}{n}"].get(name) for name in ("Name", *found[f"{api}{n}"]) if name[-2:] != "Id"}
            for n in range(len(rows))
        ]
        for record in by[api]:
            for name in ("Flight_Key__c", "Id", "CreatedDate", "LastModifiedDate", "SystemModstamp"):
                record.pop(name, None)
    assert by["bulk"] == by["rest"]
    assert [row["Name"] for row in by["bulk"][:6]] == NASTY[:6]


async def test_with_nulls_omitted_a_null_leaves_the_field_as_it_is(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path, {**BULK, "nulls": "omit"}) as sink:
        await sink.write(Batch([event("F1", minutes=5)], name="first"))
        await sink.write(Batch([event("F1", minutes=None, carrier="DL")], name="second"))
    assert (stored(mock)["F1"]["Minutes_Late__c"], stored(mock)["F1"]["Carrier__c"]) == (5, "DL")


async def test_rows_that_share_an_external_id_take_effect_in_their_order(mock: SalesforceMock, tmp_path: Path) -> None:
    events = [event(f"f{number % 30}", offset=number, minutes=number) for number in range(60)]
    events.append(event("F7", offset=60, minutes=777))
    async with opened(mock, tmp_path, AUTO) as sink:
        verdicts = await written(sink, events)
    assert len(only(verdicts, Ok)) == 61
    late = {key.casefold(): record["Minutes_Late__c"] for key, record in stored(mock).items()}
    assert late == {f"f{number}": number + 30 for number in range(30)} | {"f7": 777}
    assert len(jobs(mock)) == 2, "two waves by jobs"
    assert collections(mock) == [1], "and one row by a request"


# --- which way ---


@pytest.mark.parametrize(("count", "by_job"), [(10, False), (11, True)])
async def test_auto_takes_a_job_for_ranges_above_the_threshold(
    mock: SalesforceMock, tmp_path: Path, count: int, by_job: bool
) -> None:
    async with opened(mock, tmp_path, AUTO) as sink:
        assert len(only(await written(sink, flights(count)), Ok)) == count
    assert bool(jobs(mock)) is by_job
    assert bool(collections(mock)) is not by_job


def test_what_the_sink_promises_follows_from_its_settings() -> None:
    connection = SalesforceConnection.model_validate(
        {
            "url": "https://example.my.salesforce.com",
            "auth": {"type": "client_credentials", "client_id": "a", "client_secret": Secret.of("b")},
        }
    )
    bulk = SalesforceSink(SalesforceSettings.model_validate({**BULK, "job_records": 7}), connection).promises
    assert (bulk.contiguous, bulk.max_batch, bulk.idempotent) == (True, 7, True)
    assert bulk.patience > 3600
    rest = SalesforceSink(SalesforceSettings.model_validate(CONFIG), connection).promises
    assert (rest.contiguous, rest.max_batch, rest.patience) == (False, 200, 0)


# --- what does not go well ---


async def test_a_locked_row_is_tried_again_alone(mock: SalesforceMock, tmp_path: Path) -> None:
    mock.ingest.faults.append("lock")
    events = flights(50)
    async with opened(mock, tmp_path, AUTO) as sink:
        first = await written(sink, events)
        assert only(first, Retry) == [0]
        assert "UNABLE_TO_LOCK_ROW" in str(first[0])
        second = await written(sink, events, attempt=2)
    assert len(only(second, Ok)) == 50
    assert collections(mock) == [1], "the others have their verdicts"
    assert mock.org.effects["updated"] == 0


async def test_rows_that_a_broken_job_did_not_come_to_go_into_another_one(mock: SalesforceMock, tmp_path: Path) -> None:
    mock.ingest.faults.append("break")
    events = flights(1000)
    async with opened(mock, tmp_path) as sink:
        first = await written(sink, events)
        left = only(first, Retry)
        assert 0 < len(left) < 1000
        assert len(only(first, Ok)) == 1000 - len(left)
        second = await written(sink, events, attempt=2)
    assert len(only(second, Ok)) == 1000
    assert [job.state for job in jobs(mock)] == ["Failed", "JobComplete"]
    assert len(jobs(mock)[1].successful) == len(left)


@pytest.mark.parametrize(
    ("method", "kind"),
    [("POST", "unavailable"), ("POST", "drop"), ("PUT", "unavailable"), ("PUT", "drop"), ("PUT", "reset")],
)
async def test_a_job_that_was_not_closed_has_no_effect_and_the_next_attempt_makes_another(
    mock: SalesforceMock, tmp_path: Path, method: str, kind: str
) -> None:
    mock.fail(1, kind, method=method)
    async with opened(mock, tmp_path) as sink:
        assert len(only(await written(sink, flights(20)), Retry)) == 20
        assert stored(mock) == {}
        assert len(only(await written(sink, flights(20), attempt=2), Ok)) == 20
    assert mock.org.attempts == 20
    assert jobs(mock)[-1].state == "JobComplete"
    if method == "PUT":
        assert [job.state for job in jobs(mock)] == ["Aborted", "JobComplete"]


@pytest.mark.parametrize("kind", ["unavailable", "drop", "reset", "error"])
async def test_a_lost_answer_to_the_closing_of_a_job_makes_no_second_job(
    mock: SalesforceMock, tmp_path: Path, kind: str
) -> None:
    mock.fail(1, kind, method="PATCH")
    async with opened(mock, tmp_path) as sink:
        assert len(only(await written(sink, flights(20)), Ok)) == 20
    assert len(jobs(mock)) == 1
    assert mock.org.attempts == 20


async def test_a_job_that_takes_too_long_is_unknown_and_the_next_attempt_waits_for_the_same_one(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    mock.ingest.held = True
    async with opened(mock, tmp_path, {**BULK, "job_timeout": "100ms"}) as sink:
        assert len(only(await written(sink, flights(20)), Unknown)) == 20
        mock.ingest.held = False
        assert len(only(await written(sink, flights(20), attempt=2), Ok)) == 20
    assert len(jobs(mock)) == 1


async def test_a_job_of_which_every_record_is_refused_for_want_of_rights_stops_the_pipeline(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    spec = mock.org.objects["Flight__c"]
    hidden = {**spec.fields, "Carrier__c": spec.fields["Carrier__c"].model_copy(update={"read_only": True})}
    async with opened(mock, tmp_path) as sink:
        mock.org.objects["Flight__c"] = spec.model_copy(update={"fields": hidden})
        with pytest.raises(FatalError, match="INVALID_FIELD_FOR_INSERT_UPDATE"):
            await written(sink, flights(20))
    mock.org.objects["Flight__c"] = spec
    async with opened(mock, tmp_path) as sink:
        assert len(only(await written(sink, flights(20), rebuilt=True), Ok)) == 20, "mended, it is sent anew"


async def test_a_column_that_is_gone_stops_the_pipeline(mock: SalesforceMock, tmp_path: Path) -> None:
    spec = mock.org.objects["Flight__c"]
    left = {name: field for name, field in spec.fields.items() if name != "Carrier__c"}
    async with opened(mock, tmp_path) as sink:
        mock.org.objects["Flight__c"] = spec.model_copy(update={"fields": left})
        with pytest.raises(FatalError, match="Field name not found : Carrier__c"):
            await written(sink, flights(20))


async def test_near_the_daily_limit_no_job_is_made(mock: SalesforceMock, tmp_path: Path) -> None:
    mock.api_used = mock.api_limit
    async with opened(mock, tmp_path, BULK) as sink:
        verdicts = await written(sink, flights(20))
    assert len(only(verdicts, Retry)) == 20
    assert all(isinstance(verdict, Retry) and verdict.after for verdict in verdicts)
    assert jobs(mock) == []


# --- crashes ---


async def cut_off(mock: SalesforceMock, folder: Path, until: str) -> None:
    """A run that ends, as by a kill, when its job has come so far."""
    mock.ingest.held = until != "complete"
    async with opened(mock, folder) as sink:
        writing = asyncio.create_task(written(sink, flights(100)))
        state = {"made": "Open", "closed": "UploadComplete", "complete": "JobComplete"}[until]
        async with asyncio.timeout(60):
            while not any(job.state == state for job in jobs(mock)):
                await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait({writing})


@pytest.mark.parametrize(
    ("until", "states"),
    [
        ("made", ["JobComplete"]),
        ("closed", ["JobComplete"]),
        ("complete", ["JobComplete"]),
    ],
)
async def test_after_a_crash_the_range_finds_its_job_again(
    mock: SalesforceMock, tmp_path: Path, until: str, states: list[str]
) -> None:
    await cut_off(mock, tmp_path, until)
    mock.ingest.held = False
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, flights(100), rebuilt=True)
    assert len(only(verdicts, Ok)) == 100
    found = stored(mock)
    assert [verdict.reference for verdict in verdicts if isinstance(verdict, Ok)] == [
        found[f"F{number}"]["Id"] for number in range(100)
    ]
    assert [job.state for job in jobs(mock) if job.state not in ("Open", "Aborted")] == states
    assert mock.org.attempts == 100, "every row was worked on once"


async def test_a_job_that_was_noted_and_not_closed_is_aborted_after_a_crash(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    async with opened(mock, tmp_path) as sink:
        mock.fail(1, "drop", method="PUT")
        await written(sink, flights(20))
    async with opened(mock, tmp_path) as sink:
        assert len(only(await written(sink, flights(20), rebuilt=True), Ok)) == 20
    assert [job.state for job in jobs(mock)] == ["Aborted", "JobComplete"]


async def test_a_range_that_comes_from_another_worker_waits_for_the_job_that_may_be_its_own(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    await cut_off(mock, tmp_path / "one", "closed")
    async with opened(mock, tmp_path / "another") as sink:
        writing = asyncio.create_task(written(sink, flights(100), rebuilt=True))
        asked = len(mock.calls)
        async with asyncio.timeout(60):
            while len(mock.calls) < asked + 4:
                await asyncio.sleep(0.01)
        assert len(jobs(mock)) == 1, "an old job must not come after a newer one"
        mock.ingest.held = False
        assert len(only(await writing, Ok)) == 100
    assert [job.state for job in jobs(mock)] == ["JobComplete", "JobComplete"]
    assert mock.org.effects == {"created": 101, "updated": 100, "deleted": 0}


async def test_a_job_that_salesforce_has_forgotten_is_made_again(mock: SalesforceMock, tmp_path: Path) -> None:
    await cut_off(mock, tmp_path, "complete")
    mock.ingest.jobs.clear()
    async with opened(mock, tmp_path) as sink:
        assert len(only(await written(sink, flights(100), rebuilt=True), Ok)) == 100


async def test_a_note_that_can_not_be_read_costs_a_second_job_and_no_record(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    await cut_off(mock, tmp_path, "complete")
    [note] = (tmp_path / "salesforce-jobs").iterdir()
    note.write_bytes(b"{")
    async with opened(mock, tmp_path) as sink:
        assert len(only(await written(sink, flights(100), rebuilt=True), Ok)) == 100
    assert len(jobs(mock)) == 2
