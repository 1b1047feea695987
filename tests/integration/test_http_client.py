"""The HTTP client against real servers, well-behaved and hostile ones."""

from __future__ import annotations

import asyncio
import gzip
import struct
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web
from hostile_requests import CRLF
from http_counterpart import LOOPBACK, raw_serving, read_request, serving

from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import (
    AddressRefusedError,
    AnswerTooLargeError,
    ApiKeyAuth,
    BasicAuth,
    BearerAuth,
    HttpClient,
    HttpOptions,
    NoAnswerError,
    NotSentError,
    OAuth2Auth,
)
from trunkline.core.secret import Secret

pytestmark = pytest.mark.usefixtures("both_ways_out")


async def echo(request: web.Request) -> web.Response:
    return web.json_response({"path": request.path, "query": dict(request.query), "headers": dict(request.headers)})


async def test_the_correlation_id_and_the_trace_go_with_the_request() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with serving(echo) as server, HttpClient(LOOPBACK, base_url=f"{server.url}/v1/") as client:
        await client.request("POST", "/x", json={"a": 1}, params={"q": "1 2"}, correlation_id="c-1", traceparent=trace)
    seen = server.requests[0]
    assert (seen.method, seen.path, seen.query, seen.body) == ("POST", "/v1/x", {"q": "1 2"}, b'{"a":1}')
    assert seen.headers["X-Correlation-ID"] == "c-1"
    assert seen.headers["traceparent"] == trace
    assert seen.headers["Content-Type"] == "application/json"


async def test_sixty_values_that_would_break_out_of_a_header_or_url_are_never_sent() -> None:
    assert len(CRLF) >= 60
    async with serving(echo) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        for value in CRLF:
            for attempt in (
                {"headers": {"X-A": value}},
                {"headers": {f"X-{value}": "a"}},
                {"correlation_id": value},
                {"traceparent": value},
            ):
                with pytest.raises(AddressRefusedError):
                    await client.request("GET", "/", **attempt)  # type: ignore[arg-type]
            for url in (f"/{value}", f"{server.url}/?q={value}", f"http://127.0.0.1{value}/"):
                with pytest.raises(AddressRefusedError):
                    await client.request("GET", url)
            with pytest.raises(AddressRefusedError):
                await client.request(f"GET{value}", "/")
        assert server.requests == []
        await client.request("GET", "/ok")
    assert [seen.path for seen in server.requests] == ["/ok"]


async def test_control_characters_in_a_parameter_arrive_encoded() -> None:
    async with serving(echo) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        await client.request("GET", "/", params={"q": "a\r\nX-Evil: 1"})
    assert server.requests[0].query == {"q": "a\r\nX-Evil: 1"}
    assert "X-Evil" not in server.requests[0].headers


async def test_a_refused_connection_is_not_sent() -> None:
    async with serving(echo) as server:
        url = server.url
    async with HttpClient(LOOPBACK) as client:
        with pytest.raises(NotSentError, match=r"^GET http://127.0.0.1:\d+/x: no connection: "):
            await client.request("GET", f"{url}/x?token=hidden")


async def test_a_name_that_does_not_exist_is_not_sent() -> None:
    async with HttpClient() as client:
        with pytest.raises(NotSentError, match="no connection"):
            await client.request("GET", "http://nothing.invalid/")


async def test_a_failed_tls_handshake_is_not_sent() -> None:
    async with serving(echo) as server, HttpClient(LOOPBACK) as client:
        with pytest.raises(NotSentError, match="no connection: "):
            await client.request("GET", server.url.replace("http:", "https:"))


