"""Listeners, tried by raw sockets: what senders may take of them, and what they tell of themselves."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
import uvloop
from aiohttp import web

from trunkline.core.errors import UnavailableError
from trunkline.core.serving import connections
from trunkline.core.serving.bodies import (
    Bodies,
    BodyError,
    LateBodyError,
    NoRoomError,
    Taken,
    TooLargeError,
    UnreadableBodyError,
    UnsupportedEncodingError,
    read_body,
)
from trunkline.core.serving.connections import Limits
from trunkline.core.serving.listener import Listener, Ports

HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIMIT = 1000
packed = partial(gzip.compress, mtime=0)


async def health(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="well")


@asynccontextmanager
async def listening(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]] = health, limits: Limits | None = None
) -> AsyncIterator[Listener]:
    listener = Listener("test", ("127.0.0.1", 0), "", limits=limits)
    await listener.start(web.ServerRunner(web.Server(handler)))
    try:
        yield listener
    finally:
        await listener.stop()
        await Client.close_all()


class Client:
    """A connection by hand."""

    made: ClassVar[list[Client]] = []

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def of(cls, listener: Listener) -> Client:
        host, port = listener.url.removeprefix("http://").split(":")
        cls.made.append(cls(*await asyncio.open_connection(host, int(port))))
        return cls.made[-1]

    @classmethod
    async def close_all(cls) -> None:
        """Ends all that were made."""
        for one in cls.made:
            one.writer.close()
            with suppress(ConnectionError):
                await one.writer.wait_closed()
        cls.made.clear()

    async def ask(self, request: bytes = HEAD) -> bytes:
        """The answer with its body; empty where the connection ended instead."""
        try:
            self.writer.write(request)
            await self.writer.drain()
            head = await self.reader.readuntil(b"\r\n\r\n")
            size = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            return head + await self.reader.readexactly(size)
        except (ConnectionError, asyncio.IncompleteReadError):
            return b""

    async def ended(self) -> bool:
        """Waits for the other side to end it."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


async def opened(listener: Listener, count: int) -> list[Client]:
    """Connections, each of which the listener has taken."""
    made = []
    for _ in range(count):
        before = listener.connections.taken
        made.append(await Client.of(listener))
        while listener.connections.taken == before:
            await asyncio.sleep(0)
    return made


# --- connections ---


async def test_however_many_connections_only_wait_a_request_is_answered() -> None:
    async with listening(limits=Limits(connections=20, of_address=20)) as listener:
        idle = await opened(listener, 50)
        assert listener.connections.open == 20
        assert b"well" in await (await Client.of(listener)).ask()
        assert await idle[0].ended()
        assert b"well" in await idle[-1].ask()


async def test_of_a_thousand_who_come_at_once_each_gets_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in ("YOUNG_SECONDS", "LINGER_SECONDS"):
        monkeypatch.setattr(
            connections, seconds, 60.0
        )  # however slow the machine is, these senders are as new as they say
    asked = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    async with listening(limits=Limits(connections=400, of_address=300)) as listener:

        async def ask() -> bytes:
            return await (await Client.of(listener)).ask(asked)

        answers = await asyncio.gather(*(ask() for _ in range(1000)))
        assert {answer[9:12] for answer in answers} <= {b"200", b"503"}
        assert b"well" in await ask()


async def test_who_stands_in_line_is_not_admitted_once_the_listener_stops() -> None:
    asked: list[str] = []
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        begun.set()
        await go_on.wait()
        return await health(request)

    async with listening(slow, Limits(connections=1, of_address=1)) as listener:
        first = asyncio.create_task((await Client.of(listener)).ask())
        await begun.wait()
        second = await Client.of(listener)
        waiting = asyncio.create_task(second.ask())
        while not listener.connections.in_line:
            await asyncio.sleep(0)
        stopping = asyncio.create_task(listener.stop())
        assert await waiting == b""
        go_on.set()
        assert b"well" in await first
        await stopping
    assert asked == ["/health"]


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /health HT",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\nx",
    ],
)
async def test_what_is_half_sent_waits_as_well(begun: bytes) -> None:
    async def read(request: web.BaseRequest) -> web.StreamResponse:
        await read_body(request, LIMIT)
        return await health(request)

    async with listening(read, Limits(connections=8, of_address=8)) as listener:
        slow = await opened(listener, 8)
        for one in slow:
            one.writer.write(begun)
        assert b"well" in await (await Client.of(listener)).ask()
        assert await slow[0].ended()


