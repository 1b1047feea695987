"""Threads that judge schemas beside the event loop and beside who writes, for as long as somebody waits for the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from aiohttp import web

from trunkline.registry.errors import RegistryError
from trunkline.registry.steps import AbandonedError, Steps

T = TypeVar("T")
AT_ONCE: Final = 2
MAX_WAITING: Final = 200
"""Requests that wait for a thread: each holds a body."""
_LOOK_SECONDS: Final = 0.2
"""How often it is looked whether the client is still there."""


class Judges:
    """The threads of one registry. Threads of their own, because a schema takes one for seconds at worst and other rooms need theirs."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="registry-judge")
        self._under_way: set[Steps] = set()
        self._closed = False

    async def judge(self, request: web.Request, steps: Steps, work: Callable[[], T]) -> T:
        """What `work` returns or raises. It counts `steps`, and ends at the next one when the client has gone away.

        Raises AbandonedError then, and after `close`, and RegistryError 503 where too many wait already.
        """
        if self._closed:
            raise AbandonedError
        if len(self._under_way) >= MAX_WAITING:
            raise RegistryError(503, f"{MAX_WAITING} schemas wait to be judged: try again later")
        self._under_way.add(steps)
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        try:
            while not future.done():
                if _is_gone(request):
                    raise AbandonedError
                await asyncio.wait({future}, timeout=_LOOK_SECONDS)
            return future.result()
        finally:
            self._under_way.discard(steps)
            if not future.done():
                steps.abandon()
                future.cancel()

    def close(self) -> None:
        """Ends what is under way, and takes nothing more."""
        self._closed = True
        for steps in self._under_way:
            steps.abandon()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