async def test_waiting_for_a_free_connection_in_vain_is_not_sent() -> None:
    release, arrived = asyncio.Event(), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        arrived.set()
        await release.wait()
        return web.Response()

    options = HttpOptions(allow_private=["127.0.0.1"], max_connections=1)
    async with serving(slow) as server, HttpClient(options, base_url=server.url) as client:
        first = asyncio.create_task(client.request("POST", "/first"))
        await arrived.wait()
        with pytest.raises(NotSentError):
            await client.request("POST", "/second", timeout=0.1)
        release.set()
        assert (await first).ok
    assert [seen.path for seen in server.requests] == ["/first"]


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
@pytest.mark.parametrize("reset", [False, True])
async def test_a_connection_that_ends_before_the_answer_has_an_unknown_effect_and_is_not_tried_again(
    method: str, reset: bool
) -> None:
    arrived = []

    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await read_request(reader))
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: closing resets

    async with raw_serving(drop) as server, HttpClient(LOOPBACK) as client:
        with pytest.raises(NoAnswerError, match="no complete answer"):
            await client.request(method, server.url, content=b"x")
    assert len(arrived) == 1


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_kept_connection_that_the_server_drops_has_an_unknown_effect(method: str) -> None:
    arrived = []

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append(await read_request(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        arrived.append(await read_request(reader))  # the second request on this connection: taken, never answered

    async with raw_serving(once) as server, HttpClient(LOOPBACK) as client:
        assert (await client.request(method, server.url, content=b"1")).status == 200
        with pytest.raises(NoAnswerError):
            await client.request(method, server.url, content=b"2")
    assert len(arrived) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/1.1 banana\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    ],
)
async def test_an_answer_that_is_cut_or_no_http_has_an_unknown_effect(answer: bytes) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(answer)
        await writer.drain()

    async with raw_serving(broken) as server, HttpClient(LOOPBACK) as client:
        with pytest.raises(NoAnswerError):
            await client.request("POST", f"{server.url}/?key=hidden", content=b"x")


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12"])
async def test_a_server_that_answers_too_slowly_has_an_unknown_effect(begun: bytes) -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(begun)
        await writer.drain()
        await asyncio.Event().wait()

    async with raw_serving(slow) as server, HttpClient(LOOPBACK) as client:
        with pytest.raises(NoAnswerError, match=r"within 0\.2 s"):
            await client.request("POST", server.url, content=b"x", timeout=0.2)


def bomb(kind: str) -> bytes:
    """32 MiB of zeros in about 32 kB; as members, each of 1 MiB."""
    if kind == "members":
        return gzip.compress(b"\0" * 2**20) * 32
    return gzip.compress(b"\0" * 2**25) if kind == "gzip" else zlib.compress(b"\0" * 2**25)


@pytest.mark.parametrize("kind", ["gzip", "deflate", "members"])
async def test_a_compressed_answer_is_measured_by_what_it_unpacks_to(kind: str) -> None:
    body = bomb(kind)

    async def small(_: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Encoding": "deflate" if kind == "deflate" else "gzip"})

    options = HttpOptions(allow_private=["127.0.0.1"], max_response=2**20)
    async with serving(small) as server, HttpClient(options, base_url=server.url) as client:
        tracemalloc.start()
        try:
            with pytest.raises(AnswerTooLargeError):
                await client.request("GET", "/")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert peak < 2**23


@pytest.mark.parametrize("length", [None, str(2**40)])
async def test_an_endless_answer_is_not_read_to_its_end(length: str | None) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=201, headers={} if length is None else {"Content-Length": length})
        await response.prepare(request)
        for _ in range(2000):
            await response.write(b"x" * 2**20)
            sent += 1
        return response

    options = HttpOptions(allow_private=["127.0.0.1"], max_response=2**20)
    async with serving(endless) as server, HttpClient(options, base_url=server.url) as client:
        with pytest.raises(AnswerTooLargeError, match="answered 201 with more than 1048576 bytes") as caught:
            await client.request("GET", "/")
    assert caught.value.status == 201
    assert sent < 100


async def test_an_answer_of_exactly_the_limit_is_read() -> None:
    async def exact(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * 1000)

    options = HttpOptions(allow_private=["127.0.0.1"], max_response=1000)
    async with serving(exact) as server, HttpClient(options, base_url=server.url) as client:
        assert len((await client.request("GET", "/")).content) == 1000


