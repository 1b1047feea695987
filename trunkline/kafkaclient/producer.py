"""A producer that tells why it can't go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException


class Producer(confluent_kafka.Producer):
    """A producer whose fatal error reaches the caller as `KafkaException`.

    The client sets a fatal error, as of a producer that was fenced, from within a call that serves callbacks, and calls more of them,
    of the log or of deliveries, before it returns (confluent-kafka 2.16, `error_cb` in `confluent_kafka.c`). Python finds an error
    set where none may be, and puts `SystemError` in its place: a defect, where somebody else merely wrote under the same id.
    """

    def poll(self, timeout: float = -1) -> int:
        """As the client's."""
        served: int = _plain(super().poll, timeout)
        return served

    def flush(self, timeout: float = -1) -> int:
        """As the client's."""
        left: int = _plain(super().flush, timeout)
        return left

    def commit_transaction(self, timeout: float = -1) -> None:
        """As the client's, which flushes first."""
        _plain(super().commit_transaction, timeout)

    def abort_transaction(self, timeout: float = -1) -> None:
        """As the client's, which flushes first."""
        _plain(super().abort_transaction, timeout)


def _plain(call: Callable[..., Any], timeout: float) -> Any:
    try:
        return call(timeout)
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from None
        # What it was is lost. Each further call says it, as the state of a fatal error stays.
        fatal = KafkaError(KafkaError._FATAL, "the producer can't go on, and was not told why", True)  # noqa: SLF001
        raise KafkaException(fatal) from error
