"""An HTTP server on loopback for kits: answers as told, and fails on demand."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that came in, its body read."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Asked], web.Response]


class HttpPeer:
    """The other side of a plug-in that speaks HTTP.

    `answer` makes the answers. Before it is asked, the next of `failures` is taken, or `refused` answers 401, or `hanging` keeps the
    request waiting until the end.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.asked: list[Asked] = []
        self.failures: deque[web.Response] = deque()
        self.refused = False
        self.hanging = False
        self._runner: web.AppRunner | None = None
        self._ended = asyncio.Event()
        self.url = ""

    async def start(self) -> None:
        """Listens on a free port."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends the server and its connections."""
        self._ended.set()  # the server leaves alone what waits for a client that has gone
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fail(self, status: int, *, retry_after: int | None = None) -> None:
        """The next request is answered with this status."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.failures.append(web.Response(status=status, text="failing on demand", headers=headers))

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = Asked(
            request.method,
            request.path,
            dict(request.query),
            {name.lower(): value for name, value in request.headers.items()},
            await request.read(),
        )
        self.asked.append(asked)
        if self.hanging:
            await self._ended.wait()
        if self.failures:
            return self.failures.popleft()
        if self.refused:
            return web.Response(status=401, text="who are you?")
        return self._answer(asked)
