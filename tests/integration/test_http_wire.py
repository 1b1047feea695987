"""Our own HTTP/1.1 connections against servers that frame their answers in every way, allowed and forbidden."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from http_counterpart import LOOPBACK, raw_serving, read_request
from multidict import CIMultiDict
from yarl import URL

from trunkline.core.http import AnswerTooLargeError, HttpClient, HttpOptions, HttpResponse, NoAnswerError, NotSentError
from trunkline.core.http.outgoing import Outgoing, Target
from trunkline.core.http.wire import MAX_HEAD

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEPT, CLOSED = True, False


@pytest.fixture(autouse=True)
def everything_goes_over_our_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.core.http.client.DIRECT", frozenset({"GET", "HEAD", "POST", "PUT"}))


class Scripted:
    """Each connection's requests are answered by the next of the scripted answers; `connections` counts."""

    def __init__(self, *answers: bytes, hang_up: bool = False) -> None:
        self.answers = list(answers)
        self.hang_up = hang_up
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.requests.append(await read_request(reader))
                writer.write(self.answers.pop(0) if self.answers else PLAIN)
                await writer.drain()
                if self.hang_up:
                    return
        finally:
            self.ended.set()


@asynccontextmanager
async def answering(
    *answers: bytes, hang_up: bool = False, limit: int = 2**20
) -> AsyncIterator[tuple[Scripted, HttpClient]]:
    script = Scripted(*answers, hang_up=hang_up)
    options = HttpOptions(allow_private=["127.0.0.1"], timeout=60, max_response=limit)
    async with raw_serving(script) as server, HttpClient(options, base_url=server.url) as client:
        yield script, client


def head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status}", *lines, "", "")).encode("latin-1")


CHUNKED = head("Transfer-Encoding: chunked")

WELL_FRAMED = {
    "a length": (PLAIN, "ok", KEPT),
    "no body": (head("Content-Length: 0"), "", KEPT),
    "chunks": (CHUNKED + b"2\r\nab\r\n1;ext=1\r\nc\r\n0\r\n\r\n", "abc", KEPT),
    "chunks in capitals": (head("transfer-encoding: Chunked") + b"A\r\n0123456789\r\n0\r\n\r\n", "0123456789", KEPT),
    "chunks of one byte": (CHUNKED + b"1\r\nx\r\n" * 30_000 + b"0\r\n\r\n", "x" * 30_000, KEPT),
    "trailers": (CHUNKED + b"2\r\nab\r\n0\r\nX-Late: 1\r\n\r\n", "ab", KEPT),
    "a header without a value before the length": (head("X-Empty:", "Content-Length: 2") + b"ok", "ok", KEPT),
    "interim answers": (
        head(status="100 Continue") + head("Link: <a>", "X-Early: 1", status="103 Early Hints") + PLAIN,
        "ok",
        KEPT,
    ),
    "no content": (head(status="204 No Content"), "", KEPT),
    "no content, and a length of nothing": (head("Content-Length: 0", status="204 No Content"), "", KEPT),
    "no content, and a length": (head("Content-Length: 5", status="204 No Content"), "", CLOSED),
    "not modified, with the length of what was not": (head("Content-Length: 10", status="304 Not Modified"), "", CLOSED),
    "not modified, chunked": (head("Transfer-Encoding: chunked", status="304 Not Modified"), "", CLOSED),
    "close": (head("Connection: close", "Content-Length: 2") + b"ok", "ok", CLOSED),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", CLOSED),
    "bytes after the answer": (PLAIN + b"and more", "ok", CLOSED),
    "an answer that nobody asked for": (PLAIN + head("Content-Length: 6") + b"forged", "ok", CLOSED),
    "a redirect": (head("Location: /x", "Content-Length: 0", status="307 Away"), "", KEPT),
}  # fmt: skip