async def test_one_address_can_not_take_the_connections_of_others() -> None:
    async with listening(limits=Limits(connections=20, of_address=5)) as listener:
        await opened(listener, 12)
        assert listener.connections.open == 5


async def test_a_connection_that_is_worked_on_is_not_closed_for_another_one() -> None:
    go = asyncio.Event()
    begun = asyncio.Semaphore(0)

    async def work(request: web.BaseRequest) -> web.StreamResponse:
        await read_body(request, LIMIT)
        begun.release()
        await go.wait()
        return await health(request)

    async with listening(work, Limits(connections=3, of_address=3)) as listener:
        asking = [asyncio.create_task((await Client.of(listener)).ask()) for _ in range(3)]
        for _ in asking:
            await begun.acquire()
        refused = await (await Client.of(listener)).ask(b"")
        assert refused.startswith(b"HTTP/1.1 503")
        assert b"Retry-After: 1" in refused
        go.set()
        assert [b"well" in answer for answer in await asyncio.gather(*asking)] == [True] * 3
        assert b"well" in await (await Client.of(listener)).ask()
        assert listener.connections.refused == 1


def test_who_is_turned_away_is_told_so_on_the_loop_of_workers_as_well() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(test_a_connection_that_is_worked_on_is_not_closed_for_another_one())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_reads_nothing_of_his_answer_waits_and_makes_room(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(_answered_beside_those_who_do_not_read())


async def _answered_beside_those_who_do_not_read() -> None:
    asked: list[web.BaseRequest] = []

    async def long(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/health":
            return await health(request)
        response = web.StreamResponse()
        await response.prepare(request)
        asked.append(request)
        while True:
            await response.write(b"x" * 2**17)

    async with listening(long, Limits(connections=3, of_address=3)) as listener:
        clients = [await Client.of(listener) for _ in range(3)]
        for one in clients:
            one.writer.write(HEAD.replace(b"/health", b"/long"))
        while len(asked) < 3 or not all(request.protocol.writing_paused for request in asked):
            await asyncio.sleep(0)
        assert b"well" in await (await Client.of(listener)).ask()
        assert listener.connections.closed_for_others == 1
        # Who reads on is worked for again, until he stops.
        reading = next(request.protocol for request in asked if request.protocol.connected)
        reading.resume_writing()
        assert reading not in listener.connections._waiting
        reading.pause_writing()
        assert next(reversed(listener.connections._waiting)) is reading


async def test_no_count_is_left_of_connections_that_ended() -> None:
    async with listening(limits=Limits(connections=4, of_address=2)) as listener:
        for _ in range(5):
            for one in await opened(listener, 3):
                assert await one.ask() or True
                one.writer.close()
        while listener.connections.open:
            await asyncio.sleep(0)
        assert not listener.connections._of_address
        assert not listener.connections._waiting
        assert not any(listener.connections._waiting_of.values())


def test_a_listener_takes_a_share_of_the_files_that_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _kind: (256, 4096))
    assert Limits.within_files(0.25) == Limits(64, 32)
    assert Limits.within_files(0.01) == Limits(8, 4)
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _kind: (2**20, 2**20))
    assert Limits.within_files(0.25) == Limits(1024, 512)


# --- what comes on the wire ---


