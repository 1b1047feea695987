"""The `http` sink against real servers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from aiohttp import web
from http_counterpart import LOOPBACK, Counterpart, raw_serving, read_request, serving
from standardwebhooks import Webhook

from sinks.http.settings import HttpSinkConnection, HttpSinkSettings
from sinks.http.sink import HttpSink
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.event import Event
from trunkline.core.http import HttpOptions
from trunkline.core.plugins import load_plugin
from trunkline.core.secretstores import register_store
from trunkline.core.testing.stores import MemoryStore
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

pytestmark = pytest.mark.usefixtures("both_ways_out")

CONTEXT = PluginContext("test", "to-http", Path(), structlog.get_logger())
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER_SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
register_store("sinktest", MemoryStore({"one": SECRET, "two": OTHER_SECRET, "token": "token-of-test"}))

VALUE = {
    "id": "o/1 ?#",
    "at": datetime(2013, 1, 2, 3, 4, 5, tzinfo=UTC),
    "day": date(2013, 1, 2),
    "price": Decimal("12.50"),
    "blob": b"\x00\xff",
    "uid": UUID("12345678-1234-5678-1234-567812345678"),
    "quote": 'a"b\\c\n',
    "none": None,
    "nested": {"list": [1, True]},
}


def event(value: Any = VALUE, **more: Any) -> Event:
    envelope = Envelope("e-1", "/test", "order", correlation_id="corr-1", traceparent=TRACE)
    made = Event(dict(value) if isinstance(value, dict) else value, headers=envelope_to_headers(envelope), **more)
    made.idempotency_key = "idem-1"
    return made


@asynccontextmanager
async def opened(
    server: Counterpart, connection: dict[str, Any] | None = None, **settings: Any
) -> AsyncIterator[HttpSink]:
    base = {"base_url": server.url, "http": LOOPBACK} | (connection or {})
    sink = HttpSink(HttpSinkSettings(**{"url": "/in"} | settings), HttpSinkConnection(**base))
    try:
        await sink.open(CONTEXT)
        yield sink
    finally:
        await sink.close()


async def verdict_of(sink: HttpSink, what: Event) -> Verdict:
    (verdict,) = await sink.write(Batch([what]))
    return verdict


async def accepted(_: web.Request) -> web.Response:
    return web.json_response({"data": {"id": 7}}, status=201, headers={"Location": "/orders/7"})


async def test_a_reference_of_broken_text_can_be_written_into_the_trace() -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 201 Made\r\nLocation: /a\xff\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with raw_serving(broken) as server, opened(server) as sink:
        verdict = await verdict_of(sink, event())
    assert isinstance(verdict, Ok)
    assert (verdict.reference or "").encode().startswith(b"/a")


def test_the_sink_is_found_by_its_entry_point() -> None:
    assert load_plugin("sink", "http") is HttpSink


async def test_the_whole_value_goes_as_json_with_its_envelope_in_headers() -> None:
    async with serving(accepted) as server, opened(server) as sink:
        assert await verdict_of(sink, event()) == Ok("/orders/7")
    seen = server.requests[0]
    assert (seen.method, seen.path) == ("POST", "/in")
    assert seen.headers["Content-Type"] == "application/json"
    assert seen.headers["X-Correlation-ID"] == "corr-1"
    assert seen.headers["traceparent"] == TRACE
    assert seen.headers["Idempotency-Key"] == "idem-1"
    assert json.loads(seen.body) == {
        "id": "o/1 ?#",
        "at": "2013-01-02T03:04:05Z",
        "day": "2013-01-02",
        "price": "12.50",
        "blob": "AP8=",
        "uid": "12345678-1234-5678-1234-567812345678",
        "quote": 'a"b\\c\n',
        "none": None,
        "nested": {"list": [1, True]},
    }


async def test_url_and_headers_are_templates_and_values_cannot_leave_their_place() -> None:
    async with (
        serving(accepted) as server,
        opened(
            server, url="/orders/{{ event.id }}?at={{ event.at }}", headers={"X-Key": "{{ key }}/{{ meta.type }}"}
        ) as sink,
    ):
        assert isinstance(await verdict_of(sink, event(raw_key=b"k1")), Ok)
    seen = server.requests[0]
    assert seen.path == "/orders/o/1 ?#"
    assert seen.query == {"at": "2013-01-02T03:04:05Z"}
    assert seen.headers["X-Key"] == "k1/order"


@pytest.mark.parametrize("value", ["..", ".", "", None])
async def test_a_value_that_would_name_another_address_is_a_dead_letter(value: Any) -> None:
    async with serving(accepted) as server, opened(server, method="DELETE", url="/orders/{{ event.id }}") as sink:
        assert isinstance(await verdict_of(sink, event({"id": value})), Dead)
    assert server.requests == []


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "\0", "\ud800"])
async def test_a_value_that_breaks_a_header_is_a_dead_letter(value: str) -> None:
    async with serving(accepted) as server, opened(server, headers={"X-Name": "{{ event.name }}"}) as sink:
        assert isinstance(await verdict_of(sink, event({"name": value})), Dead)
        assert isinstance(await verdict_of(sink, event({"name": "good"})), Ok)
    assert [seen.headers["X-Name"] for seen in server.requests] == ["good"]


async def test_a_json_template_escapes_what_it_is_given() -> None:
    body = {"template": '{"q": "<{{ event.quote }}>", "n": {{ event.nested | tojson }}, "at": "{{ event.at }}"}'}
    async with serving(accepted) as server, opened(server, body=body) as sink:
        assert isinstance(await verdict_of(sink, event()), Ok)
    assert json.loads(server.requests[0].body) == {
        "q": '<a"b\\c\n>',
        "n": {"list": [1, True]},
        "at": "2013-01-02T03:04:05Z",
    }


async def test_a_json_template_that_gives_no_json_is_a_dead_letter() -> None:
    async with serving(accepted) as server, opened(server, body={"template": '{"a": {{ event.none }} }'}) as sink:
        verdict = await verdict_of(sink, event())
    assert isinstance(verdict, Dead)
    assert verdict.code == "template.not_json"
    assert server.requests == []


@pytest.mark.parametrize(
    ("field", "value", "body", "content_type"),
    [
        ("doc.xml", {"doc": {"xml": "<a>ü</a>"}}, "<a>ü</a>".encode(), "text/plain; charset=utf-8"),
        ("raw", {"raw": b"\x00\x01"}, b"\x00\x01", "application/octet-stream"),
    ],
)
async def test_a_field_can_be_the_body(field: str, value: Any, body: bytes, content_type: str) -> None:
    async with serving(accepted) as server, opened(server, body={"field": field}) as sink:
        assert isinstance(await verdict_of(sink, event(value)), Ok)
        assert isinstance(await verdict_of(sink, event({"doc": 1})), Dead)
    assert (server.requests[0].body, server.requests[0].headers["Content-Type"]) == (body, content_type)
    assert len(server.requests) == 1


async def test_a_tombstone_has_no_body_and_is_a_dead_letter_where_one_is_needed() -> None:
    async with serving(accepted) as server:
        async with opened(server, method="DELETE", url="/x/{{ key }}") as sink:
            assert isinstance(await verdict_of(sink, event(None, raw_key=b"9")), Ok)
        async with opened(server) as sink:
            assert isinstance(await verdict_of(sink, event(None)), Dead)
    assert [(seen.path, seen.body) for seen in server.requests] == [("/x/9", b"")]


def outcome(verdict: Verdict) -> str:
    if isinstance(verdict, Dead) and verdict.access:
        return "dead access"
    return type(verdict).__name__.lower()


CLASSES = {
    200: "ok", 201: "ok", 202: "ok", 204: "ok", 302: "dead access", 304: "dead", 400: "dead", 403: "dead access",
    404: "dead access", 405: "dead access", 408: "retry", 409: "dead", 410: "dead access", 413: "dead", 415: "dead",
    422: "dead", 423: "retry", 425: "retry", 429: "retry", 500: "retry", 501: "retry", 502: "retry", 503: "retry",
    504: "retry", 599: "retry",
}  # fmt: skip


async def by_path(request: web.Request) -> web.Response:
    headers = {"Retry-After": "7"} if request.path in ("/429", "/503") else {}
    return web.Response(status=int(request.path[1:]), headers=headers)


@pytest.mark.parametrize(("status", "expected"), CLASSES.items())
async def test_each_status_has_its_verdict(status: int, expected: str) -> None:
    async with serving(by_path) as server, opened(server, url=f"/{status}") as sink:
        verdict = await verdict_of(sink, event())
    assert outcome(verdict) == expected
    if status in (429, 503):
        assert isinstance(verdict, Retry)
        assert verdict.after == 7.0


async def test_a_401_stops_the_pipeline() -> None:
    async with serving(by_path) as server, opened(server, url="/401") as sink:
        with pytest.raises(FatalError, match="answered 401"):
            await verdict_of(sink, event())


async def test_statuses_can_be_judged_otherwise_and_a_number_beats_its_class() -> None:
    rules = {"success": ["2xx", 409], "retry": ["4xx"], "dead": [404, 501]}
    expected = {200: "ok", 409: "ok", 401: "retry", 404: "dead", 418: "retry", 501: "dead", 503: "retry"}
    async with serving(by_path) as server:
        for status, what in expected.items():
            async with opened(server, url=f"/{status}", **rules) as sink:
                assert outcome(await verdict_of(sink, event())) == what, status
        async with opened(server, url="/202", success=[200]) as sink:
            assert outcome(await verdict_of(sink, event())) == "dead"


async def test_a_status_in_two_lists_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="409 is in both success and dead"):
        HttpSink(HttpSinkSettings(url="http://a.example/", success=[409], dead=[409]), HttpSinkConnection())


async def test_what_was_not_sent_is_retried_and_what_got_no_answer_is_unknown() -> None:
    async def drop(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await read_request(reader)

    async with raw_serving(drop) as server, opened(server) as sink:
        assert isinstance(await verdict_of(sink, event()), Unknown)
    async with opened(server) as sink:
        assert isinstance(await verdict_of(sink, event()), Retry)


async def test_an_oversized_answer_is_judged_by_its_status() -> None:
    async def long(_: web.Request) -> web.Response:
        return web.Response(status=201, body=b"x" * 5000)

    options = HttpOptions(allow_private=["127.0.0.1"], max_response=100)
    async with serving(long) as server, opened(server, {"http": options}) as sink:
        assert isinstance(await verdict_of(sink, event()), Ok)


async def test_an_address_that_no_record_decides_on_stops_the_pipeline_and_one_that_a_record_names_is_its_own_fault() -> (
    None
):
    connection = HttpSinkConnection()
    fixed = HttpSink(HttpSinkSettings(url="http://127.0.0.1:9/"), connection)
    varying = HttpSink(HttpSinkSettings(url="{{ event.url | verbatim }}"), connection)
    for sink in (fixed, varying):
        await sink.open(CONTEXT)
    with pytest.raises(FatalError, match="loopback"):
        await verdict_of(fixed, event())
    verdict = await verdict_of(varying, event({"url": "http://169.254.169.254/latest/meta-data"}))
    assert isinstance(verdict, Dead)
    assert "cloud metadata" in verdict.reason
    for sink in (fixed, varying):
        await sink.close()


def test_credentials_never_go_where_a_record_says() -> None:
    auth = {"type": "bearer", "token": "${sinktest:token}"}
    with pytest.raises(ConfigurationError, match="wherever a record says"):
        HttpSink(HttpSinkSettings(url="{{ event.url | verbatim }}"), HttpSinkConnection(auth=auth))
    HttpSink(HttpSinkSettings(url="https://a.example/{{ event.id }}"), HttpSinkConnection(auth=auth))


@pytest.mark.parametrize("secrets", [["one"], ["two", "one"]])
async def test_signatures_satisfy_the_standard_webhooks_library(secrets: list[str]) -> None:
    signing = {"secrets": [f"${{sinktest:{name}}}" for name in secrets]}
    async with serving(accepted) as server, opened(server, signing=signing) as sink:
        assert isinstance(await verdict_of(sink, event()), Ok)
    seen = server.requests[0]
    verified: Any = Webhook(SECRET).verify(seen.body, {name.lower(): value for name, value in seen.headers.items()})
    assert verified["price"] == "12.50"
    assert seen.headers["webhook-id"] == "idem-1"


async def test_a_signing_secret_that_is_none_is_refused_at_open() -> None:
    sink = HttpSink(
        HttpSinkSettings(url="http://a.example/", signing={"secrets": ["${sinktest:token}"]}), HttpSinkConnection()
    )
    with pytest.raises(ConfigurationError, match="is not base64 of 24 to 64 bytes") as caught:
        await sink.open(CONTEXT)
    assert "token-of-test" not in str(caught.value)
    await sink.close()


@pytest.mark.parametrize(
    ("settings", "idempotent"),
    [
        ({}, False),
        ({"method": "PUT"}, True),
        ({"method": "DELETE"}, True),
        ({"idempotent": True}, True),
        ({"method": "PUT", "idempotent": False}, False),
    ],
)
def test_what_the_sink_promises_follows_from_its_settings(settings: dict[str, Any], idempotent: bool) -> None:
    sink = HttpSink(HttpSinkSettings(url="http://a.example/", **settings), HttpSinkConnection())
    assert sink.promises.idempotent is idempotent
    assert HttpSink.promises.idempotent is False


@pytest.mark.parametrize(("status", "error"), [(401, FatalError), (404, FatalError), (503, RetriableError)])
async def test_a_failing_probe_stops_the_start(status: int, error: type[Exception]) -> None:
    async with serving(by_path) as server:
        with pytest.raises(error):
            async with opened(server, probe=f"/{status}"):
                pass
        async with opened(server, probe="/204"):
            pass


async def test_the_reference_is_taken_from_the_answer() -> None:
    async with serving(accepted) as server:
        async with opened(server, reference="data.id") as sink:
            assert await verdict_of(sink, event()) == Ok("7")
        async with opened(server, reference="no.such") as sink:
            assert await verdict_of(sink, event()) == Ok(None)


async def test_a_field_that_an_event_lacks_is_that_events_dead_letter() -> None:
    async with serving(accepted) as server, opened(server, url="/{{ event.nope }}") as sink:
        verdict = await verdict_of(sink, event())
    assert isinstance(verdict, Dead)
    assert "nope" in verdict.reason


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "relative"},
        {"url": "http://a.example/{{ event.x"},
        {"url": "http://a.example/{{ evnt.x }}"},
        {"url": "http://a.example/", "headers": {"X Y": "1"}},
        {"url": "http://a.example/", "headers": {"X": "a\r\nb"}},
        {"url": "http://a.example/", "idempotency_header": "a b"},
        {"url": "http://user:pw@a.example/"},
        {"url": "http://a.example/", "body": {"template": "{% include 'x' %}"}},
    ],
)
def test_settings_that_can_not_work_are_refused_before_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        HttpSink(HttpSinkSettings(**settings), HttpSinkConnection())


async def test_sixty_four_deliveries_are_under_way_at_once() -> None:
    together = asyncio.Barrier(64)

    async def meet(_: web.Request) -> web.Response:
        await together.wait()
        return web.Response()

    async with serving(meet) as server, opened(server) as sink:
        verdicts = await asyncio.gather(*(verdict_of(sink, event()) for _ in range(256)))
    assert all(isinstance(verdict, Ok) for verdict in verdicts)
