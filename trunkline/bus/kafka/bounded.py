"""Calls of Kafka's client that may never return, ended by a deadline of ours.

`send_offsets_to_transaction` does not keep its time-out: after a connection that was cut and made again within a second it can
wait for the group's coordinator for ever (librdkafka#5456).
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException

GRACE_SECONDS = 2.0
"""For a call that keeps its own time-out."""
OFFSETS_SECONDS = 3.0
"""For the offsets of a transaction, which take a tenth of a second at the most where they are taken. After a sign-in that was refused for
a while they are waited for in vain more often than not, and nothing flows meanwhile."""


@dataclass(slots=True)
class _Call:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    answer: queue.SimpleQueue[BaseException | None] = field(default_factory=queue.SimpleQueue)

    def make(self) -> None:
        try:
            self.function(*self.arguments)
        except BaseException as error:  # noqa: BLE001 (raised again by who asked)
            self.answer.put(error)
        else:
            self.answer.put(None)


class BoundedCalls:
    """Makes calls in a thread of its own, one after another. One that does not end keeps that thread, and the next has a new one.

    To be closed, or used as a context: else the thread stays as long as the process.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[_Call | None] | None = None

    def __call__(self, function: Callable[..., Any], *arguments: Any, seconds: float) -> None:
        """Calls a function. Raises what it raises, and KafkaException (`_TIMED_OUT`) when it has not ended a little after its time:

        then whoever it belongs to is of no use any more, and must be replaced.
        """
        if self._calls is None:
            self._calls = queue.SimpleQueue()
            threading.Thread(target=_make_all, args=(self._calls,), name=self._name, daemon=True).start()
        call = _Call(function, arguments)
        self._calls.put(call)
        try:
            error = call.answer.get(timeout=seconds + GRACE_SECONDS)
        except queue.Empty:
            self.close()
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no answer in {seconds:g} s")) from None  # noqa: SLF001
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread once its call has ended."""
        if self._calls is not None:
            self._calls.put(None)
            self._calls = None


def _make_all(calls: queue.SimpleQueue[_Call | None]) -> None:
    while (call := calls.get()) is not None:
        call.make()
        del call  # it holds a client
