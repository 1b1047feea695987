"""The conformance of the `http` sink."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiohttp import web

from sinks.http.sink import HttpSink
from trunkline.core.testing import SinkKit, sink_suite
from trunkline.core.testing.peer import Asked, HttpPeer


class HttpSinkKit(SinkKit):
    """An endpoint that honours idempotency keys."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._effects: dict[str, int] = {}
        self._peer = HttpPeer(self._answer)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"CONFORMANCE_TOKEN": "conformance-bearer-token-7391"}

    @property
    def config(self) -> Any:
        return {"url": "/records/{{ event.number }}", "idempotent": True}

    @property
    def connection(self) -> dict[str, Any]:
        return {
            "base_url": self._peer.url,
            "auth": {"type": "bearer", "token": "${env:CONFORMANCE_TOKEN}"},
            "http": {"allow_private": ["127.0.0.1"]},
        }

    async def start(self) -> None:
        await self._peer.start()

    async def stop(self) -> None:
        await self._peer.stop()

    def value(self, number: int) -> Any:
        return {"number": number, "good": True}

    def bad_value(self) -> Any:
        return {"number": 99, "good": False}

    async def arrived(self) -> Sequence[int]:
        return list(self._effects.values())

    async def break_down(self) -> None:
        self._peer.fail(503)

    async def throttle(self) -> float:
        self._peer.fail(429, retry_after=7)
        return 7

    async def refuse(self) -> None:
        self._peer.refused = True

    async def hang(self) -> None:
        self._peer.hanging = True

    def _answer(self, asked: Asked) -> web.Response:
        value = json.loads(asked.body)
        if not value["good"]:
            return web.json_response({"error": "not good"}, status=422)
        self._effects[asked.headers["idempotency-key"]] = value["number"]
        return web.json_response({}, status=201)


TestHttpSink = sink_suite(HttpSink, factory=HttpSinkKit)
