"""An HTTP server that answers after a while, and counts: requests, distinct ids, and how many were in flight at once."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from aiohttp import web


class Counting:
    """The counts since the start."""

    def __init__(self, latency: float) -> None:
        self.latency = latency
        self.requests = self.in_flight = self.peak = 0
        self.ids: set[str] = set()
        self.first = self.last = 0.0
        self.correlated = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Counts a POST; a GET shows the counts."""
        if request.method == "GET":
            return web.json_response(self.as_dict())
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self.first = self.first or time.monotonic()
        try:
            body = json.loads(await request.read())
            if self.latency:
                await asyncio.sleep(self.latency)
        finally:
            self.in_flight -= 1
        self.requests += 1
        self.ids.add(body["id"])
        self.correlated += "X-Correlation-ID" in request.headers
        self.last = time.monotonic()
        return web.Response()

    def as_dict(self) -> dict[str, Any]:
        """The counts as data."""
        return {
            "requests": self.requests,
            "distinct": len(self.ids),
            "peak": self.peak,
            "correlated": self.correlated,
            "seconds": self.last - self.first,
        }


async def main(port: int, latency: float) -> None:
    """Serves until it is ended."""
    runner = web.ServerRunner(web.Server(Counting(latency).handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=512).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
