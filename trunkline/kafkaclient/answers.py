"""Waiting for what an administrator's client was asked."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

T = TypeVar("T")
_GRACE_SECONDS: Final = 2.0
"""The client ends a question at its own time-out, which it looks at now and then: it should be the one that says so."""


def answered(future: Future[T], seconds: float) -> T:
    """The answer to a question whose request may take so long.

    Raises KafkaException also where none comes in time: a bare TimeoutError would pass by everybody who expects Kafka's errors.
    """
    try:
        return future.result(seconds + _GRACE_SECONDS)
    except TimeoutError:
        error = KafkaError(KafkaError._TIMED_OUT, f"no answer in {seconds:g} s")  # noqa: SLF001 (it has no other name)
        raise KafkaException(error) from None
