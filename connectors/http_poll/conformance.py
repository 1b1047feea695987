"""The conformance of the `http_poll` source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from connectors.http_poll.source import HttpPollSource
from trunkline.core.contracts import SourceEvent
from trunkline.core.testing import SourceKit, source_suite
from trunkline.core.testing.peer import Asked, HttpPeer


class HttpPollKit(SourceKit):
    """An API that gives the items at or after a number, two a page."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._items: list[Any] = []
        self._count = 0
        self._peer = HttpPeer(self._answer)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"CONFORMANCE_TOKEN": "conformance-bearer-token-7391"}

    @property
    def config(self) -> Any:
        return {
            "path": "/items",
            "items": "data",
            "pagination": {"type": "offset", "size": 2},
            "incremental": {"field": "number"},
            "interval": "10s",
        }

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

    async def happen(self, count: int) -> None:
        for _ in range(count):
            self._items.append({"number": self._count})
            self._count += 1

    def number(self, event: SourceEvent) -> int:
        return int(event.value["number"])

    async def happen_badly(self) -> None:
        self._items.append("no object")

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
        since = int(asked.query.get("since", 0))
        found = [item for item in self._items if not isinstance(item, dict) or item["number"] >= since]
        offset = int(asked.query["offset"])
        return web.json_response({"data": found[offset : offset + int(asked.query["limit"])]})


TestHttpPollSource = source_suite(HttpPollSource, factory=HttpPollKit)
