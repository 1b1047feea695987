"""The `http_poll` source against a real API that pages, filters and fails in all the ways that APIs do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from aiohttp import web
from http_counterpart import LOOPBACK, Counterpart, serving

from connectors.http_poll.settings import HttpPollConnection, HttpPollSettings
from connectors.http_poll.source import HttpPollSource
from trunkline.core.contracts import PluginContext, Position, RejectedInput, SourceEvent
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import HttpOptions
from trunkline.core.plugins import load_plugin
from trunkline.core.secretstores import register_store
from trunkline.core.testing.stores import MemoryStore

CONTEXT = PluginContext("test", "from-http", Path(), structlog.get_logger())
register_store("polltest", MemoryStore({"key": "api-key-of-test"}))


class Api:
    """An API with a list of items that knows every kind of paging, and `since` (at or after)."""

    def __init__(self, items: list[Any], size: int = 3) -> None:
        self.items = items
        self.size = size
        self.etag: str | None = None

    async def __call__(self, request: web.Request) -> web.Response:
        query = request.query
        found = self.items
        if "since" in query:
            found = [item for item in found if str(item.get("at", "9")) >= query["since"]]
        if self.etag is not None and request.headers.get("If-None-Match") == self.etag:
            return web.Response(status=304, headers={"ETag": self.etag})
        headers = {} if self.etag is None else {"ETag": self.etag}
        kind = request.path.strip("/")
        if kind == "none":
            return web.json_response({"data": {"list": found}}, headers=headers)
        if kind == "array":
            return web.json_response(found, headers=headers)
        if kind == "jsonl":
            return web.Response(
                body=b"\n".join(item if isinstance(item, bytes) else orjson.dumps(item) for item in found)
            )
        start = {
            "page": (int(query.get("page", 1)) - 1) * self.size,
            "unsized": (int(query.get("page", 1)) - 1) * self.size,
            "offset": int(query.get("offset", 0)),
            "cursor": int(query.get("cursor", 0)),
            "link": int(query.get("at_item", 0)),
        }[kind]
        page = found[start : start + self.size]
        following = start + self.size
        answer: dict[str, Any] = {"data": {"list": page}}
        if following < len(found):
            answer["next"] = str(following)
            again = request.rel_url.update_query(at_item=following)
            headers["Link"] = f'<{request.path}>; rel="first", <{again}>; title="a, b"; rel="last next"'
        return web.json_response(answer, headers=headers)


PAGING = {
    "none": {"type": "none"},
    "page": {"type": "page", "size": 3, "size_param": "per_page"},
    "unsized": {"type": "page"},
    "offset": {"type": "offset", "size": 3},
    "cursor": {"type": "cursor", "next": "next"},
    "link": {"type": "link"},
}


def make(server: Counterpart, kind: str, **settings: Any) -> HttpPollSource:
    more = {"items": "data.list", "id": "id"} if kind in PAGING else {"id": "id"}
    config = {"path": f"/{kind}", "pagination": PAGING.get(kind, PAGING["none"])} | more | settings
    return HttpPollSource(HttpPollSettings(**config), HttpPollConnection(base_url=server.url, http=LOOPBACK))


@asynccontextmanager
async def opened(source: HttpPollSource) -> AsyncIterator[HttpPollSource]:
    try:
        await source.open(CONTEXT)
        yield source
    finally:
        await source.close()


def kept(position: Position | None) -> Position | None:
    """A position as the engine keeps it: as JSON."""
    return None if position is None else json.loads(json.dumps(position))


async def sweep(
    source: HttpPollSource, position: Position | None
) -> tuple[list[SourceEvent], list[RejectedInput], Position | None]:
    """Polls to the end of the pages."""
    events: list[SourceEvent] = []
    rejected: list[RejectedInput] = []
    for _ in range(50):
        batch = await source.poll("0", position)
        events += batch.events
        rejected += batch.rejected
        position = kept(batch.position) if batch.position is not None else position
        if batch.pause > 0:
            return events, rejected, position
    raise AssertionError("the sweep has no end")


def ids(events: list[SourceEvent]) -> list[Any]:
    return [event.value["id"] for event in events]


def rows(*numbers: int, at: str | None = None) -> list[dict[str, Any]]:
    return [{"id": number, "at": at or f"2024-01-01T00:00:{number:02}Z"} for number in numbers]


def test_the_source_is_found_by_its_entry_point() -> None:
    assert load_plugin("source", "http_poll") is HttpPollSource


@pytest.mark.parametrize("kind", PAGING)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 6, 7])
async def test_every_kind_of_paging_gives_every_item_once(kind: str, count: int) -> None:
    async with serving(Api(rows(*range(count)))) as server, opened(make(server, kind)) as source:
        events, rejected, _ = await sweep(source, None)
    assert ids(events) == list(range(count))
    assert rejected == []
    assert all("X-Correlation-ID" in seen.headers for seen in server.requests)
    assert len({seen.headers["X-Correlation-ID"] for seen in server.requests}) == len(server.requests)


@pytest.mark.parametrize("kind", PAGING)
@pytest.mark.parametrize("incremental", [True, False])
async def test_a_crash_at_any_position_neither_loses_nor_repeats(kind: str, incremental: bool) -> None:
    settings: dict[str, Any] = {"incremental": {"field": "at"}} if incremental else {"emit": "changed"}
    api = Api([*rows(0, 1, 2), *rows(3, 4, 5, at="2024-01-01T00:00:05Z"), *rows(6, 7)])
    async with serving(api) as server:
        for crash_after in range(6):
            position: Position | None = None
            found: list[Any] = []
            polls = 0
            for _ in range(3):  # three sweeps, each process dying after so many polls
                done = False
                while not done:
                    async with opened(make(server, kind, **settings)) as source:
                        for _ in range(crash_after + 1):
                            batch = await source.poll("0", kept(position))
                            polls += 1
                            if crash_after % 2 and polls % 3 == 0:
                                break  # the transaction failed: neither events nor position count
                            found += ids(list(batch.events))
                            position = kept(batch.position) if batch.position is not None else position
                            done = batch.pause > 0
                            if done:
                                break
            assert found == list(range(8)), (crash_after, kind)


@pytest.mark.parametrize("kind", [kind for kind in PAGING if kind != "none"])
@pytest.mark.parametrize("growth", [1, 2, 4])
@pytest.mark.parametrize("equal", [True, False])
async def test_what_comes_onto_pages_that_were_read_is_not_lost(kind: str, growth: int, equal: bool) -> None:
    def more(first: int, count: int) -> list[dict[str, Any]]:
        return rows(*range(first, first + count), at="2024-01-01T00:00:30Z" if equal else None)

    for begun in range(7):
        api = Api(more(0, begun))
        found: list[Any] = []
        position: Position | None = None
        async with serving(api) as server, opened(make(server, kind, incremental={"field": "at"})) as source:
            for number in range(60):
                batch = await source.poll("0", position)
                found += ids(list(batch.events))
                position = kept(batch.position)
                if number < 9:
                    api.items += more(len(api.items), growth)
        assert found == list(range(begun + 9 * growth)), (kind, begun)


async def test_only_new_items_come_and_equal_timestamps_at_the_boundary_are_not_lost_or_repeated() -> None:
    moment = "2024-01-01T00:00:09Z"
    api = Api(rows(1, 2))
    async with serving(api) as server, opened(make(server, "none", incremental={"field": "at"})) as source:
        events, _, position = await sweep(source, None)
        assert ids(events) == [1, 2]
        assert "since" not in server.requests[0].query
        for new in ([3], [4, 5], [], [6]):  # all of one moment, arriving poll by poll
            api.items += rows(*new, at=moment)
            events, _, position = await sweep(source, position)
            assert ids(events) == new
        api.items += rows(10)
        events, _, position = await sweep(source, position)
        assert ids(events) == [10]
        assert (await sweep(source, position))[0] == []
    assert server.requests[1].query["since"] == "2024-01-01T00:00:02Z"
    assert server.requests[-1].query["since"] == "2024-01-01T00:00:10Z"


async def test_a_changed_item_is_another_event_and_a_repeated_one_keeps_its_id() -> None:
    api = Api(rows(1))
    async with serving(api) as server, opened(make(server, "none", incremental={"field": "at"})) as source:
        first, _, position = await sweep(source, None)
        again, _, _ = await sweep(source, None)
        api.items = [{"id": 1, "at": "2024-01-01T00:00:30Z"}]
        changed, _, _ = await sweep(source, position)
    assert first[0].id == again[0].id == "1@2024-01-01T00:00:01Z"
    assert changed[0].id == "1@2024-01-01T00:00:30Z"


async def test_an_api_that_ignores_the_cursor_makes_no_repeated_events() -> None:
    api = Api(rows(1, 2, 3))
    settings = {"incremental": {"field": "at", "param": "unknown_parameter"}}
    async with serving(api) as server, opened(make(server, "page", **settings)) as source:
        _, _, position = await sweep(source, None)
        api.items += rows(4)
        events, _, _ = await sweep(source, position)
    assert ids(events) == [4]


@pytest.mark.parametrize(
    ("order", "values", "last"),
    [
        ("auto", [9, 10, 2], 10),
        ("number", ["9", "10", "2"], "10"),
        ("auto", ["2024-01-01T00:00:00Z", "2024-01-01T00:00:00.5Z"], "2024-01-01T00:00:00.5Z"),
        ("auto", ["2024-01-01T01:00:00+02:00", "2024-01-01T00:00:00Z"], "2024-01-01T00:00:00Z"),
        ("text", ["9", "10"], "9"),
        ("auto", ["aa", "b"], "b"),
    ],
)
async def test_cursor_values_are_compared_by_what_they_are(order: str, values: list[Any], last: Any) -> None:
    api = Api([{"id": number, "n": value} for number, value in enumerate(values)])
    settings = {"incremental": {"field": "n", "order": order}}
    async with serving(api) as server, opened(make(server, "array", **settings)) as source:
        events, _, position = await sweep(source, None)
        assert len(events) == len(values)
        assert position is not None
        assert position["cursor"] == last


async def test_the_first_poll_starts_at_the_initial_value_and_templates_can_use_the_cursor() -> None:
    settings = {
        "incremental": {"field": "at", "param": None, "initial": "2024-01-01T00:00:02Z"},
        "params": {"filter": "at ge {{ cursor }}", "fixed": "yes"},
    }
    async with serving(Api(rows(2, 3))) as server, opened(make(server, "none", **settings)) as source:
        _, _, position = await sweep(source, None)
        await sweep(source, position)
    assert server.requests[0].query == {"filter": "at ge 2024-01-01T00:00:02Z", "fixed": "yes"}
    assert server.requests[1].query["filter"] == "at ge 2024-01-01T00:00:03Z"


async def test_a_post_carries_its_body() -> None:
    settings = {
        "method": "POST",
        "body": '{"after": {{ cursor | tojson }}}',
        "incremental": {"field": "at", "param": None},
    }
    async with serving(Api(rows(1))) as server, opened(make(server, "none", **settings)) as source:
        _, _, position = await sweep(source, None)
        await sweep(source, position)
    assert [json.loads(seen.body) for seen in server.requests] == [{"after": None}, {"after": "2024-01-01T00:00:01Z"}]
    assert {seen.method for seen in server.requests} == {"POST"}


async def test_an_unchanged_answer_makes_no_events_and_keeps_the_position() -> None:
    api = Api(rows(1, 2))
    api.etag = '"one"'
    async with serving(api) as server, opened(make(server, "none", interval=7)) as source:
        events, _, position = await sweep(source, None)
        assert ids(events) == [1, 2]
        batch = await source.poll("0", position)
        assert (batch.events, batch.position, batch.pause) == ((), None, 7.0)
        api.etag, api.items = '"two"', rows(1, 2, 3)
        events, _, _ = await sweep(source, position)
        assert ids(events) == [1, 2, 3]
    assert server.requests[1].headers["If-None-Match"] == '"one"'


async def test_last_modified_is_sent_back() -> None:
    stamp = "Mon, 01 Jan 2024 00:00:00 GMT"

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("If-Modified-Since") == stamp:
            return web.Response(status=304)
        return web.json_response(rows(1), headers={"Last-Modified": stamp})

    async with serving(answer) as server, opened(make(server, "array")) as source:
        events, _, position = await sweep(source, None)
        assert ids(events) == [1]
        assert (await source.poll("0", position)).position is None


async def test_an_etag_of_another_question_is_not_sent() -> None:
    api = Api(rows(1))
    api.etag = '"same for all"'  # a server whose ETag ignores the query: a 304 would hide item 2
    async with serving(api) as server, opened(make(server, "none", incremental={"field": "at"})) as source:
        _, _, position = await sweep(source, None)
        api.items += rows(2)
        events, _, position = await sweep(source, position)
        assert ids(events) == [2]
    assert all("If-None-Match" not in seen.headers for seen in server.requests)


async def test_changed_items_alone_are_published_where_that_is_wanted() -> None:
    api = Api([{"id": 1, "v": "a"}, {"id": 2, "v": "a"}])
    async with serving(api) as server, opened(make(server, "page", emit="changed")) as source:
        events, _, position = await sweep(source, None)
        assert ids(events) == [1, 2]
        api.items = [{"v": "a", "id": 1}, {"id": 2, "v": "b"}, {"id": 3, "v": "a"}]
        events, _, position = await sweep(source, position)
        assert ids(events) == [2, 3]
        assert (await sweep(source, position))[0] == []


async def test_json_lines_are_read_and_a_bad_line_is_kept_raw() -> None:
    items = [{"id": 1}, b'{"id": 2', {"id": 3}, b"", b"[1]"]
    async with serving(Api(items)) as server, opened(make(server, "jsonl", format="jsonl")) as source:
        events, rejected, position = await sweep(source, None)
        assert ids(events) == [1, 3]
        assert [item.raw for item in rejected] == [b'{"id": 2', b"[1]"]
        assert "page 1, item 2" in rejected[0].place
        _, again, _ = await sweep(source, position)
    assert again == []


async def test_items_that_cannot_become_events_are_kept_raw_with_the_reason_once() -> None:
    good = {"id": 1, "at": "2024-01-01T00:00:01Z", "t": 1704067200, "k": {"x": 5}}
    bad = [3, "text", None, [], good | {"id": None}, good | {"id": {}}, good | {"t": "noon"}, good | {"t": 1e300},
           good | {"k": 1}, good | {"at": None}, good | {"at": 5}]  # fmt: skip
    settings = {"incremental": {"field": "at"}, "time": "t", "key": "k.x"}

    async def answer(_: web.Request) -> web.Response:
        return web.json_response([good, *bad])

    async with serving(answer) as server, opened(make(server, "array", **settings)) as source:
        events, rejected, position = await sweep(source, None)
        assert ids(events) == [1]
        assert [json.loads(item.raw) for item in rejected] == bad
        assert all(item.reason for item in rejected)
        events, rejected, _ = await sweep(source, position)
    assert (events, rejected) == ([], [])


async def test_events_carry_what_the_settings_name() -> None:
    item = {"id": "a", "meta": {"when": 1704067200123, "req": "corr-9"}, "customer": {"id": 7}}
    settings = {"time": "meta.when", "correlation": "meta.req", "key": "customer.id", "event_type": "order.changed"}
    async with serving(Api([item])) as server, opened(make(server, "array", **settings)) as source:
        ((event,), _, _) = await sweep(source, None)
    assert event.value == item
    assert (event.id, event.key, event.type, event.correlation_id) == ("a", "7", "order.changed", "corr-9")
    assert event.time == datetime(2024, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)
    assert json.loads(event.raw or b"") == item


def failing(status: int, **headers: str) -> Callable[[web.Request], Any]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text="told why")

    return answer


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422])
async def test_a_refusal_is_fatal_and_says_why(status: int) -> None:
    async with serving(failing(status)) as server, opened(make(server, "none")) as source:
        with pytest.raises(FatalError, match=f"answered {status} .*told why"):
            await source.poll("0", None)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
async def test_a_passing_trouble_is_retriable_after_what_the_server_says(status: int) -> None:
    async with serving(failing(status, **{"Retry-After": "11"})) as server, opened(make(server, "none")) as source:
        with pytest.raises(RetriableError) as caught:
            await source.poll("0", None)
    assert caught.value.after == 11.0


@pytest.mark.parametrize("body", ["<html>", '{"data": {}}', '{"data": {"list": {}}}', "3", '{"error": "x"}', "[{]"])
async def test_an_answer_without_the_list_is_an_error_and_no_data(body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body)

    async with serving(answer) as server, opened(make(server, "none")) as source:
        with pytest.raises(RetriableError):
            await source.poll("0", None)


async def test_an_answer_over_the_limit_says_what_to_do() -> None:
    async with serving(Api(rows(*range(60)))) as server:
        connection = HttpPollConnection(
            base_url=server.url, http=HttpOptions(allow_private=["127.0.0.1"], max_response=500)
        )
        async with opened(HttpPollSource(HttpPollSettings(path="/array"), connection)) as source:
            with pytest.raises(RetriableError, match=r"more than 500 bytes .*raise http\.max_response"):
                await source.poll("0", None)


async def test_a_server_that_names_the_same_page_for_ever_is_noticed() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"data": {"list": rows(1)}, "next": "same"})

    async with serving(answer) as server, opened(make(server, "cursor")) as source:
        with pytest.raises(RetriableError, match="the same page again"):
            await sweep(source, None)


async def test_a_link_to_another_origin_is_not_followed() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"data": {"list": []}}, headers={"Link": '<http://169.254.169.254/>; rel="next"'})

    async with serving(answer) as server, opened(make(server, "link")) as source:
        with pytest.raises(FatalError, match="another origin"):
            await sweep(source, None)


async def test_a_key_in_the_query_is_sent_with_every_page_and_kept_in_no_position() -> None:
    async with serving(Api(rows(*range(7)))) as server:
        connection = HttpPollConnection(
            base_url=server.url,
            http=LOOPBACK,
            auth={"type": "api_key", "name": "key", "value": "${polltest:key}", "place": "query"},
        )
        settings = HttpPollSettings(path="/link", items="data.list", pagination={"type": "link"})
        async with opened(HttpPollSource(settings, connection)) as source:
            batch = await source.poll("0", None)
            assert "api-key-of-test" not in json.dumps(batch.position)
            events, _, _ = await sweep(source, kept(batch.position))
    assert ids(events) == [3, 4, 5, 6]
    assert [seen.query["key"] for seen in server.requests] == ["api-key-of-test"] * 3


async def test_the_rate_spaces_requests() -> None:
    async with serving(Api(rows(*range(7)))) as server, opened(make(server, "offset", rate=1000)) as source:
        begun = asyncio.get_running_loop().time()
        await sweep(source, None)
        assert len(server.requests) == 3
        assert source._free_at >= begun + 3 / 1000


async def test_a_position_of_a_newer_version_is_refused() -> None:
    async with serving(Api([])) as server, opened(make(server, "none")) as source:
        with pytest.raises(FatalError, match="newer version"):
            await source.poll("0", {"v": 99})
    assert server.requests == []


async def test_more_equal_values_than_a_position_can_hold_stop_the_source() -> None:
    api = Api(rows(*range(10_001), at="2024-01-01T00:00:00Z"))
    async with serving(api) as server, opened(make(server, "none", incremental={"field": "at"})) as source:
        with pytest.raises(FatalError, match="finer"):
            await source.poll("0", None)


@pytest.mark.parametrize(
    "settings",
    [
        {"params": {"a": "{{ cursor }}"}},
        {"params": {"a": "{{ event.x }}"}},
        {"incremental": {"field": "at", "param": None}},
        {"headers": {"A": "b\r\nc"}},
        {"body": "{", "method": "GET"},
        {"format": "jsonl", "items": "x"},
        {"emit": "changed", "incremental": {"field": "at"}},
    ],
)
def test_settings_that_can_not_work_are_refused_before_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises((ConfigurationError, ValueError)):
        HttpPollSource(HttpPollSettings(path="/x", **settings), HttpPollConnection(base_url="http://a.example"))
