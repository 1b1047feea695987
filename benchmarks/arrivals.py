"""The receiver of the latency benchmark: notes when each event came, and tells the percentiles when all are there.

Written on plain sockets, as the sender is: what it costs is missing to what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.parse
from typing import cast

PATIENCE = 60.0
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Arrivals:
    """The first arrival of each event since the last time that they were forgotten."""

    def __init__(self) -> None:
        self._latencies: dict[str, float] = {}
        self._repeated = 0

    def note(self, body: bytes, at: float) -> None:
        """Notes an event that came at that time."""
        event = json.loads(body)
        if event["id"] in self._latencies:
            self._repeated += 1
        else:
            self._latencies[event["id"]] = at - event["due"]

    async def tell(self, expected: int, *, forget: bool) -> bytes:
        """Waits for as many as `expected`, and tells about them."""
        deadline = time.monotonic() + PATIENCE
        while len(self._latencies) < expected and time.monotonic() < deadline:  # noqa: ASYNC110 (one look in 50 ms costs the events nothing)
            await asyncio.sleep(0.05)
        ordered = sorted(self._latencies.values())
        found = {f"p{share}": 1000 * ordered[len(ordered) * share // 100] for share in (50, 95, 99)} if ordered else {}
        if forget:
            self._latencies.clear()
        return json.dumps({**found, "distinct": len(ordered), "repeated": self._repeated}).encode()


class _Line(asyncio.Protocol):
    """One connection: a POST is noted, a GET is told about them all."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._buffer = b""
        self._telling: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        at = time.time()
        self._buffer += data
        while True:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if head.startswith(b"GET "):
                self._buffer = rest
                self._telling = asyncio.ensure_future(self._tell(head.split(b" ", 2)[1].decode()))
                continue
            lower = head.lower()
            place = lower.index(b"content-length:") + 15
            length = int(lower[place:].split(b"\r\n", 1)[0])
            if len(rest) < length:
                return
            self._arrivals.note(rest[:length], at)
            self._buffer = rest[length:]
            self._transport.write(ANSWER % (0, b""))

    async def _tell(self, path: str) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(path).query)
        told = await self._arrivals.tell(int(query["expected"][0]), forget="forget" in query)
        self._transport.write(ANSWER % (len(told), told))


async def main(port: int) -> None:
    """Serves until it is ended."""
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(lambda: _Line(arrivals), "127.0.0.1", port, backlog=512)
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
