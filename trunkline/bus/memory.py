"""The memory of a worker: one number, divided among everything that fills up when something downstream is slow.

What can grow are queues: records fetched and not yet taken, records written and not yet acknowledged, records that a sink
holds, bodies of requests that wait for the broker. Each has a share, and each one that is full holds back what fills it: a
consumer fetches no more, a source or stream waits, a sink reads no more, a sender gets 503.
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass

MIB = 2**20
DEFAULT_MEMORY = 1024 * MIB
LEAST_MEMORY = 256 * MIB
BASE = 160 * MIB
"""The interpreter, its libraries, schemas and compiled expressions."""
OF_A_PIPELINE = MIB
LARGEST_RECORD = 32 * MIB
ARENAS = 4
_M_ARENA_MAX = -8  # malloc.h of glibc


@dataclass(frozen=True, slots=True)
class Shares:
    """What each part may hold, in bytes."""

    fetched: int = 32 * MIB
    """A consumer's queue."""
    unsent: int = 256 * MIB
    """A producer's queue; never smaller than the largest record, which would not fit into it for ever."""
    held: int = 64 * MIB
    """Records that one sink holds, as they came; decoded they take several times that."""
    bodies: int = 64 * MIB
    """Bodies of all requests that are being read or wait for the broker."""


def divide(memory: int, *, readers: int, sinks: int, writers: int) -> Shares:
    """The shares of `readers` streams and sinks, of them `sinks` sinks, and `writers` pipelines that write, in `memory` bytes.

    Of what the base leaves, a quarter is for fetched records, three tenths for those on their way to the broker, three tenths
    for what sinks hold (counted four times, for the decoded values), and the rest for requests (counted twice).
    """
    free = max(memory - BASE - OF_A_PIPELINE * (readers + writers), memory // 4)
    most = Shares()
    return Shares(
        fetched=_between(MIB // 2, free * 25 // 100 // max(readers, 1), most.fetched),
        unsent=_between(LARGEST_RECORD, free * 30 // 100 // max(writers, 1), most.unsent),
        held=_between(MIB // 4, free * 30 // 100 // (4 * max(sinks, 1)), most.held),
        bodies=_between(MIB, free * 15 // 100 // 2, most.bodies),
    )


def _between(least: int, wanted: int, most: int) -> int:
    return max(least, min(wanted, most))


def few_arenas() -> None:
    """Has glibc's malloc use a few arenas: with one for each of hundreds of threads, each keeps what its busiest moment took.

    Only for the threads that start from now on; where there is no glibc, nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, ARENAS)
