"""What a worker measures again and again, each time in a thread, because it asks the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
LAST_SECONDS = 15.0
"""How long a last measurement may take when the worker ends."""


Publish = Callable[[], None]
"""Tells what was found. On the event loop, where hosts come and go: what is gone by then is not told of."""


class Measuring:
    """One measurement, every so many seconds: `prepare` is called on the event loop and gives what is done in the thread, which gives
    what is done with the result, where there is something to do."""

    def __init__(
        self, prepare: Callable[[], Callable[[], Publish | None]], *, every: float, first: float, complaint: str
    ) -> None:
        self._prepare = prepare
        self._every = every
        self._first = first
        self._complaint = complaint
        self._under_way: asyncio.Future[Publish | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, with the first measurement after `first` seconds."""
        self._task = asyncio.create_task(self._measure_on())

    def stop(self) -> None:
        """Measures no more; one that is under way goes on."""
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Waits for one that is under way."""
        last = self._under_way
        if last is not None:
            await asyncio.wait({last}, timeout=LAST_SECONDS)
            if last.done() and not last.cancelled():
                last.exception()  # looked at: what a last measurement failed with is nobody's concern

    async def _measure_on(self) -> None:
        await asyncio.sleep(self._first)
        while True:
            try:
                # Shielded: `close` waits for the thread, which would ask a broker in vain that ends after the worker.
                self._under_way = asyncio.get_running_loop().run_in_executor(None, self._prepare())
                publish = await asyncio.shield(self._under_way)
                if publish is not None:
                    publish()
            except TrunklineError as error:
                log.warning(self._complaint, reason=str(error))
            except Exception:
                # One that is not made any more would leave what it told last, for ever.
                log.exception(self._complaint)
            await asyncio.sleep(self._every)