async def test_redirects_are_followed_only_on_request_and_five_times_at_most() -> None:
    async def onwards(request: web.Request) -> web.Response:
        number = int(request.path.strip("/") or 0)
        if number >= int(request.query["end"]):
            return web.Response(text="arrived")
        return web.Response(status=307, headers={"Location": f"/{number + 1}?{request.query_string}"})

    async with serving(onwards) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        assert (await client.request("POST", "/0?end=1", content=b"x")).status == 307
        assert (await client.request("POST", "/0?end=5", content=b"x", follow_redirects=True)).text == "arrived"
        assert server.requests[-1].body == b"x"
        with pytest.raises(NoAnswerError, match="more than 5 redirects"):
            await client.request("POST", "/0?end=6", content=b"x", follow_redirects=True)


async def test_a_303_turns_into_a_get_without_a_body() -> None:
    async def see_other(request: web.Request) -> web.Response:
        return web.Response(status=303, headers={"Location": "/done"}) if request.path == "/" else web.Response()

    async with serving(see_other) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        await client.request("POST", "/", json={}, follow_redirects=True)
    last = server.requests[-1]
    assert (last.method, last.path, last.body) == ("GET", "/done", b"")
    assert "Content-Type" not in last.headers


@pytest.mark.parametrize(
    "auth",
    [
        BasicAuth(type="basic", username="u", password=Secret.of("pass-word-1")),
        BearerAuth(type="bearer", token=Secret.of("token-token-1")),
        ApiKeyAuth(type="api_key", name="X-Api-Key", value=Secret.of("key-key-key-1")),
        ApiKeyAuth(type="api_key", name="key", value=Secret.of("key-key-key-1"), place="query"),
    ],
)
async def test_credentials_stay_with_their_origin(auth: Any) -> None:
    async with serving(echo) as other:

        async def away(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"{other.url}/stolen"})

        async with serving(away) as own, HttpClient(LOOPBACK, auth=auth, base_url=own.url) as client:
            headers = {"Cookie": "session=1", "X-Secret": "s", "Accept": "a/b"}
            await client.request("POST", "/", headers=headers, content=b"x", follow_redirects=True, correlation_id="c")
            await client.request("GET", f"{other.url}/absolute")
        assert any("key" in str(value) or "u" in str(value) for value in own.requests[0].headers.values())
    for seen in other.requests:
        text = str(seen.headers) + str(seen.query)
        assert not any(word in text for word in ("Authorization", "key-key", "token-token", "session", "X-Secret"))
    assert other.requests[0].headers["X-Correlation-ID"] == "c"


