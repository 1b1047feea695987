"""Row 21: addresses that lead inside, names that change where they lead, redirects, and values that would break out."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import structlog
from aiohttp import web

from sinks.http.settings import HttpSinkConnection, HttpSinkSettings
from sinks.http.sink import HttpSink
from tests.chaos.campaign import Run, row
from tests.integration.hostile_requests import CRLF, TABLE, scripted_resolver
from tests.integration.http_counterpart import LOOPBACK, serving
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.errors import TrunklineError
from trunkline.core.event import Event
from trunkline.core.http import AddressRefusedError, HttpClient, HttpOptions
from trunkline.core.verdicts import Dead

ADDRESSES, VALUES, REBOUND = "addresses", "CR/LF values", "names that led elsewhere"
INSIDE = ("127.2.2.2", "127.0.0.2", "::1")
"""Where the canary listens: all of it loopback, none of it allowed to anyone."""
DOOR = "127.0.0.1"
"""What is allowed in the cases of redirects and names: a server outside, as far as the rules go."""
MAPPED = ("::ffff:127.2.2.2", "64:ff9b::7f02:202", "2002:7f02:202::1", "::127.2.2.2")


class Canary:
    """Listens at inside addresses, and counts whoever connects."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    @asynccontextmanager
    async def singing(self) -> AsyncIterator[Canary]:
        """Until the block ends. The port is the same at every address."""

        def came(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            writer.close()

        servers = []
        for host in INSIDE:
            servers.append(await asyncio.start_server(came, host, self.port))
            self.port = servers[0].sockets[0].getsockname()[1]
        try:
            await self._proven()
            yield self
        finally:
            for server in servers:
                server.close()

    async def _proven(self) -> None:
        """A canary that hears nothing would prove nothing."""
        for host in INSIDE:
            _, writer = await asyncio.open_connection(host, self.port)
            writer.close()
        while self.connections < len(INSIDE):
            await asyncio.sleep(0.01)
        self.connections = 0


@row(
    21,
    "addresses that lead inside, values that break out",
    load="requests of the http client and the http sink",
    fault="{addresses} addresses (mapped, CGNAT, metadata, rebinding, redirects) and {values} values with line breaks",
    full={"addresses": 120, "values": 60},
    short={"addresses": 120, "values": 60},
    minutes=3,
)
async def hostile_addresses(run: Run) -> None:
    """Nobody connects to the canary, and what arrives elsewhere has no byte that a value put in."""
    async with Canary().singing() as canary:
        await _literal(run, canary)
        await _resolved(run, canary)
        await _rebound(run, canary)
        await _redirected(run, canary)
        run.claim(canary.connections == 0, f"the canary was connected to {canary.connections} times")
    await _values(run)
    await _records(run)
    run.must_fire(ADDRESSES, run["addresses"])
    run.must_fire(REBOUND, 5)
    run.must_fire(VALUES, run["values"])


async def _refused(run: Run, client: HttpClient, url: str, **more: Any) -> None:
    try:
        answer = await client.request("GET", url, **more)
        run.claim(False, f"{url} answered {answer.status}")
    except AddressRefusedError:
        run.fires({ADDRESSES: 1})
    except TrunklineError as error:
        run.claim(False, f"{url} was tried: {error}")


async def _literal(run: Run, canary: Canary) -> None:
    """Every spelling in the table, at the canary's port."""
    hosts = [*TABLE, *INSIDE[:2], "[::1]", *(f"[{one}]" for one in MAPPED)]
    run.chance.shuffle(hosts)
    async with HttpClient(HttpOptions(timeout=60)) as client:
        for host in hosts:
            await _refused(run, client, f"http://{host}:{canary.port}/")


async def _resolved(run: Run, canary: Canary) -> None:
    """Names that resolve to the inside, alone and among several answers."""
    inside = [[one] for one in (*INSIDE, *MAPPED, "10.0.0.1", "100.64.0.1", "169.254.169.254", "fd00:ec2::254")]
    names = {f"n{number}.example": found for number, found in enumerate([*inside, list(INSIDE), list(MAPPED)])}
    async with HttpClient(HttpOptions(timeout=60)) as client:
        with resolving(names):
            for name in names:
                await _refused(run, client, f"http://{name}:{canary.port}/")


async def _rebound(run: Run, canary: Canary) -> None:
    """A name leads to an allowed server at first and to the canary from then on: each connection is judged by itself."""

    async def here(_: web.Request) -> web.Response:
        return web.Response(text="here", headers={"Connection": "close"})

    for number, inside in enumerate((*INSIDE, *MAPPED[:2])):
        name = f"rebind{number}.example"
        answers = itertools.chain([[DOOR]], itertools.repeat([inside]))
        options = HttpOptions(timeout=60, allow_private=[f"{DOOR}/32"])
        async with serving(here) as door, HttpClient(options) as client:
            with resolving({name: answers}):
                first = await client.request("GET", f"http://{name}:{door.port}/")
                run.claim(first.text == "here", f"{name} was not reached at first")
                assert client._session is not None
                connector: Any = client._session._session.connector
                connector.clear_dns_cache()
                await _refused(run, client, f"http://{name}:{canary.port}/")
                run.fires({REBOUND: len(door.requests)})


async def _redirected(run: Run, canary: Canary) -> None:
    """An allowed server sends the client on to the canary."""
    targets = [
        f"{scheme}//{host}:{canary.port}/" for scheme in ("http:", "") for host in (*INSIDE[:2], "[::1]", "127.1")
    ]
    targets += [f"http://[{one}]:{canary.port}/" for one in MAPPED]
    for status, target in zip(itertools.cycle((301, 302, 303, 307, 308)), targets, strict=False):

        async def away(_: web.Request, status: int = status, target: str = target) -> web.Response:
            return web.Response(status=status, headers={"Location": target})

        async with serving(away) as door, HttpClient(HttpOptions(timeout=60, allow_private=[f"{DOOR}/32"])) as client:
            await _refused(run, client, door.url, follow_redirects=True)
            run.claim(len(door.requests) == 1, f"the server that redirects was asked {len(door.requests)} times")


@contextmanager
def resolving(names: Mapping[str, Any]) -> Iterator[None]:
    """The system's resolver answers by a script."""
    with mock.patch.object(socket, "getaddrinfo", scripted_resolver(names)):
        yield


async def _values(run: Run) -> None:
    """In each place of a request: nothing is sent at all."""

    async def never(_: web.Request) -> web.Response:
        return web.Response()

    async with serving(never) as server, HttpClient(LOOPBACK, base_url=server.url) as client:
        for value in CRLF:
            places: list[tuple[str, str, dict[str, Any]]] = [
                ("GET", "/", {"headers": {"X-A": value}}),
                ("GET", "/", {"headers": {f"X-{value}": "a"}}),
                ("GET", "/", {"correlation_id": value}),
                ("GET", "/", {"traceparent": value}),
                ("GET", f"/{value}", {}),
                ("GET", f"{server.url}/?q={value}", {}),
                (f"GET{value}", "/", {}),
            ]
            for method, url, more in places:
                try:
                    await client.request(method, url, **more)
                    run.claim(False, f"{value!r} was sent: {method!r} {url!r} {sorted(more)}")
                except AddressRefusedError:
                    run.fires({VALUES: 1})
        run.claim(server.requests == [], f"{len(server.requests)} requests arrived")


async def _records(run: Run) -> None:
    """As values of records in a sink's templates: a header's makes a dead letter, a URL's stays where it belongs."""

    async def taken(_: web.Request) -> web.Response:
        return web.Response(status=201)

    async with serving(taken) as server:
        connection = HttpSinkConnection(base_url=server.url, http=LOOPBACK)
        for settings, may_arrive in (
            ({"url": "/in", "headers": {"X-Note": "{{ event.note }}"}}, False),
            ({"url": "/in/{{ event.note }}"}, True),
        ):
            sink = HttpSink(HttpSinkSettings.model_validate(settings), connection)
            await sink.open(PluginContext("chaos", "out", Path(), structlog.get_logger()))
            for value in CRLF:
                (verdict,) = await sink.write(Batch([Event({"note": value})]))
                run.claim(may_arrive or isinstance(verdict, Dead), f"{value!r} in a header: {verdict}")
                run.fires({VALUES: 1})
            await sink.close()
        known = {"/in"} | {f"/in/{value}" for value in CRLF}
        for seen in server.requests:
            run.claim(seen.path in known and not seen.query, f"a value became {seen.path!r} {seen.query}")
            injected = {name for name in seen.headers if name.lower() in {"set-cookie", "x-note"}}
            run.claim(not injected, f"a value became a header: {injected}")
