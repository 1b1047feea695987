"""Whether what was refused or held up at its work, and runs again, does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from trunkline.bus.runtime import Runtime

QUIET_SECONDS = 3.0
"""What has nothing to do is taken to work again after so long without a failure."""
IDLE_SECONDS = 15.0
"""The same for what gets no partition and no lease: others have them all."""
LOOK_SECONDS = 0.2


async def proven(runtime: Runtime, paused: Callable[[], bool]) -> None:
    """Returns when what runs has done a piece of its work, or had nothing to do for QUIET_SECONDS. While it is paused nothing is shown."""
    begun, first = time.monotonic(), runtime.report().counts
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        found = runtime.report()
        if (found.counts and not first) or paused():
            begun, first = time.monotonic(), found.counts  # it has partitions, or a lease, from now on
        quiet = time.monotonic() - begun > (QUIET_SECONDS if first else IDLE_SECONDS)
        if not found.untried and not paused() and (quiet or found.counts != first):
            return
