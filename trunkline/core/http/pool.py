"""The connections of one client: kept while they are used, at most so many at once, and one timer for all that may take too long."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque

from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.coding import unpacked
from trunkline.core.http.dial import IDLE_SECONDS, Origin, connect
from trunkline.core.http.faults import Answer, Call, LostError
from trunkline.core.http.options import HttpOptions
from trunkline.core.http.outgoing import Outgoing
from trunkline.core.http.wire import Wire


class Pool:
    """Connections by origin, on the running event loop. `context` is None for the system's certificate authorities."""

    def __init__(self, options: HttpOptions, policy: AddressPolicy, context: ssl.SSLContext | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._policy = policy
        self._context = context
        self._idle: dict[Origin, list[Wire]] = {}
        self._busy: set[Wire] = set()
        self._origins: dict[Wire, Origin] = {}
        """Every connection that is open, and where it goes."""
        self._dialling = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._ended: asyncio.Future[None] | None = None

    async def exchange(self, outgoing: Outgoing, call: Call) -> Answer:
        """Sends a request and gives its answer, unpacked. Notes in `call` when it has a connection. Nothing is ever sent again.

        Raises TimeoutError, OSError, ValueError, `LostError`, `BadAnswerError`, `BadCodingError`, `TooLongError`.
        """
        request, origin = outgoing.wire_bytes(), outgoing.target.origin
        deadline = self._loop.time() + outgoing.seconds
        wire = None if self._waiting else self._kept(origin)
        if wire is None:
            wire = await self._connection(origin, call, deadline)
        call.connected = True
        self._busy.add(wire)
        coming: asyncio.Future[Answer] = self._loop.create_future()
        wire.send(request, coming, deadline, head_only=outgoing.method == "HEAD")
        self._watch(deadline)
        try:
            answer = await coming
        finally:
            wire.give_up(coming)
        if "Content-Encoding" in answer.headers:
            answer.body = unpacked(answer, self._options.max_response)
        return answer

    async def close(self) -> None:
        """Ends all connections; requests under way fail with `LostError`."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._ended = self._loop.create_future()
        for wire in list(self._origins):
            wire.fail(LostError("the client was closed"))
        while self._waiting:
            self._wake()
        if self._origins:
            await self._ended

    # --- connections ---

    def _kept(self, origin: Origin) -> Wire | None:
        """The connection that was used last, if one is kept. An old one is not: its server may be closing it just now."""
        kept = self._idle.get(origin)
        if not kept:
            return None
        since = self._loop.time() - IDLE_SECONDS
        while kept:
            wire = kept.pop()
            if wire.usable and wire.idle_since > since:
                return wire
            wire.end()
        return None

    async def _connection(self, origin: Origin, call: Call, deadline: float) -> Wire:
        while True:
            if self._closed:
                raise LostError("the client was closed")
            if (wire := self._kept(origin)) is not None:
                return wire
            if len(self._origins) + self._dialling < self._options.max_connections:
                break
            if not self._make_room():
                await self._turn(deadline)
        self._dialling += 1
        wire = Wire(self._options.max_response, freed=self._freed, gone=self._gone)
        try:
            async with asyncio.timeout_at(min(deadline, self._loop.time() + self._options.connect_timeout)):
                await connect(origin, lambda: wire, call=call, policy=self._policy, context=self._context)
        except BaseException:
            wire.end()
            self._wake()
            raise
        finally:
            self._dialling -= 1
        if self._closed or not wire.usable:
            wire.end()
            raise LostError("the connection ended as soon as it was made")
        self._origins[wire] = origin
        return wire

    def _make_room(self) -> bool:
        """Ends a connection that is kept for another origin. Whether there was one."""
        for kept in self._idle.values():
            while kept:
                wire = kept.pop(0)
                self._origins.pop(wire, None)
                wire.end()
                return True
        return False

    async def _turn(self, deadline: float) -> None:
        """Waits until a connection was given back or ended."""
        turn: asyncio.Future[None] = self._loop.create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        except BaseException:
            if turn in self._waiting:
                self._waiting.remove(turn)
            else:
                self._wake()  # it was ours to take, and now is the next one's
            raise

    def _wake(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _freed(self, wire: Wire) -> None:
        self._busy.discard(wire)
        origin = self._origins.get(wire)
        if origin is None or self._closed:
            wire.end()
            return
        wire.idle_since = self._loop.time()
        kept = self._idle.get(origin)
        if kept is None:
            kept = self._idle[origin] = []
        kept.append(wire)
        self._watch(wire.idle_since + IDLE_SECONDS)
        if self._waiting:
            self._wake()

    def _gone(self, wire: Wire) -> None:
        self._busy.discard(wire)
        origin = self._origins.pop(wire, None)
        kept = self._idle.get(origin) if origin is not None else None
        if kept and wire in kept:
            kept.remove(wire)
        self._wake()
        if self._ended is not None and not self._origins and not self._ended.done():
            self._ended.set_result(None)

    # --- the timer ---

    def _watch(self, moment: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= moment:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(moment, self._sweep)

    def _sweep(self) -> None:
        """Ends what has taken too long and what has been idle too long, and looks again when the next one would be."""
        self._timer = None
        now = self._loop.time()
        following = [wire.deadline for wire in self._busy]
        for wire in [wire for wire in self._busy if wire.deadline <= now]:
            wire.fail(TimeoutError())
        for origin, kept in list(self._idle.items()):
            while kept and kept[0].idle_since + IDLE_SECONDS <= now:
                kept.pop(0).end()
            if kept:
                following.append(kept[0].idle_since + IDLE_SECONDS)
            else:
                del self._idle[origin]
        following = [moment for moment in following if moment > now]
        if following and not self._closed:
            self._watch(min(following))
