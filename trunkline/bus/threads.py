"""Threads for what runs as long as a pipeline does. The event loop's own pool is for short calls and has few."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def in_own_thread(function: Callable[[], T], name: str) -> T:
    """Runs `function` in a thread of its own and waits for its result. A cancelled wait leaves the thread to end by itself."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 (raised again where it is waited for)
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    outcome.set_running_or_notify_cancel()
    thread = threading.Thread(target=run, name=name, daemon=True)
    # `start` returns once the new thread has had its turn, which the event loop does not wait for: beside hundreds it takes long.
    await asyncio.shield(asyncio.get_running_loop().run_in_executor(None, thread.start))
    return await asyncio.shield(asyncio.wrap_future(outcome))
