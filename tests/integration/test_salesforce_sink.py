"""The Salesforce sink against the stand-in org: one verdict for each record, whatever the org does."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sinks.salesforce.mock import MockSettings, SalesforceMock
from sinks.salesforce.settings import SalesforceConnection, SalesforceSettings
from sinks.salesforce.sink import SalesforceSink
from trunkline.core.contracts import Batch, PluginContext, Promises
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.event import Event
from trunkline.core.plugins import load_plugin
from trunkline.core.settings import Secret
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

FIELDS = {
    "Flight_Key__c": "event.key",
    "Carrier__c": "event.carrier",
    "Minutes_Late__c": "event.minutes",
    "Scheduled_Departure__c": "event.departs",
}
CONFIG: dict[str, Any] = {
    "object": "Flight__c",
    "external_id": "Flight_Key__c",
    "fields": FIELDS,
    "correlation_field": "Correlation_Id__c",
}
INSERT = {**CONFIG, "operation": "insert"}


@pytest.fixture
async def mock() -> AsyncIterator[SalesforceMock]:
    server = SalesforceMock()
    await server.start()
    yield server
    await server.stop()


@asynccontextmanager
async def opened(
    mock: SalesforceMock, path: Path, config: dict[str, Any] = CONFIG, **connection: Any
) -> AsyncIterator[SalesforceSink]:
    auth = {
        "type": "client_credentials",
        "client_id": mock.tokens.client_id,
        "client_secret": Secret.of(mock.tokens.client_secret),
    }
    options = {"url": mock.url, "auth": auth, "http": {"timeout": 5, "allow_private": ["127.0.0.1"]}, **connection}
    sink = SalesforceSink(SalesforceSettings.model_validate(config), SalesforceConnection.model_validate(options))
    try:
        await sink.open(PluginContext("test", "flights-to-salesforce", path, structlog.get_logger("test")))
        yield sink
    finally:
        await sink.close()


def event(key: str | None, *, offset: int = 0, carrier: Any = "UA", minutes: Any = 20.0, **more: Any) -> Event:
    value = {
        "key": key,
        "carrier": carrier,
        "minutes": minutes,
        "departs": datetime(2013, 1, 1, 5, 15, tzinfo=UTC),
        **more,
    }
    envelope = Envelope(id=f"e{offset}", source="/test", type="flight", correlation_id=f"c{offset}")
    return Event(
        value, headers=envelope_to_headers(envelope), topic="flights", offset=offset, raw_key=str(offset).encode()
    )


def flights(count: int, first: int = 0) -> list[Event]:
    return [event(f"F{number}", offset=number) for number in range(first, first + count)]


async def written(sink: SalesforceSink, events: Sequence[Event]) -> list[Verdict]:
    verdicts = list(await sink.write(Batch(events)))
    assert len(verdicts) == len(events)
    return verdicts


def kinds(verdicts: Sequence[Verdict]) -> Counter[str]:
    return Counter(type(verdict).__name__ for verdict in verdicts)


def stored(mock: SalesforceMock) -> dict[str, dict[str, Any]]:
    return {record["Flight_Key__c"]: record for record in mock.org.records("Flight__c")}


def writes(mock: SalesforceMock) -> list[Any]:
    return [call for call in mock.calls if call.writes]


# --- delivery ---


async def test_one_bad_row_of_200_gives_199_delivered_and_one_dead_letter(mock: SalesforceMock, tmp_path: Path) -> None:
    events = flights(200)
    events[77] = event("F77", offset=77, carrier="much too long a carrier")
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, events)
    assert kinds(verdicts) == {"Ok": 199, "Dead": 1}
    dead = verdicts[77]
    assert isinstance(dead, Dead)
    assert dead.code == "salesforce.string_too_long"
    assert "Carrier__c" in dead.reason
    assert set(stored(mock)) == {f"F{number}" for number in range(200)} - {"F77"}
    references = [verdict.reference for verdict in verdicts if isinstance(verdict, Ok)]
    assert references == [record["Id"] for record in mock.org.records("Flight__c")]
    assert len(writes(mock)) == 1


async def test_a_value_of_the_wrong_type_dies_alone_and_is_not_sent(mock: SalesforceMock, tmp_path: Path) -> None:
    events = [event("a"), event("b", minutes="many"), event("c")]
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, events)
    assert kinds(verdicts) == {"Ok": 2, "Dead": 1}
    assert isinstance(verdicts[1], Dead)
    assert "Minutes_Late__c takes a number" in verdicts[1].reason
    assert mock.org.attempts == 2


async def test_a_record_that_only_the_server_finds_unreadable_dies_alone(mock: SalesforceMock, tmp_path: Path) -> None:
    config = {**CONFIG, "fields": {**FIELDS, "Operator__r.ExtId__c": "event.operator"}}
    mock.org.create("Account", {"Name": "United", "ExtId__c": "UA"})
    # What a relation's key must look like is not in the object's describe; a number where text belongs refuses the request.
    events = [event(f"F{number}", offset=number, operator=5 if number == 3 else "UA") for number in range(8)]
    async with opened(mock, tmp_path, config) as sink:
        verdicts = await written(sink, events)
    assert [place for place, verdict in enumerate(verdicts) if isinstance(verdict, Dead)] == [3]
    assert len(stored(mock)) == 7
    assert [len(call.body["records"]) for call in writes(mock)] == [8, 4, 2, 2, 1, 1, 4]


async def test_the_same_batch_written_twice_makes_no_second_record(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        first = await written(sink, flights(50))
        second = await written(sink, flights(50))
    assert kinds(first) == kinds(second) == {"Ok": 50}
    assert first == second
    assert len(stored(mock)) == 50
    assert mock.org.attempts == 100
    assert mock.org.effects == {"created": 50, "updated": 50, "deleted": 0}


async def test_values_nulls_and_correlation_arrive_as_meant(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        await written(sink, [event("a", offset=1, minutes=15)])
        await written(sink, [event("a", offset=2, minutes=None)])
    record = stored(mock)["a"]
    assert record["Minutes_Late__c"] is None
    assert record["Scheduled_Departure__c"] == "2013-01-01T05:15:00.000+0000"
    assert record["Correlation_Id__c"] == "c2"
    assert [call.headers["X-Correlation-ID"] for call in writes(mock)] == ["c1", "c2"]


async def test_avro_values_and_computed_ones_arrive_as_meant(mock: SalesforceMock, tmp_path: Path) -> None:
    config = {
        "object": "Flight__c",
        "external_id": "Flight_Key__c",
        "fields": {
            "Flight_Key__c": "event.carrier + '-' + string(event.number)",
            "Distance__c": "event.distance",
            "Flight_Date__c": "event.day",
            "Cancelled__c": "event.minutes > 600.0",
            "Name": "event.id",
        },
    }
    values = {"number": 1545, "distance": Decimal("1400.25"), "day": date(2013, 1, 31), "id": UUID(int=7)}
    async with opened(mock, tmp_path, config) as sink:
        assert kinds(await written(sink, [event(None, **values)])) == {"Ok": 1}
    record = stored(mock)["UA-1545"]
    assert (record["Distance__c"], record["Flight_Date__c"], record["Cancelled__c"]) == (1400.25, "2013-01-31", False)
    assert record["Name"] == str(UUID(int=7))


async def test_a_tombstone_is_a_dead_letter(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        assert kinds(await written(sink, [Event(None)])) == {"Dead": 1}


def test_an_expression_that_cant_be_read_names_its_field() -> None:
    auth = {"type": "client_credentials", "client_id": "a", "client_secret": "${env:SF_CLIENT_SECRET}"}
    connection = {"url": "http://127.0.0.1:1", "auth": auth}
    with pytest.raises(ConfigurationError) as caught:
        SalesforceSink(
            SalesforceSettings.model_validate({**CONFIG, "fields": {**FIELDS, "Name": "event."}}),
            SalesforceConnection.model_validate(connection),
        )
    assert caught.value.where == "config.fields.Name"


def test_sink_and_stand_in_are_found_by_their_entry_points() -> None:
    assert load_plugin("sink", "salesforce") is SalesforceSink
    (point,) = entry_points(group="trunkline.mocks", name="salesforce")
    assert point.load() is SalesforceMock


async def test_an_omitted_null_leaves_the_field_as_it_is(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path, {**CONFIG, "nulls": "omit"}) as sink:
        await written(sink, [event("a", minutes=15)])
        await written(sink, [event("a", minutes=None, carrier="AA")])
    record = stored(mock)["a"]
    assert (record["Minutes_Late__c"], record["Carrier__c"]) == (15, "AA")


async def test_a_lookup_by_external_id_points_at_the_parent(mock: SalesforceMock, tmp_path: Path) -> None:
    config = {**CONFIG, "fields": {**FIELDS, "Operator__r.ExtId__c": "event.operator"}}
    account = mock.org.create("Account", {"Name": "United", "ExtId__c": "UA"})
    async with opened(mock, tmp_path, config) as sink:
        verdicts = await written(
            sink, [event("a", operator="UA"), event("b", operator="ZZ"), event("c", operator=None)]
        )
    assert kinds(verdicts) == {"Ok": 2, "Dead": 1}
    assert isinstance(verdicts[1], Dead)
    assert "Foreign key external ID: ZZ" in verdicts[1].reason
    assert (stored(mock)["a"]["Operator__c"], stored(mock)["c"]["Operator__c"]) == (account, None)


async def test_records_with_the_same_external_id_go_one_after_the_other(mock: SalesforceMock, tmp_path: Path) -> None:
    events = [
        event("a", offset=0, minutes=1),
        event("b", offset=1, minutes=2),
        event("A", offset=2, minutes=3),  # the field does not tell capitals apart
        event("a ", offset=3, minutes=4),
    ]
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, events[:3])
        assert kinds(verdicts) == {"Ok": 3}
        assert [len(call.body["records"]) for call in writes(mock)] == [2, 1]
        await written(sink, [events[0], events[3]])
    assert [len(call.body["records"]) for call in writes(mock)][2:] == [1, 1]
    assert verdicts[0] == verdicts[2]
    assert mock.org.find_external("Flight__c", "Flight_Key__c", "A")["Minutes_Late__c"] == 4  # type: ignore[index]


@pytest.mark.parametrize("key", [None, "", "  "])
async def test_an_empty_external_id_is_a_dead_letter(mock: SalesforceMock, tmp_path: Path, key: str | None) -> None:
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, [event(key), event("b")])
    assert isinstance(verdicts[0], Dead)
    assert verdicts[0].code == "salesforce.external_id_empty"
    assert isinstance(verdicts[1], Ok)


async def test_an_event_without_a_mapped_field_is_a_dead_letter(mock: SalesforceMock, tmp_path: Path) -> None:
    bare = event("a")
    del bare.value["carrier"]
    async with opened(mock, tmp_path) as sink:
        verdicts = await written(sink, [bare, event("b")])
    assert kinds(verdicts) == {"Dead": 1, "Ok": 1}


async def test_no_request_holds_more_than_max_batch(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path, {**CONFIG, "max_batch": 30}) as sink:
        assert sink.promises == Promises(idempotent=True, max_batch=30)
        assert kinds(await written(sink, flights(100))) == {"Ok": 100}
    assert [len(call.body["records"]) for call in writes(mock)] == [30, 30, 30, 10]


async def test_an_insert_makes_a_record_each_time_and_promises_nothing_else(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    config = {"object": "Lead", "operation": "insert", "fields": {"LastName": "event.key", "Company": "event.carrier"}}
    async with opened(mock, tmp_path, config) as sink:
        assert sink.promises.idempotent is False
        await written(sink, [event("a"), event("a")])
        await written(sink, [event("a")])
    assert len(mock.org.records("Lead")) == 3


async def test_a_correlation_id_that_would_break_a_header_does_not_stop_the_sink(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    hostile = event("a")
    hostile.headers = [("ce_id", b"1"), ("ce_correlationid", b"x\r\nEvil: 1"), ("traceparent", b"a\nb")]
    async with opened(mock, tmp_path) as sink:
        assert kinds(await written(sink, [hostile])) == {"Ok": 1}
    # What can't stand in a header is no correlation id: the event's own id takes its place.
    assert writes(mock)[0].headers["X-Correlation-ID"] == "1"


# --- sessions ---


async def test_an_expired_session_is_refreshed_once_for_all_that_wait(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        mock.expire_sessions()
        results = await asyncio.gather(*(written(sink, flights(5, first=number * 5)) for number in range(8)))
    assert sum((kinds(verdicts) for verdicts in results), Counter()) == {"Ok": 40}
    assert mock.tokens.issued == 2


async def test_a_session_refused_after_the_refresh_stops_the_pipeline(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        mock.fail(2, "denied")
        with pytest.raises(FatalError, match="INVALID_SESSION_ID") as caught:
            await sink.write(Batch(flights(3)))
        assert caught.value.code == "salesforce.session"
        assert kinds(await written(sink, flights(3))) == {"Ok": 3}


async def test_a_wrong_secret_stops_the_start_and_is_not_shown(mock: SalesforceMock, tmp_path: Path) -> None:
    auth = {"type": "client_credentials", "client_id": "trunkline", "client_secret": Secret.of("not-the-secret")}
    with pytest.raises(FatalError, match="invalid client credentials") as caught:
        async with opened(mock, tmp_path, auth=auth):
            pass
    assert "not-the-secret" not in str(caught.value)


def key_pair() -> tuple[str, str]:
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


async def test_a_signed_assertion_gives_a_session_and_another_key_does_not(tmp_path: Path) -> None:
    private, public = key_pair()
    mock = SalesforceMock(MockSettings(public_key=public))
    await mock.start()
    auth = {"type": "jwt_bearer", "client_id": "trunkline", "username": "bus@example.com"}
    try:
        (tmp_path / "key.pem").write_text(private)
        async with opened(mock, tmp_path, auth={**auth, "private_key": f"${{file:{tmp_path / 'key.pem'}}}"}) as sink:
            mock.expire_sessions()
            assert kinds(await written(sink, flights(2))) == {"Ok": 2}
        with pytest.raises(FatalError, match="invalid assertion"):
            async with opened(mock, tmp_path, auth={**auth, "private_key": Secret.of(key_pair()[0])}):
                pass
        with pytest.raises(ConfigurationError, match="no RSA private key"):
            async with opened(mock, tmp_path, auth={**auth, "private_key": Secret.of("-----BEGIN nothing")}):
                pass
    finally:
        await mock.stop()


# --- what is checked at the start ---


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "object": "Fligth__c"}, "did you mean 'Flight__c'"),
        ({**CONFIG, "fields": {**FIELDS, "Carier__c": "event.carrier"}}, "did you mean 'Carrier__c'"),
        ({**CONFIG, "external_id": "Carrier__c"}, "did you mean|known: Flight_Key__c"),
        ({**CONFIG, "correlation_field": "Corelation_Id__c"}, "did you mean 'Correlation_Id__c'"),
    ],
)
async def test_a_mapping_that_does_not_fit_the_object_stops_the_start(
    mock: SalesforceMock, tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        async with opened(mock, tmp_path, config):
            pass


async def test_a_version_that_the_org_lacks_stops_the_start(mock: SalesforceMock, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no REST API 99\.0"):
        async with opened(mock, tmp_path, api_version="99.0"):
            pass


async def test_an_org_that_is_down_at_the_start_may_be_tried_again(mock: SalesforceMock, tmp_path: Path) -> None:
    await mock.stop()
    with pytest.raises(RetriableError):
        async with opened(mock, tmp_path):
            pass


async def test_a_private_address_that_is_not_allowed_is_refused(mock: SalesforceMock, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="allow_private"):
        async with opened(mock, tmp_path, http={}):
            pass


# --- trouble ---


@pytest.mark.parametrize(("kind", "after"), [("unavailable", 1.0), ("throttled", 2.0), ("limit", 60.0)])
async def test_a_busy_org_is_retried_after_the_wait_it_names(
    mock: SalesforceMock, tmp_path: Path, kind: str, after: float
) -> None:
    async with opened(mock, tmp_path) as sink:
        mock.fail(1, kind)
        verdicts = await written(sink, flights(10))
        assert kinds(verdicts) == {"Retry": 10}
        assert {verdict.after for verdict in verdicts if isinstance(verdict, Retry)} == {after}
        assert stored(mock) == {}
        assert kinds(await written(sink, flights(10))) == {"Ok": 10}


async def test_a_locked_row_is_retried_and_its_neighbours_are_delivered(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        mock.fail(1, "lock")
        verdicts = await written(sink, flights(10))
    assert kinds(verdicts) == {"Retry": 1, "Ok": 9}
    assert isinstance(verdicts[0], Retry)
    assert "F0" not in stored(mock)


@pytest.mark.parametrize(("kind", "effects"), [("reset", 0), ("drop", 4), ("garbage", 4), ("short", 4)])
async def test_an_answer_that_is_lost_or_unreadable_leaves_every_record_unknown(
    mock: SalesforceMock, tmp_path: Path, kind: str, effects: int
) -> None:
    async with opened(mock, tmp_path) as sink:
        mock.fail(1, kind)
        assert kinds(await written(sink, flights(4))) == {"Unknown": 4}
        assert len(stored(mock)) == effects
        assert kinds(await written(sink, flights(4))) == {"Ok": 4}
    assert len(stored(mock)) == 4
    assert mock.org.effects["created"] == 4


async def test_a_server_error_after_an_insert_was_sent_is_unknown_and_after_an_upsert_a_retry(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    for config, expected in ((INSERT, Unknown), (CONFIG, Retry)):
        async with opened(mock, tmp_path, config) as sink:
            mock.fail(1, "error")
            assert isinstance((await written(sink, flights(1)))[0], expected)


async def test_an_org_that_is_gone_gives_retries_since_nothing_was_sent(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        await mock.stop()
        # The first request may find the old connection closed under it; from then on none can be made.
        await written(sink, flights(2))
        assert kinds(await written(sink, flights(2))) == {"Retry": 2}


async def test_a_restart_of_the_org_in_between_loses_and_repeats_nothing(tmp_path: Path) -> None:
    settings = MockSettings(state=str(tmp_path / "org.jsonl"), client_secret="kept over the restart")
    first = SalesforceMock(settings)
    await first.start()
    async with opened(first, tmp_path) as sink:
        await written(sink, flights(20))
        await first.stop()
        second = SalesforceMock(settings)
        await second.start(port=first.port)
        try:
            pending = dict(enumerate(flights(30)))
            for _ in range(3):
                verdicts = await written(sink, list(pending.values()))
                settled = [number for number, verdict in zip(pending, verdicts, strict=True) if isinstance(verdict, Ok)]
                for number in settled:
                    del pending[number]
                if not pending:
                    break
        finally:
            await second.stop()
    assert pending == {}
    assert set(stored(second)) == {f"F{number}" for number in range(30)}
    assert second.org.effects["created"] == 10


async def test_a_field_that_vanishes_while_running_stops_the_pipeline(mock: SalesforceMock, tmp_path: Path) -> None:
    async with opened(mock, tmp_path) as sink:
        spec = mock.org.objects["Flight__c"]
        left = {name: field for name, field in spec.fields.items() if name != "Carrier__c"}
        mock.org.objects["Flight__c"] = spec.model_copy(update={"fields": left})
        with pytest.raises(FatalError, match="No such column 'Carrier__c'"):
            await sink.write(Batch(flights(5)))
    assert stored(mock) == {}


# --- the daily limit ---


async def test_above_its_share_of_the_daily_limit_the_sink_holds_back_before_it_sends(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    async with opened(mock, tmp_path, {**CONFIG, "limit_pause": 3600}) as sink:
        mock.api_used = 14_300
        assert kinds(await written(sink, flights(2))) == {"Ok": 2}  # this answer tells the usage
        sent = len(mock.calls)
        verdicts = await written(sink, flights(2))
        assert kinds(verdicts) == {"Retry": 2}
        assert all(isinstance(verdict, Retry) and 0 < (verdict.after or 0) <= 3600 for verdict in verdicts)
        assert len(mock.calls) == sent


async def test_after_the_pause_one_request_asks_whether_the_limit_has_room_again(
    mock: SalesforceMock, tmp_path: Path
) -> None:
    async with opened(mock, tmp_path, {**CONFIG, "limit_pause": 0}) as sink:
        mock.api_used = 14_300
        await written(sink, flights(2))
        assert kinds(await written(sink, flights(2))) == {"Retry": 2}
        assert mock.calls[-1].segments == ("limits",)
        mock.api_used = 10
        assert kinds(await written(sink, flights(2))) == {"Ok": 2}
