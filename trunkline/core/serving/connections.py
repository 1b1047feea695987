"""The connections of a listener: how many there are in all and of one address, and which one has waited longest.

A connection *waits* while it has no whole request: nothing came yet, a head or a body is on its way, or an answer was sent and the next
request has not come. It waits as well while its client reads nothing of an answer that is being written. Anybody can hold as many of
those as he likes, for nothing. So they are never refused but replaced: where there is no room, the one that has waited longest is
closed. Who asks for something short, as a load balancer asks for health, is served however many others only wait. Only where everything
that is open is being worked on, a new connection is turned away with 503.
"""

from __future__ import annotations

import asyncio
import resource
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from trunkline.core.log import get_logger
from trunkline.core.serving.refusals import json_refusal

log = get_logger(__name__)
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
MOST = 1024
FEWEST = 8
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n"
    b'Content-Length: 34\r\n\r\n{"error":"too many connections"}\r\n'
)
REQUEST_BYTES = 16 * 2**20
"""What may come on the wire until a request is complete, where nobody says more or less: heads, requests sent ahead of their answers,
and the sizes and extensions of chunks (RFC 9112, section 7.1.1), which belong to no body and have no limit of their own."""
HEAD_BYTES = 2**20
WIRE_BYTES = 4
"""On the wire a body in chunks of two bytes takes four times its size."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be, in all and from one address."""

    connections: int = MOST
    of_address: int = MOST // 2

    @classmethod
    def within_files(cls, share: float, most: int = MOST) -> Limits:
        """At most this share of the files that the process may open: whoever takes them all would silence everything else in it."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            most = min(most, max(FEWEST, int(files * share)))
        return cls(most, max(FEWEST // 2, most // 2))


class Connections:
    """Those of one listener. On the event loop."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.open = 0
        self.taken = 0
        """How many there were in all."""
        self.closed_for_others = 0
        """How many that waited were closed to make room."""
        self.refused = 0
        """How many were turned away, since all others were being worked on."""
        self._of_address: defaultdict[str, int] = defaultdict(int)
        # In the order in which they began to wait, since a dict keeps the order of insertion.
        self._waiting: dict[Connection, None] = {}
        self._waiting_of: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    def take(self, connection: Connection, address: str) -> bool:
        """Counts a new connection, and makes room for it. False where there is none."""
        if self._of_address[address] >= self.limits.of_address and not self._close_longest(self._waiting_of[address]):
            return self._refuse(address)
        if self.open >= self.limits.connections and not self._close_longest(self._waiting):
            return self._refuse(address)
        self.open += 1
        self.taken += 1
        self._of_address[address] += 1
        self.waits(connection, address)
        return True

    def waits(self, connection: Connection, address: str) -> None:
        """A connection has no whole request, from now on."""
        self._waiting[connection] = self._waiting_of[address][connection] = None

    def works(self, connection: Connection, address: str) -> None:
        """A connection's request is complete, and is being answered."""
        if self._waiting.pop(connection, 0) is None:
            del self._waiting_of[address][connection]

    def give_back(self, connection: Connection, address: str) -> None:
        """A connection that was taken has ended."""
        self.works(connection, address)
        self.open -= 1
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]
            self._waiting_of.pop(address, None)

    def end_waiting(self) -> None:
        """Ends all that wait: nothing that was sent on them counts."""
        while self._close_longest(self._waiting):
            pass

    def _close_longest(self, waiting: dict[Connection, None]) -> bool:
        longest = next(iter(waiting), None)
        if longest is None:
            return False
        self.closed_for_others += 1
        longest.end()
        return True

    def _refuse(self, address: str) -> bool:
        self.refused += 1
        if not self._of_address[address]:
            del self._of_address[address]
        return False


class Connection(RequestHandler):
    """One of them, as a protocol of aiohttp's server."""

    __slots__ = ("_address", "_allowed", "_connections", "_counted", "_received", "_working")

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._connections = connections
        self._address = ""
        self._counted = False
        self._received = 0
        self._allowed = REQUEST_BYTES
        self._working = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        super().connection_made(transport)
        self._counted = self._connections.take(self, self._address)
        if not self._counted:
            # Not asked for its class: the transports of uvloop have one of their own.
            cast("asyncio.Transport", transport).write(FULL)
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.end_counting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._allowed:
            self.end()  # whatever it is, it is no request that anybody here takes
            return
        super().data_received(data)

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answers what can't be read, and logs our own faults. The former anybody can send as often as he likes."""
        if status >= 500:
            log.error("a request could not be answered", path=request.path, exc_info=exc)
        else:
            log.debug("a request can't be read", remote=self._address, reason=(message or "").partition("\n")[0][:200])
        reason = "the request could not be answered" if status >= 500 else "the request can't be read"
        response = json_refusal(status, reason)
        response.force_close()
        return response

    def end(self) -> None:
        """Closes it at once. What is under way on it is cancelled by whoever does it, when he finds nobody to answer."""
        self.end_counting()
        if self.transport is not None:
            self.transport.abort()
        self.force_close()

    def end_counting(self) -> None:
        """It makes room for another one, now: the system tells later that it is gone."""
        if self._counted:
            self._counted = False
            self._connections.give_back(self, self._address)

    def expects(self, body: int) -> None:
        """A request is read whose body may be so large, in bytes."""
        self._allowed = HEAD_BYTES + WIRE_BYTES * body

    def works(self) -> None:
        """A request was read to its end."""
        self._received = 0
        self._allowed = REQUEST_BYTES
        self._working = True
        if self._counted and not self.writing_paused:
            self._connections.works(self, self._address)

    def pause_writing(self) -> None:
        """Its client takes nothing of the answer: that may last for ever, and holds what is written."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Its client reads on."""
        super().resume_writing()
        if self._counted and self._working:
            self._connections.works(self, self._address)

    def waits(self) -> None:
        """A request was answered."""
        self._working = False
        self._wait()

    def _wait(self) -> None:
        if self._counted:
            self._connections.works(self, self._address)
            self._connections.waits(self, self._address)


def expect(request: web.BaseRequest, body: int) -> None:
    """Who handles a request reads a body of at most so many bytes. Who sends much more on the wire is cut off."""
    if isinstance(request.protocol, Connection):
        request.protocol.expects(body)


def complete(request: web.BaseRequest) -> None:
    """Who handles a request has read its body. Until then its connection may be closed to make room for another one."""
    if isinstance(request.protocol, Connection):
        request.protocol.works()


def counting(handler: Handler) -> Handler:
    """A server's handler, after whose answers a connection waits again."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if not request.body_exists:
            complete(request)
        try:
            return await handler(request)
        finally:
            if isinstance(request.protocol, Connection):
                request.protocol.waits()

    return handle
