"""Requests that are damaged in every way that chance finds: each is answered or cut off, nothing breaks, and the next good one is served.

`TRUNKLINE_FUZZ_EXAMPLES` sets how many are tried.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.bus.source.answers import Answer
from trunkline.bus.source.ingress import Ingress
from trunkline.core.access.directory import Directory
from trunkline.core.access.principals import local
from trunkline.core.access.roles import Role
from trunkline.core.contracts import Request
from trunkline.core.serving.doors import Doors
from trunkline.core.serving.guarding import Access, guarded
from trunkline.core.serving.listener import Listener
from trunkline.registry.service import registry_app
from trunkline.registry.store import MemoryStore

EXAMPLES = int(os.environ.get("TRUNKLINE_FUZZ_EXAMPLES", "60"))
SECONDS = 60.0
PATIENCE = 0.2
"""How long an answer is waited for before the request ends."""
JSON = b"application/vnd.schemaregistry.v1+json"
SCHEMA = rb'{"schema": "{\"type\": \"record\", \"name\": \"a.B\", \"fields\": [{\"name\": \"x\", \"type\": \"int\"}]}"}'


def request(line: bytes, body: bytes = b"", **headers: bytes) -> bytes:
    said = {"Host": b"localhost", **headers, **({"Content-Length": b"%d" % len(body)} if body else {})}
    head = b"".join(name.replace("_", "-").encode() + b": " + value + b"\r\n" for name, value in said.items())
    return line + b" HTTP/1.1\r\n" + head + b"\r\n" + body


GOOD = [
    request(b"GET /registry/subjects"),
    request(b"POST /registry/subjects/orders-value/versions?normalize=true", SCHEMA, Content_Type=JSON),
    request(
        b"POST /registry/compatibility/subjects/orders-value/versions/latest", SCHEMA, Content_Type=JSON, Accept=JSON
    ),
    request(b"PUT /registry/config/orders-value", b'{"compatibility": "FULL"}', Content_Type=JSON),
    request(b"GET /registry/schemas/ids/1?fetchMaxId=true&subject=orders-value"),
    request(b"DELETE /registry/subjects/orders-value/versions/1?permanent=true", X_API_Key=b"tlk_a_b"),
    request(b"GET /registry/subjects/a%2Fb%20c/versions", Authorization=b"Basic dXNlcjpwYXNz"),
    request(b"POST /hooks/open?a=b", b'{"id": 1}', Content_Type=b"application/json"),
    request(b"POST /hooks/open", gzip.compress(b'{"id": 1}', mtime=0), Content_Encoding=b"gzip"),
    request(b"POST /hooks/open", Transfer_Encoding=b"chunked") + b'9;a=b\r\n{"id": 1}\r\n0\r\nTrailer: x\r\n\r\n',
]
ENDING = request(b"GET /health", Connection=b"close")
PIECES = [
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff\xfe",
    b"%",
    b"%2e%2e/",
    b"//",
    b"{}",
    b"[" * 3000,
    b'{"a":' * 3000,
    b"9" * 5000,
    b"-1",
    b"A" * 9000,
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Encoding: gzip\r\n",
    b"Host: evil.example\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n",
    b"Authorization: Bearer eyJ.eyJ.x\r\n",
    b"0\r\n\r\n",
    b"ffffffffffffffff\r\n",
]


class Hook:
    """A source that takes whatever comes."""

    pipeline = "open"

    class source:  # noqa: N801 (an attribute of the protocol)
        path = "/hooks/open"
        max_body = 10_000
        anonymous = True

    async def receive(self, asked: Request) -> Answer:
        assert len(asked.body) <= self.source.max_body
        return Answer(202, b"{}")


@pytest.fixture(scope="module")
def doors() -> Iterator[list[tuple[str, int]]]:
    """The addresses of a registry and of an ingress."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(SECONDS)

    async def begin() -> tuple[Listener, Ingress]:
        app = web.Application()
        app.add_subapp("/registry", registry_app(MemoryStore()))
        api, ingress = Listener("test", ("127.0.0.1", 0), ""), Ingress(Doors().ingress(("127.0.0.1", 0), None))
        await api.start(web.AppRunner(guarded(app, Access(Directory(), local(Role.ADMIN)))))
        await ingress.add(Hook())  # type: ignore[arg-type]
        return api, ingress

    api, ingress = run(begin())
    yield [(host, int(port)) for host, port in (one.url.removeprefix("http://").split(":") for one in (api, ingress))]
    run(api.stop())
    run(ingress.stop())
    loop.call_soon_threadsafe(loop.stop)
    thread.join(SECONDS)
    loop.close()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good request, or several, to which something was done."""
    found = b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(1, 5))):
        at, length = draw(st.integers(0, len(found))), draw(st.integers(0, 40))
        match draw(st.integers(0, 4)):
            case 0:
                found = found[:at] + draw(st.sampled_from(PIECES)) + found[at:]
            case 1:
                found = found[:at] + found[at + length :]
            case 2:
                found = found[:at] + draw(st.binary(max_size=20)) + found[at + length :]
            case 3:
                found = found[:at] + found[at : at + length] * draw(st.integers(2, 50)) + found[at + length :]
            case 4:
                found = found.replace(
                    draw(st.sampled_from([b"\r\n", b" ", b":", b"/", b"1"])), draw(st.binary(max_size=2)), 1
                )
    return found


def answers(address: tuple[str, int], sent: bytes, patience: float = PATIENCE) -> bytes:
    """All that is answered until the other side ends the connection. Fails where it never does.

    Who gets nothing for `patience` seconds sends no more, and says so: what is not answered by then may never be.
    """
    with socket.create_connection(address, timeout=patience) as connection:
        found = b""
        try:
            connection.sendall(sent)
            while True:
                try:
                    part = connection.recv(65536)
                except TimeoutError:  # it waits for more of the request: it gets no more
                    connection.shutdown(socket.SHUT_WR)
                    connection.settimeout(SECONDS)
                    continue
                if not part:
                    return found
                found += part
        except ConnectionError:
            return found  # cut off while it was still sending


@pytest.mark.timeout(120 + EXAMPLES)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=damaged(), which=st.integers(0, 1))
def test_a_damaged_request_breaks_nothing(
    doors: list[tuple[str, int]], caplog: pytest.LogCaptureFixture, sent: bytes, which: int
) -> None:
    caplog.clear()
    found = answers(doors[which], sent)
    statuses = [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]
    assert not found or found.startswith(b"HTTP/"), found[:100]
    assert all(status < 500 for status in statuses), found[:300]
    assert b"Traceback" not in found
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []
    assert answers(doors[which], ENDING, SECONDS).split(b" ")[1] == b"404"
