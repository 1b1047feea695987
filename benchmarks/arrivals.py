"""The receiver of the latency benchmark: notes when each event came, and tells the percentiles when all are there."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from aiohttp import web

PATIENCE = 60.0


class Arrivals:
    """The first arrival of each event since the last time that they were forgotten."""

    def __init__(self) -> None:
        self._latencies: dict[str, float] = {}
        self._repeated = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Notes a POST; a GET waits for as many as `expected` and tells about them."""
        if request.method == "GET":
            return await self._tell(int(request.query["expected"]), forget="forget" in request.query)
        now = time.time()
        event = json.loads(await request.read())
        if event["id"] in self._latencies:
            self._repeated += 1
        else:
            self._latencies[event["id"]] = now - event["due"]
        return web.Response()

    async def _tell(self, expected: int, *, forget: bool) -> web.Response:
        deadline = time.monotonic() + PATIENCE
        while len(self._latencies) < expected and time.monotonic() < deadline:  # noqa: ASYNC110 (one look in 50 ms costs the events nothing)
            await asyncio.sleep(0.05)
        ordered = sorted(self._latencies.values())
        found = {f"p{share}": 1000 * ordered[len(ordered) * share // 100] for share in (50, 95, 99)} if ordered else {}
        if forget:
            self._latencies.clear()
        return web.json_response({**found, "distinct": len(ordered), "repeated": self._repeated})


async def main(port: int) -> None:
    """Serves until it is ended."""
    runner = web.ServerRunner(web.Server(Arrivals().handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=512).start()
    print("listening", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(int(sys.argv[1])))
