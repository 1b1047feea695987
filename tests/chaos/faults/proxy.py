"""A TCP proxy that does to connections what networks do: cuts, silence, delay, answers that never arrive."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
RESET, SILENCE, DELAY, LOST_REPLY, CUT = "reset", "black hole", "delay", "lost reply", "cut"
_CHUNK = 65_536
#: SO_LINGER with 0 s: `close` sends RST instead of FIN (socket(7)).
_RST = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Link:
    """One connection of a client, and its other half to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    stranded: bool = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            own: socket.socket | None = writer.get_extra_info("socket")
            if own is not None and own.fileno() >= 0:
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            writer.transport.abort()


class TcpProxy:
    """Stands between clients and a server, in a thread with an event loop of its own.

    Methods are called from any thread. `fired` counts, by kind, the connections (or answers) that a fault really met: a
    black hole that nobody sent into has not fired.
    """

    def __init__(self, target: tuple[str, int], *, port: int = 0) -> None:
        self.fired: Counter[str] = Counter()
        self.port = port
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tcp-proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._losing = 0
        self._cut_after: int | None = None

    # --- called from any thread ---

    def start(self) -> int:
        """Listens on loopback, and says at which port."""
        self._thread.start()
        self.port = self._run(self._listen())
        return self.port

    def stop(self) -> None:
        """Ends every connection and the thread."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._links)

    def reset(self) -> int:
        """Cuts all connections with RST; new ones are served. Says how many there were."""
        return self._call(self._reset)

    def black_hole(self, on: bool) -> None:
        """While on, bytes are taken and go nowhere in either direction until it is off again; connections stay open."""
        self._call(self._flowing.clear if on else self._flowing.set)

    def strand(self) -> None:
        """Connections that are open now are dead from now on and nobody is told, as behind a firewall that forgot them; new ones work."""
        self._call(self._strand)

    def away(self, on: bool) -> None:
        """While on, nobody is served, as by a server that has ended: connections are cut, and new ones are refused."""
        self._run(self._leave() if on else self._listen())

    def lead_to(self, target: tuple[str, int]) -> None:
        """Another server is behind it from now on: connections are cut, and new ones lead there."""

        def turn() -> None:
            self._target = target
            self._reset()

        self._call(turn)

    def delay(self, seconds: float) -> None:
        """Every chunk waits this long in either direction; 0 for none."""
        self._call(lambda: setattr(self, "_delay", seconds))

    def lose_replies(self, count: int) -> None:
        """The next `count` answers are dropped after the request went through, each with its connection."""
        self._call(lambda: setattr(self, "_losing", count))

    def cut_after(self, count: int | None) -> None:
        """The next connection that sends is cut after so many further bytes of the client went through."""
        self._call(lambda: setattr(self, "_cut_after", count))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(15)

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._run(call())

    # --- on the loop ---

    async def _leave(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.reset()

    async def _listen(self) -> int:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        await self._leave()
        # Of a client that tries again and again one may just be on its way in.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.sleep(0)  # transports that were aborted close their sockets in the loop's next turn

    def _reset(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
        self.fired[RESET] += len(links)
        return len(links)

    def _strand(self) -> None:
        for link in self._links:
            link.stranded = True

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        link = _Link(writer, server_writer)
        self._links.add(link)
        link.tasks = [
            asyncio.create_task(self._pump(link, reader, server_writer, requests=True)),
            asyncio.create_task(self._pump(link, server_reader, writer, requests=False)),
        ]
        try:
            # When one direction ends the connection is over: Kafka and HTTP clients use no half-closed ones.
            await asyncio.wait(link.tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in link.tasks:
                task.cancel()
            await asyncio.gather(*link.tasks, return_exceptions=True)
            for one in (writer, server_writer):
                one.close()
            self._links.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, requests: bool
    ) -> None:
        try:
            while chunk := await reader.read(_CHUNK):
                if link.stranded:
                    self.fired[SILENCE] += 1
                    await asyncio.Event().wait()
                if self._delay:
                    self.fired[DELAY] += 1
                    await asyncio.sleep(self._delay)
                if not self._flowing.is_set():
                    self.fired[SILENCE] += 1
                    await self._flowing.wait()
                if not requests and self._losing > 0:
                    self._losing -= 1
                    self.fired[LOST_REPLY] += 1
                    link.reset()
                    return
                if requests and self._cut_after is not None:
                    if len(chunk) >= self._cut_after:
                        writer.write(chunk[: self._cut_after])
                        await writer.drain()
                        self._cut_after = None
                        self.fired[CUT] += 1
                        link.reset()
                        return
                    self._cut_after -= len(chunk)
                writer.write(chunk)
                await writer.drain()
        except (ConnectionError, OSError):
            return
