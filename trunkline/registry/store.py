"""Where the registry's records are kept: the contract, and a store that lives in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Protocol, TypeVar

from trunkline.registry.changes import UNKNOWN
from trunkline.registry.rules import Decide
from trunkline.registry.state import State

T = TypeVar("T")


class Store(Protocol):
    """Keeps the records and the state that follows from them. Its methods are called from the event loop and never block it."""

    def view(self, ask: Callable[[State], T]) -> T:
        """The answer to a short question; the state must not be kept or changed. May be called from any thread."""

    async def write(self, decide: Decide[T], by: str = UNKNOWN) -> T:
        """Decide on the newest state, keep the records, and answer once `view` sees them. `by` is who asks, for the audit trail.

        `decide` may be called more than once and in a thread, and takes no time: all who write wait for it. Its errors pass through.
        Raises RegistryError 50001 or 50002 where the records can't be kept; a time-out leaves open whether they were.
        """

    async def refresh(self) -> None:
        """Return once `view` sees everything that was kept, by whomever, before this call. Raises RegistryError 50001."""


class MemoryStore:
    """A store that forgets everything when the process ends: for tests, and for `run` without a broker's help."""

    def __init__(self) -> None:
        self._state = State()
        self._lock = threading.Lock()

    def view(self, ask: Callable[[State], T]) -> T:
        """See `Store.view`."""
        with self._lock:
            return ask(self._state)

    async def write(self, decide: Decide[T], by: str = UNKNOWN) -> T:
        """See `Store.write`. It has no trail."""

        def decided() -> T:
            with self._lock:
                records, answer = decide(self._state)
                for record in records:
                    self._state.apply(*record.encoded())
                return answer

        return await asyncio.to_thread(decided)

    async def refresh(self) -> None:
        """See `Store.refresh`."""
