"""The sender of the latency benchmark: requests at a fixed rate over a few persistent connections, pipelined by none of them.

Written on plain sockets, because a client that costs as much as the server would measure itself: on two cores they compete.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.parse
import uuid
from typing import Protocol, cast

CONNECTIONS = 32
KEY = "latency-benchmark"


class Answered(Protocol):
    """Who is told what becomes of requests."""

    def answered(self, line: Line, status: int) -> None:
        """The request of this connection was answered."""

    def lost(self, line: Line, error: Exception | None) -> None:
        """A connection ended."""


def head_of(url: str) -> bytes:
    """A request up to the number of its body's bytes."""
    parts = urllib.parse.urlsplit(url)
    return (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nX-Key: {KEY}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    ).encode()


class Line(asyncio.Protocol):
    """One connection: a request at a time; what comes due meanwhile goes by another one, or waits."""

    def __init__(self, sender: Answered) -> None:
        self._sender = sender
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        length = int(lower[at:].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self._buffer = body[length:]
            self._sender.answered(self, int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._sender.lost(self, exc)


class Sender:
    """Sends `count` events at `rate` a second to a URL."""

    def __init__(self, url: str, rate: int, count: int) -> None:
        parts = urllib.parse.urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._head = head_of(url)
        self._rate, self._count = rate, count
        self._run = uuid.uuid4().hex[:8]
        self._free: list[Line] = []
        self._due: list[bytes] = []
        self._open = 0
        self._refused: dict[int, int] = {}
        self._done = asyncio.Event()
        self._ending = False

    async def run(self) -> None:
        """Sends everything and waits for the answers. Raises SystemExit when one was no 202."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, line = await loop.create_connection(lambda: Line(self), self._host, self._port)
            self._free.append(line)
        begun = time.time()
        sent = 0
        while sent < self._count:
            now = time.time()
            while sent < self._count and begun + sent / self._rate <= now:
                self._event(sent, begun + sent / self._rate)
                sent += 1
            await asyncio.sleep(max(0.0, begun + sent / self._rate - time.time()))
        while self._open or self._due:
            self._done.clear()
            await self._done.wait()
        self._ending = True
        for line in self._free:
            line.transport.close()
        if self._refused:
            raise SystemExit(f"refused: {self._refused}")

    def _event(self, number: int, due: float) -> None:
        body = json.dumps({"id": f"{self._run}-{number}", "customer": f"c{number % 1000}", "due": due}).encode()
        self._due.append(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)
        self._go()

    def _go(self) -> None:
        while self._due and self._free:
            self._open += 1
            self._free.pop().transport.write(self._due.pop(0))

    def answered(self, line: Line, status: int) -> None:
        """A connection is free again."""
        self._open -= 1
        if status != 202:
            self._refused[status] = self._refused.get(status, 0) + 1
        self._free.append(line)
        self._go()
        self._done.set()

    def lost(self, line: Line, error: Exception | None) -> None:
        """A connection that is lost in the middle ends the measurement. One that had nothing to do for long may be closed."""
        if line in self._free:
            self._free.remove(line)
        elif not self._ending:
            raise SystemExit(f"the connection was lost: {error}")


async def main(url: str, rate: int, seconds: int) -> None:
    """Sends for some seconds."""
    await Sender(url, rate, rate * seconds).run()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