async def test_credentials_follow_a_redirect_within_their_origin() -> None:
    async def moved(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/new"}) if request.path == "/" else web.Response()

    auth = BearerAuth(type="bearer", token=Secret.of("token-token-2"))
    async with serving(moved) as server, HttpClient(LOOPBACK, auth=auth, base_url=server.url) as client:
        await client.request("GET", "/", follow_redirects=True)
    assert [seen.headers["Authorization"] for seen in server.requests] == ["Bearer token-token-2"] * 2


async def test_no_cookie_is_kept() -> None:
    async def cookie(_: web.Request) -> web.Response:
        return web.Response(headers={"Set-Cookie": "a=b; Path=/"})

    async with serving(cookie) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        await client.request("GET", "/")
        await client.request("GET", "/")
    assert "Cookie" not in server.requests[1].headers


async def test_no_message_holds_a_query_or_a_secret() -> None:
    async def refuse(request: web.Request) -> web.Response:
        return web.Response(status=422, text=f"bad {request.headers['Authorization']} " + "x" * 5000)

    auth = BearerAuth(type="bearer", token=Secret.of("very-secret-token"))
    async with serving(refuse) as server, HttpClient(LOOPBACK, auth=auth, base_url=server.url) as client:
        response = await client.request("POST", "/a?sig=hidden-signature")
    assert "very-secret-token" not in response.summary
    assert "hidden-signature" not in response.summary
    assert response.summary.startswith(f"POST {server.url}/a answered 422 Unprocessable Entity: bad ")
    assert len(response.summary) < 450


RETRY_AFTER = [
    ("0", 0.0), ("7", 7.0), (" 120 ", 120.0), ("-1", None), ("1.5", None), ("soon", None), ("", None), ("١", None),
    ("99999999999999999999", 9999999999.0), (timedelta(seconds=90), 90.0), (timedelta(seconds=-90), 0.0),
    ("Wed, 99 Foo 2024 00:00:00 GMT", None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "seconds"), RETRY_AFTER)
async def test_retry_after_is_read_in_both_of_its_forms(value: Any, seconds: float | None) -> None:
    now = datetime(2001, 1, 1, tzinfo=UTC)  # the server's clock: only its difference counts
    text = format_datetime(now + value, usegmt=True) if isinstance(value, timedelta) else value

    async def busy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        date = format_datetime(now, usegmt=True)
        head = f"HTTP/1.1 429 Busy\r\nDate: {date}\r\nRetry-After: {text}\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()

    async with raw_serving(busy) as server, HttpClient(LOOPBACK) as client:
        assert (await client.request("GET", server.url)).retry_after() == seconds


async def test_an_answer_that_is_not_json_is_an_error_that_quotes_its_beginning() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>Bad gateway</html>")

    async with serving(page) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        response = await client.request("GET", "/")
        with pytest.raises(RetriableError, match="<html>Bad gateway</html>: the body is not JSON"):
            response.json()


class TokenServer:
    """An OAuth 2.0 server with an API behind it: each token is good until it is revoked."""

    def __init__(self) -> None:
        self.issued: list[str] = []
        self.revoked: set[str] = set()
        self.lifetime: int | None = 3600
        self.status = 200

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            if self.status != 200:
                return web.json_response({"error": "invalid_client"}, status=self.status)
            self.issued.append(f"issued-token-{len(self.issued) + 1}")
            answer = {"access_token": self.issued[-1], "token_type": "Bearer"}
            return web.json_response(answer | ({} if self.lifetime is None else {"expires_in": self.lifetime}))
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        good = token in self.issued and token not in self.revoked
        return web.json_response({"token": token}, status=200 if good else 401)


def oauth2(url: str, **more: Any) -> OAuth2Auth:
    secret = Secret.of("s3cret/with+odd%chars")
    return OAuth2Auth(type="oauth2", token_url=f"{url}/token", client_id="me:x", client_secret=secret, **more)


@pytest.mark.parametrize("place", ["header", "body"])
async def test_a_token_is_fetched_once_for_many_requests_at_once(place: Any) -> None:
    tokens = TokenServer()
    async with serving(tokens) as server:
        auth = oauth2(server.url, scope="a b", credentials_in=place, parameters={"audience": "x"})
        async with HttpClient(LOOPBACK, auth=auth, base_url=server.url) as client:
            answers = await asyncio.gather(*(client.request("GET", f"/{number}") for number in range(20)))
    assert all(answer.ok for answer in answers)
    assert len(tokens.issued) == 1
    asked = next(seen for seen in server.requests if seen.path == "/token")
    assert b"grant_type=client_credentials" in asked.body
    assert b"scope=a+b" in asked.body
    assert b"audience=x" in asked.body
    assert ("Authorization" in asked.headers) == (place == "header")
    assert (b"client_secret=s3cret%2Fwith%2Bodd%25chars" in asked.body) == (place == "body")


async def test_a_revoked_token_is_replaced_once_and_the_request_sent_again() -> None:
    tokens = TokenServer()
    async with (
        serving(tokens) as server,
        HttpClient(LOOPBACK, auth=oauth2(server.url), base_url=server.url) as client,
    ):
        assert (await client.request("GET", "/")).ok
        tokens.revoked.add("issued-token-1")
        answers = await asyncio.gather(*(client.request("POST", "/", content=b"x") for _ in range(10)))
    assert all(answer.json()["token"] == "issued-token-2" for answer in answers)
    assert len(tokens.issued) == 2


async def test_a_401_with_a_new_token_is_left_to_the_caller() -> None:
    tokens = TokenServer()
    tokens.revoked = {f"issued-token-{number}" for number in range(10)}
    async with (
        serving(tokens) as server,
        HttpClient(LOOPBACK, auth=oauth2(server.url), base_url=server.url) as client,
    ):
        assert (await client.request("GET", "/")).status == 401
    assert len(tokens.issued) == 2


async def test_a_token_is_renewed_before_it_expires() -> None:
    tokens = TokenServer()
    async with (
        serving(tokens) as server,
        HttpClient(LOOPBACK, auth=oauth2(server.url), base_url=server.url) as client,
    ):
        await client.request("GET", "/")
        authorizer: Any = client._authorizer
        assert authorizer._renew_at < authorizer._expires_at
        authorizer._renew_at = 0.0
        assert (await client.request("GET", "/")).json()["token"] == "issued-token-2"
        authorizer._renew_at, tokens.status = 0.0, 503
        assert (await client.request("GET", "/")).json()["token"] == "issued-token-2"


@pytest.mark.parametrize(
    ("status", "error"), [(400, FatalError), (401, FatalError), (503, NotSentError), (429, NotSentError)]
)
async def test_a_token_server_that_refuses_is_fatal_and_one_that_is_down_is_not(status: int, error: Any) -> None:
    tokens = TokenServer()
    tokens.status = status
    async with (
        serving(tokens) as server,
        HttpClient(LOOPBACK, auth=oauth2(server.url), base_url=server.url) as client,
    ):
        with pytest.raises(error) as caught:
            await client.request("GET", "/")
    assert "s3cret" not in str(caught.value)
    assert all(seen.path == "/token" for seen in server.requests)


@pytest.mark.parametrize("lifetime", [None, 0, -5, "x", True])
async def test_a_token_with_an_odd_lifetime_is_used(lifetime: Any) -> None:
    tokens = TokenServer()
    tokens.lifetime = lifetime
    async with (
        serving(tokens) as server,
        HttpClient(LOOPBACK, auth=oauth2(server.url), base_url=server.url) as client,
    ):
        assert (await client.request("GET", "/")).ok


async def test_a_secret_with_a_line_break_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="control characters"):
        HttpClient(LOOPBACK, auth=BearerAuth(type="bearer", token=Secret.of("abc\r\nX: 1")))


def test_a_client_is_not_shared_between_event_loops() -> None:
    client = HttpClient(LOOPBACK)

    async def first() -> None:
        async with serving(echo) as server:
            await client.request("GET", server.url)

    async def second() -> None:
        with pytest.raises(RuntimeError, match="one event loop"):
            await client.request("GET", "http://127.0.0.1:9/")

    async def main() -> None:
        await first()
        await asyncio.to_thread(lambda: asyncio.run(second()))
        await client.close()

    asyncio.run(main())


async def test_sixty_four_requests_are_under_way_at_once() -> None:
    together = asyncio.Barrier(64)

    async def meet(_: web.Request) -> web.Response:
        await together.wait()
        return web.Response()

    async with serving(meet) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        answers = await asyncio.gather(*(client.request("GET", "/") for _ in range(64)))
    assert all(answer.ok for answer in answers)


async def test_a_closed_client_makes_no_request() -> None:
    client = HttpClient(LOOPBACK)
    await client.close()
    with pytest.raises(RuntimeError, match="closed"):
        await client.request("GET", "http://127.0.0.1:9/")
