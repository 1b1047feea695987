"""Threads of idle clients wake up together."""

from __future__ import annotations

import ctypes
import sys
import threading

import pytest

from trunkline.bus.kafka.wakeups import lenient_threads

PR_GET_TIMERSLACK = 30


def slack() -> int:
    """Of the calling thread, in nanoseconds."""
    return int(ctypes.CDLL(None).prctl(PR_GET_TIMERSLACK))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets threads be late")
def test_only_threads_that_are_made_within_may_be_late() -> None:
    usual, found = slack(), []
    assert usual < 1_000_000
    with lenient_threads(0.04):
        thread = threading.Thread(target=lambda: found.append(slack()))
        thread.start()
    thread.join()
    other = threading.Thread(target=lambda: found.append(slack()))
    other.start()
    other.join()
    assert found == [40_000_000, usual]
    assert slack() == usual
