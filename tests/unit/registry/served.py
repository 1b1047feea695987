"""A registry served over HTTP for tests, which counts requests, wants a password, and can be out of order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from trunkline.registry.service import registry_app
from trunkline.registry.store import MemoryStore

T = TypeVar("T")
FAST = {"max.retries": 0}


class Answering:
    """A store in front of one that can be replaced."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Registry:
    """A registry under a path of a server that counts requests, wants a password, and can be out of order."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self._answering = Answering(self.store)
        self.requests = 0
        self.out_of_order: int | None = None
        self.password: str | None = None
        self.hook: Any = None
        """What answers in place of `watch`."""

    async def start(self) -> str:
        outer = web.Application(middlewares=[self.watch])
        outer.add_subapp("/registry", registry_app(self._answering))
        self.runner = web.AppRunner(outer)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/registry"

    def answers_with(self, store: MemoryStore) -> None:
        """Another store stands behind the same URL from now on."""
        self._answering.store = store

    @web.middleware
    async def watch(self, request: web.Request, handler: Any) -> Any:
        if self.hook is not None:
            hook, self.hook = self.hook, None
            try:
                return await hook(request, handler)
            finally:
                self.hook = hook
        self.requests += 1
        if self.out_of_order:
            raise _status(self.out_of_order)
        if self.password and request.headers.get("Authorization") != self.password:
            raise web.HTTPUnauthorized
        return await handler(request)


def _status(status: int) -> web.HTTPException:
    found = {500: web.HTTPInternalServerError, 503: web.HTTPServiceUnavailable, 404: web.HTTPNotFound, 429: None}[
        status
    ]
    return found() if found else web.HTTPTooManyRequests()


async def apart(call: Callable[..., T], *args: Any) -> T:
    return await asyncio.to_thread(call, *args)