async def test_whatever_is_wrong_with_a_body_is_one_kind_of_error() -> None:
    """Who catches it has caught all of them: what a sender does is never taken for a fault of ours."""
    found: list[type[Exception]] = []

    async def read(request: web.BaseRequest) -> web.StreamResponse:
        try:
            await read_body(request, LIMIT, Taken(Bodies(1)), seconds=0.0 if "late" in request.path else 10.0)
        except BodyError as error:
            found.append(type(error))
        return await health(request)

    async with listening(read) as listener:
        post = (
            b"POST /%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n%s"
        )
        for path, size, headers, body in [
            (b"late", 9, b"", b"x"),
            (b"large", LIMIT + 1, b"", b"x"),
            (b"coded", 1, b"Content-Encoding: br\r\n", b"x"),
            (b"twice", 1, b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\n", b"x"),
            (b"broken", 1, b"Content-Encoding: gzip\r\n", b"x"),
            (b"full", 2, b"", b"xx"),
        ]:
            assert b"well" in await (await Client.of(listener)).ask(post % (path, size, headers, body))
    wrong = [LateBodyError, TooLargeError, UnsupportedEncodingError, UnsupportedEncodingError]
    assert found == [*wrong, UnreadableBodyError, NoRoomError]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET http://evil.example/health HTTP/1.0\r\n\r\n", b"421"),
        (b"GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"400"),
        (b"GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"400"),
        (b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"200"),
        (b"GET /health HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /health HTTP/2.0\r\nHost: localhost\r\n\r\n", b"505"),
    ],
)
async def test_the_host_is_looked_at_wherever_a_request_names_it_and_the_version_too(
    head: bytes, status: bytes
) -> None:
    async with listening() as listener:
        assert (await (await Client.of(listener)).ask(head)).split()[1] == status


async def test_extensions_of_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_BYTES", 10_000)

    async def read(request: web.BaseRequest) -> web.StreamResponse:
        await read_body(request, LIMIT)
        return await health(request)

    async with listening(read) as listener:
        good = await Client.of(listener)
        chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert b"well" in await good.ask(chunked + b"1;name=value\r\nx\r\n" * 500 + b"0\r\n\r\n")
        assert b"well" in await good.ask(chunked + b"2\r\nxx\r\n" * 500 + b"0\r\n\r\n")
        bad = await Client.of(listener)
        bad.writer.write(chunked + b"1;")
        sent = 0
        try:
            while sent < 100 * 2**20:
                bad.writer.write(b"a" * 8192)
                await bad.writer.drain()
                sent += 8192
        except ConnectionError:
            pass
        assert sent < 100 * 2**20
        assert b"well" in await good.ask(chunked + b"0\r\n\r\n")


async def body_of(request: bytes, headers: bytes = b"") -> tuple[bytes | type[Exception], int]:
    """What is read of a body that is sent in chunks, and how many bytes are still held for it."""
    found: list[bytes | type[Exception]] = []
    bodies = Bodies(10 * LIMIT)

    async def read(asked: web.BaseRequest) -> web.StreamResponse:
        taken = Taken(bodies)
        try:
            found.append(await read_body(asked, LIMIT, taken))
        except (NoRoomError, TooLargeError, UnreadableBodyError, UnsupportedEncodingError) as error:
            found.append(type(error))
        finally:
            taken.give_back()
        return await health(asked)

    async with listening(read) as listener:
        head = (
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n%s\r\n"
            % headers
        )
        parts = [request[at : at + 700] for at in range(0, len(request), 700)]
        client = await Client.of(listener)
        await client.ask(head + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in parts) + b"0\r\n\r\n")
    return found[0], bodies.held


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("gzip", packed(b"x" * LIMIT), b"x" * LIMIT),
        ("x-gzip", packed(b""), b""),
        ("deflate", zlib.compress(b"hello"), b"hello"),
        ("identity", b"x" * LIMIT, b"x" * LIMIT),
        ("", b"hello", b"hello"),
        ("gzip", packed(b"x" * (LIMIT + 1)), TooLargeError),
        ("gzip", packed(b"x" * 10**7), TooLargeError),
        ("identity", b"x" * (LIMIT + 1), TooLargeError),
        # Behind its end a compressed stream has nothing: what comes there was neither counted nor seen by any signature.
        ("gzip", packed(b"hello") + b"x", UnreadableBodyError),
        ("gzip", packed(b"hello") + b"x" * (LIMIT - 100), UnreadableBodyError),
        ("gzip", packed(b"hello") + packed(b"more"), UnreadableBodyError),
        ("gzip", packed(b"") * 30, UnreadableBodyError),
        ("deflate", zlib.compress(b"hello") + b"\0", UnreadableBodyError),
        # Bytes that nothing comes out of count as well.
        ("gzip", b"\x1f\x8b\x08\x08\0\0\0\0\0\0" + b"n" * 10**5, TooLargeError),
        ("gzip", packed(b"hello")[:-1], UnreadableBodyError),
        ("gzip", b"hello", UnreadableBodyError),
        ("br", b"hello", UnsupportedEncodingError),
        ("gzip, gzip", packed(packed(b"hello")), UnsupportedEncodingError),
    ],
)
async def test_bodies_are_bounded_as_they_come_and_as_they_are(name: str, body: bytes, expected: object) -> None:
    assert await body_of(body, b"Content-Encoding: %s\r\n" % name.encode() if name else b"") == (expected, 0)


