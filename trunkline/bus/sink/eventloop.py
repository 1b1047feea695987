"""The way from a sink's polling thread to the worker's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any


class EventLoop:
    """Has functions run there, in the order in which they were given. From any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls a function, and does not wait for it."""
        self.loop.call_soon_threadsafe(function, *arguments)

    def begin(self, work: Coroutine[Any, Any, None]) -> Future[None]:
        """Begins a coroutine; the future tells when it ended."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)