@pytest.mark.parametrize("case", WELL_FRAMED)
@pytest.mark.parametrize("piece", [1, None], ids=["byte by byte", "at once"])
async def test_an_answer_is_read_to_where_it_ends_and_the_next_request_gets_its_own(
    case: str, piece: int | None
) -> None:
    answer, body, kept = WELL_FRAMED[case]
    if piece is not None and (len(answer) > 1000 or "after" in case or "nobody" in case):
        pytest.skip("too long, or about what comes together")
    connections, arrived = 0, []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            arrived.append(await read_request(reader))
            data = answer if len(arrived) == 1 else head("Content-Length: 6") + b"second"
            for index in range(0, len(data), piece or len(data)):
                writer.write(data[index : index + (piece or len(data))])
                await writer.drain()
                await asyncio.sleep(0)

    async with raw_serving(serve) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        first = await client.request("POST", "/", content=b"{}")
        second = await client.request("POST", "/", content=b"{}")
    assert (first.text, second.text) == (body, "second")
    assert not {"X-Late", "X-Early"} & set(first.headers)
    assert connections == (1 if kept else 2)


async def test_a_body_without_a_length_ends_with_the_connection() -> None:
    async with answering(head("X-A: 1") + b"until the end", hang_up=True) as (script, client):
        assert (await client.request("POST", "/")).text == "until the end"
        assert (await client.request("POST", "/")).text == "ok"
    assert script.connections == 2


async def test_the_answer_to_a_head_request_has_no_body_whatever_it_says() -> None:
    async with answering(head("Content-Length: 5"), PLAIN, head("Transfer-Encoding: chunked")) as (script, client):
        answer = await client.request("HEAD", "/")
        assert (answer.content, answer.headers["Content-Length"]) == (b"", "5")
        assert (await client.request("POST", "/")).text == "ok"
        assert (await client.request("HEAD", "/")).content == b""
    assert script.connections == 2