# --- what it tells, and its life ---


@pytest.mark.parametrize(
    "request_bytes", [HEAD, b"GET / HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x.evil\r\n\r\n"]
)
async def test_no_answer_tells_what_serves_it(request_bytes: bytes) -> None:
    async with listening() as listener:
        answer = await (await Client.of(listener)).ask(request_bytes)
        assert answer.startswith(b"HTTP/1.")
        assert b"server:" not in answer.lower()
        assert b"aiohttp" not in answer.lower()


async def test_what_the_fence_refuses_no_handler_sees() -> None:
    seen = []

    async def see(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.path)
        return await health(request)

    async with listening(see) as listener:
        for line, headers, status in [
            (b"GET / HTTP/1.1", b"Host: evil.example\r\n", b"421"),
            (b"GET http://evil.example/ HTTP/1.1", b"Host: localhost\r\n", b"400"),
            (b"GET / HTTP/1.1", b"", b"400"),
            (b"GET / HTTP/0.9", b"Host: localhost\r\n", b"505"),
            (b"GET / HTTP/1.1", b"Host: localhost\r\nOrigin: https://evil.example\r\n", b"403"),
            (b"POST / HTTP/1.1", b"Host: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n", b"415"),
        ]:
            body = b"{}" if line.startswith(b"POST") else b""
            answer = await (await Client.of(listener)).ask(line + b"\r\n" + headers + b"\r\n" + body)
            assert answer.split(b" ")[1] == status, line
        assert seen == []
        assert b"well" in await (await Client.of(listener)).ask()


async def test_several_that_begin_at_once_share_one_listener_and_none_is_left() -> None:
    listener = Listener("test", ("127.0.0.1", 0), "")
    servers: list[object] = []
    loop = asyncio.get_running_loop()
    create = loop.create_server

    async def counted(*arguments: object, **options: object) -> object:
        servers.append(made := await create(*arguments, **options))  # type: ignore[arg-type]
        return made

    loop.create_server = counted  # type: ignore[method-assign, assignment]
    try:
        await asyncio.gather(*(listener.start(web.ServerRunner(web.Server(health))) for _ in range(4)))
    finally:
        loop.create_server = create  # type: ignore[method-assign]
    assert len(servers) == 1
    await listener.stop()
    with pytest.raises(ConnectionRefusedError):
        await Client.of(listener)
    with pytest.raises(UnavailableError) as refusal:  # who begins late is not served by what nobody will end
        await listener.start(web.ServerRunner(web.Server(health)))
    assert refusal.value.code == "address.ended"


async def test_a_free_port_is_the_same_one_again_unless_it_is_taken(tmp_path: Path) -> None:
    def made() -> Listener:
        return Listener("test", ("127.0.0.1", 0), "", ports=Ports(tmp_path / "ports"))

    first, again, other = made(), made(), made()
    await first.start(web.ServerRunner(web.Server(health)))
    await first.stop()
    await again.start(web.ServerRunner(web.Server(health)))
    await other.start(web.ServerRunner(web.Server(health)))
    try:
        assert again.url == first.url
        assert other.url != first.url
        taken = Listener("test", ("127.0.0.1", int(again.url.rsplit(":", 1)[1])), "choose another")
        with pytest.raises(UnavailableError) as refusal:
            await taken.start(web.ServerRunner(web.Server(health)))
        assert (refusal.value.code, refusal.value.hint) == ("address.taken", "choose another")
    finally:
        await again.stop()
        await other.stop()
