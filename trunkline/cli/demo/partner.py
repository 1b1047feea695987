"""The partner's system: an HTTP server on loopback that takes delays, checks their signatures, and is down for a while at first."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
from aiohttp import web

from trunkline.cli.demo.airline import signature

OUTAGE_SECONDS = 2.5
"""The breaker probes 1 and 3 seconds after it opened: the first probe is refused, the second gets through."""


class Partner:
    """Keeps the delays by flight. `effects` counts how often each was taken, `refused` the requests during the outage."""

    def __init__(self, secret: str, say: Callable[[str], None]) -> None:
        self.delays: dict[str, Any] = {}
        self.correlations: dict[str, str] = {}
        self.effects: Counter[str] = Counter()
        self.refused = 0
        self.forged = 0
        self.url = ""
        self._secret = secret
        self._say = say
        self._up_at: float | None = None
        self._is_up = False
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        app = web.Application()
        app.router.add_put("/delays/{key}", self._put)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends the server and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _put(self, request: web.Request) -> web.Response:
        if not self._up():
            self.refused += 1
            return web.json_response({"error": "maintenance"}, status=503)
        body = await request.read()
        identity, stamp = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        expected = signature(self._secret, identity, stamp, body)
        if not hmac.compare_digest(expected, request.headers.get("webhook-signature", "")):
            self.forged += 1
            return web.json_response({"error": "bad signature"}, status=401)
        key = request.match_info["key"]
        self.delays[key] = orjson.loads(body)
        self.correlations[key] = request.headers.get("x-correlation-id", "")
        self.effects[key] += 1
        return web.json_response({"id": key}, status=201, headers={"Location": f"/delays/{key}"})

    def _up(self) -> bool:
        if self._up_at is None:
            loop = asyncio.get_running_loop()
            self._up_at = loop.time() + OUTAGE_SECONDS
            loop.call_at(self._up_at, self._come_back)
            self._say(
                f"the partner's API is down for {OUTAGE_SECONDS:g} s: it answers 503, the sink backs off, then only probes"
            )
        return self._is_up

    def _come_back(self) -> None:
        self._is_up = True
        self._say(
            f"the partner's API is back after {self.refused} refusals: at the next probe, the sink goes on where it was"
        )
