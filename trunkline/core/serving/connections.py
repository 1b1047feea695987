"""The connections of a listener: how many there are in all and of one address, and which one has waited longest.

A connection *waits* while it has no whole request: nothing came yet, a head or a body is on its way, or an answer was sent and the next
request has not come. It waits as well while its client reads nothing of an answer that is being written. Anybody can hold as many of
those as he likes, for nothing. So they are never refused but replaced: where there is no room, the one that has waited longest is
closed. Who asks for something short, as a load balancer asks for health, is served however many others only wait.

A thousand honest senders who come at once are another matter: what they send is on its way when the last of them connects. A connection
that is new, or has sent what was not read yet, is closed for nobody; whoever finds no other has a turn as soon as there is room. Who has
none in time, or finds too many before him, is turned away: with 503, which he has time to read.
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import resource
import struct
import termios
import time
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
YOUNG_SECONDS = 0.5
"""A connection that has waited no longer may be about to ask."""
TURN_SECONDS = 1.0
"""How long a new connection stands in line before it is turned away."""
TURNS_SECONDS = 0.05
"""How often it is looked whose turn it is."""
LOOKED_AT = 64
"""How many that wait are looked at for one that may be closed, so that each new connection costs as much as another."""
LINGER_SECONDS = 2.0
"""How long who is turned away may take to read why. To close at once what was not read resets a connection, and its client may never see
the answer (RFC 9112, section 9.6)."""
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
    def within_files(cls, share: float, most: int = MOST, of_address: float = 0.5) -> Limits:
        """At most this share of the files that the process may open: whoever takes them all would silence everything else in it.

        One address may have so great a part of the connections.
        """
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            most = min(most, max(FEWEST, int(files * share)))
        return cls(most, max(FEWEST // 2, int(most * of_address)))


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
        """How many were turned away, since no other one could be closed for them."""
        self.lingering = 0
        """How many that were turned away have not read it yet: as many as there may be connections, no more are waited for."""
        self._in_line: dict[Connection, float] = {}
        """Those without room, with the time until which they stand in line."""
        self._turns: asyncio.TimerHandle | None = None
        self._ended = False
        self._of_address: defaultdict[str, int] = defaultdict(int)
        # In the order in which they began to wait, since a dict keeps the order of insertion.
        self._waiting: dict[Connection, None] = {}
        self._waiting_of: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    def take(self, connection: Connection) -> None:
        """Admits a new connection where there is room or some can be made; else it stands in line, or is turned away."""
        if self._ended:
            connection.end()
        elif self._has_room(connection.address):
            self._admit(connection)
        elif len(self._in_line) < self.limits.connections:
            self._in_line[connection] = time.monotonic() + TURN_SECONDS
            connection.stand_in_line()
            self._look_again()
        else:
            self._turn_away(connection)

    def leave(self, connection: Connection) -> None:
        """A connection that may stand in line has ended."""
        self._in_line.pop(connection, None)

    def _has_room(self, address: str) -> bool:
        if self._of_address.get(address, 0) >= self.limits.of_address:
            return self._close_longest(self._waiting_of[address])
        return self.open < self.limits.connections or self._close_longest(self._waiting)

    def _admit(self, connection: Connection) -> None:
        self.open += 1
        self.taken += 1
        self._of_address[connection.address] += 1
        self.waits(connection, connection.address)
        connection.admit()

    def _turn_away(self, connection: Connection) -> None:
        self.refused += 1
        connection.turn_away(linger=self.lingering < self.limits.connections)

    def _look_again(self) -> None:
        if self._turns is None and self._in_line:
            self._turns = asyncio.get_running_loop().call_later(TURNS_SECONDS, self._next_turns)

    def _next_turns(self) -> None:
        self._turns = None
        now = time.monotonic()
        full: set[str] = set()
        crowded = False
        for connection, until in list(self._in_line.items()):
            # An address that has too many keeps no other one waiting; where all are too many, nobody else need be looked for.
            if not crowded and connection.address not in full and self._has_room(connection.address):
                del self._in_line[connection]
                self._admit(connection)
            elif until < now:
                del self._in_line[connection]
                self._turn_away(connection)
            else:
                full.add(connection.address)
                crowded = crowded or self._of_address.get(connection.address, 0) < self.limits.of_address
        self._look_again()

    @property
    def in_line(self) -> int:
        """How many stand in line."""
        return len(self._in_line)

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
        """Ends all that wait, or stand in line: nothing that was sent on them counts, and nobody is admitted any more."""
        self._ended = True
        if self._turns is not None:
            self._turns.cancel()
            self._turns = None
        for one in [*self._waiting, *self._in_line]:
            one.end()
        self._in_line.clear()

    def _close_longest(self, waiting: dict[Connection, None]) -> bool:
        for longest in itertools.islice(waiting, LOOKED_AT):
            if longest.is_idle():
                self.closed_for_others += 1
                longest.end()
                return True
        return False


class Connection(RequestHandler):
    """One of them, as a protocol of aiohttp's server."""

    __slots__ = (
        "_allowed",
        "_connections",
        "_counted",
        "_early",
        "_given",
        "_lingers",
        "_received",
        "_since",
        "_working",
        "address",
    )

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self.address = ""
        self._connections = connections
        self._counted = False
        self._received = 0
        self._allowed = REQUEST_BYTES
        self._working = False
        self._since = time.monotonic()
        self._given: asyncio.Transport | None = None
        """Of a connection that was not admitted."""
        self._early = b""
        """What came of it before reading could be stopped."""
        self._lingers = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        # Not asked for its class: the transports of uvloop have one of their own.
        self._given = cast("asyncio.Transport", transport)
        self._connections.take(self)

    def admit(self) -> None:
        """There is room for it."""
        assert self._given is not None
        transport, self._given = self._given, None
        self._counted = True
        self._since = time.monotonic()
        super().connection_made(transport)
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)
        if not transport.is_closing():
            transport.resume_reading()

    def stand_in_line(self) -> None:
        """There is none yet. Nothing is read of it: what thousands send would be held for nothing."""
        assert self._given is not None
        self._given.pause_reading()

    def turn_away(self, *, linger: bool) -> None:
        """There is none. With `linger` its client has time to read so."""
        assert self._given is not None
        self._given.write(FULL)
        if not linger:
            self._given.close()
            return
        self._lingers, self._early = True, b""
        self._connections.lingering += 1
        if self._given.can_write_eof():
            self._given.write_eof()
        self._given.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._given.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._given is not None:
            self._given = None
            self._connections.leave(self)
            self._connections.lingering -= self._lingers
            return
        self.end_counting()
        super().connection_lost(exc)

    def is_idle(self) -> bool:
        """Whether it has waited for a while, and nothing came that was not read yet."""
        if time.monotonic() - self._since < YOUNG_SECONDS or self.transport is None:
            return False
        try:
            unread = fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.FIONREAD, b"\0\0\0\0")
        except OSError:  # it has been closed
            return True
        return not struct.unpack("i", unread)[0]

    def data_received(self, data: bytes) -> None:
        if self._given is not None:
            if not self._lingers:
                self._early += data
                self._given.pause_reading()
            return
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
            log.debug("a request can't be read", remote=self.address, reason=(message or "").partition("\n")[0][:200])
        reason = "the request could not be answered" if status >= 500 else "the request can't be read"
        response = json_refusal(status, reason)
        response.force_close()
        return response

    def end(self) -> None:
        """Closes it at once. What is under way on it is cancelled by whoever does it, when he finds nobody to answer."""
        self.end_counting()
        if self._given is not None:
            self._given.abort()
        if self.transport is not None:
            self.transport.abort()
        self.force_close()

    def end_counting(self) -> None:
        """It makes room for another one, now: the system tells later that it is gone."""
        if self._counted:
            self._counted = False
            self._connections.give_back(self, self.address)

    def expects(self, body: int) -> None:
        """A request is read whose body may be so large, in bytes."""
        self._allowed = HEAD_BYTES + WIRE_BYTES * body

    def works(self) -> None:
        """A request was read to its end."""
        self._received = 0
        self._allowed = REQUEST_BYTES
        self._working = True
        if self._counted and not self.writing_paused:
            self._connections.works(self, self.address)

    def pause_writing(self) -> None:
        """Its client takes nothing of the answer: that may last for ever, and holds what is written."""
        super().pause_writing()
        self._wait()

    def resume_writing(self) -> None:
        """Its client reads on."""
        super().resume_writing()
        if self._counted and self._working:
            self._connections.works(self, self.address)

    def waits(self) -> None:
        """A request was answered."""
        self._working = False
        self._wait()

    def _wait(self) -> None:
        self._since = time.monotonic()
        if self._counted:
            self._connections.works(self, self.address)
            self._connections.waits(self, self.address)


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