ILL_FRAMED = {
    "a length and chunks": head("Content-Length: 2", "Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
    "chunks and a length": head("Transfer-Encoding: chunked", "Content-Length: 2") + b"2\r\nok\r\n0\r\n\r\n",
    "chunked twice": head("Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n",
    "chunked in two headers": head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "another coding before": head("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
    "another coding alone": head("Transfer-Encoding: identity") + b"ok",
    "almost chunked": head("Transfer-Encoding: xchunked") + b"0\r\n\r\n",
    "chunked behind a tab of its own": head("Transfer-Encoding: \x0bchunked") + b"0\r\n\r\n",
    "two lengths": head("Content-Length: 2", "Content-Length: 3") + b"oka",
    "a list of lengths": head("Content-Length: 2, 2") + b"ok",
    "a signed length": head("Content-Length: +2") + b"ok",
    "a negative length": head("Content-Length: -2") + b"ok",
    "a hexadecimal length": head("Content-Length: 0x2") + b"ok",
    "a length with a blank": head("Content-Length: 2 0") + b"ok",
    "a length beyond 64 bits": head("Content-Length: 18446744073709551618") + b"ok",
    "a chunk of no size": CHUNKED + b"\r\nab\r\n0\r\n\r\n",
    "a negative chunk": CHUNKED + b"-2\r\nab\r\n0\r\n\r\n",
    "a chunk in C's form": CHUNKED + b"0x2\r\nab\r\n0\r\n\r\n",
    "a chunk beyond 64 bits": CHUNKED + b"10000000000000002\r\nab\r\n0\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "lines that end with a line feed": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "lines that end with a carriage return": b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok",
    "a blank before the colon": head("Content-Length : 2") + b"ok",
    "a header without a colon": head("Content-Length", "X: 1") + b"ok",
    "a header without a name": head(": 1", "Content-Length: 2") + b"ok",
    "a zero byte in a header": head("X: a\x00b", "Content-Length: 2") + b"ok",
    "another protocol": head("Upgrade: x", "Connection: upgrade", status="101 Switching Protocols"),
    "an interim answer with a body": head("Content-Length: 2", status="100 Continue") + b"ok" + PLAIN,
    "an interim answer in chunks": head("Transfer-Encoding: chunked", status="103 Hints") + b"0\r\n\r\n" + PLAIN,
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an old version": b"HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a trailer of framing": CHUNKED + b"2\r\nab\r\n0\r\nContent-Length: 9\r\n\r\n",
    "another name": b"ICY 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "a status of four digits": head("Content-Length: 2", status="2000 OK") + b"ok",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "cut in its head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "cut in its body": head("Content-Length: 3") + b"ok",
    "cut in a chunk": CHUNKED + b"5\r\nab",
    "cut before the last chunk": CHUNKED + b"2\r\nab\r\n",
    "only an interim answer": head(status="100 Continue"),
    "nothing": b"",
}  # fmt: skip


@pytest.mark.parametrize("case", ILL_FRAMED)
async def test_an_answer_that_is_not_framed_beyond_doubt_has_an_unknown_effect(case: str) -> None:
    async with answering(ILL_FRAMED[case], hang_up=True) as (script, client):
        with pytest.raises(NoAnswerError):
            await client.request("POST", "/", content=b"{}")
        assert (await client.request("POST", "/", content=b"{}")).text == "ok"
    assert script.connections == len(script.requests) == 2


FLOODS: dict[str, tuple[bytes, Callable[[int], bytes]]] = {
    "headers": (b"HTTP/1.1 200 OK\r\n", lambda number: b"X-%d: 1\r\n" % number * 1000),
    "one header": (b"HTTP/1.1 200 OK\r\nX: ", lambda _: b"a" * 10_000),
    "one name of a header": (b"HTTP/1.1 200 OK\r\n", lambda _: b"a" * 10_000),
    "one reason": (b"HTTP/1.1 200 ", lambda _: b"a" * 10_000),
    "interim answers": (b"", lambda _: head(status="100 Continue") * 100),
    "a chunk's extension": (CHUNKED + b"1;", lambda _: b"a" * 10_000),
    "trailers": (CHUNKED + b"0\r\n", lambda number: b"X-%d: 1\r\n" % number * 1000),
    "one trailer": (CHUNKED + b"0\r\nX: ", lambda _: b"a" * 10_000),
}


@pytest.mark.parametrize("case", FLOODS)
async def test_what_comes_beside_the_body_is_bounded(case: str) -> None:
    begin, more = FLOODS[case]
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(begin)
        for number in range(10_000):
            data = more(number)
            writer.write(data)
            await writer.drain()
            sent += len(data)

    async with raw_serving(flood) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        with pytest.raises(NoAnswerError):
            await client.request("POST", "/", content=b"{}")
    assert sent < 100 * MAX_HEAD


async def test_an_answer_that_drips_has_an_unknown_effect_when_its_time_is_over() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with raw_serving(drip) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        with pytest.raises(NoAnswerError, match=r"no complete answer came within 0\.3 s"):
            await client.request("POST", "/", content=b"{}", timeout=0.3)


async def test_a_body_in_chunks_is_measured_too() -> None:
    answer = CHUNKED + b"400\r\n" + b"x" * 1024 + b"\r\n0\r\n\r\n"
    async with answering(answer, answer, limit=1023) as (_, client):
        with pytest.raises(AnswerTooLargeError) as caught:
            await client.request("POST", "/")
    assert caught.value.status == 200


async def test_after_an_answer_to_half_a_request_the_connection_is_not_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trunkline.core.http.outgoing.AT_ONCE", 2**26)
    connections = 0
    body = b"x" * 2**24  # more than the system's buffers take

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")  # the rest of the request is still on its way, or with its sender
        writer.write(head("Content-Length: 4", status="413 Too Large") + b"no: ")
        await writer.drain()
        await reader.read()

    async with raw_serving(early) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        assert (await client.request("POST", "/", content=body)).status == 413
        assert (await client.request("POST", "/", content=body)).status == 413
    assert connections == 2


async def test_bytes_on_an_idle_connection_end_it() -> None:
    speak = asyncio.Event()
    closed = asyncio.Event()
    connections = 0

    async def unasked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(PLAIN)
        await speak.wait()
        writer.write(head("Content-Length: 6") + b"forged")
        await reader.read()
        closed.set()

    async with raw_serving(unasked) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        assert (await client.request("POST", "/")).text == "ok"
        speak.set()
        await closed.wait()
        assert (await client.request("POST", "/")).text == "ok"
    assert connections == 2


async def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used_again() -> None:
    async with answering(hang_up=True) as (script, client):
        for _ in range(3):
            script.ended.clear()
            assert (await client.request("PUT", "/", content=b"x")).text == "ok"
            await script.ended.wait()
            await asyncio.sleep(0.05)  # what ends on the server's side is here a moment later
    assert script.connections == 3


async def test_an_old_connection_is_closed_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.core.http.pool.IDLE_SECONDS", 0.05)
    async with answering() as (script, client):
        assert (await client.request("POST", "/")).ok
        await script.ended.wait()
        assert (await client.request("POST", "/")).ok
    assert script.connections == 2


async def test_the_connection_of_a_cancelled_request_is_not_used_again() -> None:
    arrived, connections = asyncio.Event(), 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        if connections == 1:
            arrived.set()
            await reader.read()
        writer.write(PLAIN)
        await writer.drain()

    async with raw_serving(slow) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        first = asyncio.create_task(client.request("POST", "/"))
        await arrived.wait()
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await client.request("POST", "/")).text == "ok"
    assert connections == 2


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_connections_are_open_than_allowed_and_whoever_waits_gets_one(limit: int) -> None:
    async with answering() as (script, client):
        client.options = client.options.model_copy(update={"max_connections": limit})
        asked = [asyncio.create_task(client.request("POST", "/")) for _ in range(30)]
        await asyncio.sleep(0)
        asked.pop(limit + 1).cancel()
        answers: list[HttpResponse] = await asyncio.gather(*asked)
    assert [answer.text for answer in answers] == ["ok"] * 29
    assert script.connections == limit


async def test_a_kept_connection_makes_room_for_one_to_another_origin() -> None:
    options = HttpOptions(allow_private=["127.0.0.1"], max_connections=1)
    one, other = Scripted(), Scripted()
    async with raw_serving(one) as first, raw_serving(other) as second, HttpClient(options) as client:
        asked = [client.request("POST", (first, second)[number % 2].url) for number in range(10)]
        answers: list[HttpResponse] = await asyncio.gather(*asked)
    assert [answer.text for answer in answers] == ["ok"] * 10
    assert len(one.requests) == len(other.requests) == 5


async def test_closing_the_client_ends_what_is_under_way_and_what_waits() -> None:
    arrived = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        await reader.read()

    options = HttpOptions(allow_private=["127.0.0.1"], max_connections=1)
    async with raw_serving(silent) as server:
        client = HttpClient(options, base_url=server.url)
        first = asyncio.create_task(client.request("POST", "/"))
        await arrived.wait()
        second = asyncio.create_task(client.request("POST", "/"))
        await asyncio.sleep(0)
        await client.close()
        with pytest.raises(NoAnswerError, match="the client was closed"):
            await first
        with pytest.raises(NotSentError, match="the client was closed"):
            await second


async def test_a_request_is_what_the_standard_says() -> None:
    async with answering() as (script, client):
        await client.request("POST", "/p%20q?a=1", content=b"{}", headers={"accept": "x/y", "Content-Type": "a/b"})
        await client.request("PUT", "/")
        await client.request("GET", "/")
    first, second, third = (request.split(b"\r\n") for request in script.requests)
    assert first[0] == b"POST /p%20q?a=1 HTTP/1.1"
    assert first[1].startswith(b"Host: 127.0.0.1:")
    assert sorted(first[2:-2]) == [
        b"Accept-Encoding: identity",
        b"Content-Length: 2",
        b"Content-Type: a/b",
        b"User-Agent: trunkline",
        b"accept: x/y",
    ]
    assert first[-2:] == [b"", b"{}"]
    assert b"Content-Length: 0" in second
    assert not any(line.lower().startswith((b"content-", b"transfer-")) for line in third)


@pytest.mark.parametrize(
    "header", ["Host", "Content-Length", "transfer-encoding", "CONNECTION", "Expect", "Upgrade", "TE", "Trailer"]
)
def test_a_request_with_a_header_of_framing_is_left_to_aiohttp(header: str) -> None:
    target = Target(URL("http://a.example/"), own=True)
    assert not Outgoing("POST", target, CIMultiDict({header: "1"}), b"", 1.0).framed_by_us
    assert Outgoing("POST", target, CIMultiDict({"X-Host": "1"}), b"", 1.0).framed_by_us
