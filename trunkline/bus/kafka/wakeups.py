"""Threads that may wake up a little late, so that many of them wake up together.

A client has four threads, and each of them looks around at least once a second. With a hundred idle pipelines it is not what they
do then that costs, but that each of them fetches the processor out of its sleep alone.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_PR_SET_TIMERSLACK = 29
"""Linux, prctl(2): by how many nanoseconds the calling thread's waits may end late; 0 for the default. New threads inherit it."""


@contextmanager
def lenient_threads(seconds: float) -> Iterator[None]:
    """What threads that are made within this wait for by the clock may come so much later; what comes from outside wakes them at once.

    Only Linux knows this; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(int(seconds * 1e9)))
    try:
        yield
    finally:
        libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(0))
