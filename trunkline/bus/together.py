"""One answer for all who ask at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """Asks a question that costs much once for all threads that wait for its answer.

    Each gets an answer that was asked for after it came, so it is never older than who asks.
    """

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._turn = threading.Lock()
        self._next: Future[T] | None = None
        """The answer that is not asked for yet."""

    def __call__(self) -> T:
        """The answer. Blocks; raises what asking raises."""
        with self._lock:
            first = self._next is None
            answer = self._next = self._next or Future()
        if first:
            with self._turn:  # the question before ends first
                with self._lock:
                    self._next = None
                try:
                    answer.set_result(self._ask())
                except BaseException as error:  # noqa: BLE001 (raised to all who asked)
                    answer.set_exception(error)
        return answer.result()
