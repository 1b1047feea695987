"""Writing records: producers made when needed, records handed over with patience, records waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from trunkline.bus.kafka.errors import translate
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.core.envelope import WireHeaders
from trunkline.core.errors import RetriableError, TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)
QUEUE_SECONDS = 30.0
REST_SECONDS = 60.0
"""A pipeline that wrote nothing for so long gives its producer up until there is something to write: the threads of a client that does
nothing still wake several times a second, which is most of what idle pipelines cost."""
_SETTLED_SECONDS = 0.05
"""Measured: asked 30 ms after it was made, half of the producers wait for the half second, and after 50 ms none does."""
_COORDINATORS = "__transaction_state"
"""A topic that every cluster has where there are transactions: nothing is learned from it."""
UNUSED_SECONDS = 5.0
"""The same for a producer that was not used yet: it was made to settle what a former life of the pipeline left open."""


def transactional_producer(
    settings: KafkaSettings,
    transactional_id: str,
    what: str = "the transactional producer can't start",
    *,
    timeout: float = 30.0,
    linger_ms: int = 5,
    only_failures: bool = False,
) -> Producer:
    """A producer that may begin transactions: whoever had the id is fenced, and what it left open has ended.

    Raises our error, which begins with `what`.
    """
    producer = settings.producer(transactional_id=transactional_id, linger_ms=linger_ms, only_failures=only_failures)
    try:
        # Where it knows a broker, and is not asked too soon, the client finds the coordinator at once; else it looks again after half a
        # second.
        made = time.monotonic()
        producer.list_topics(_COORDINATORS, timeout=timeout)
        time.sleep(max(0.0, made + _SETTLED_SECONDS - time.monotonic()))
        producer.init_transactions(timeout)
    except KafkaException as error:
        raise translate(error, what) from error
    return producer


class LazyProducer:
    """An idempotent producer that is made with its first record: most pipelines seldom write what is not their output.

    Used like a `Producer`. A client costs threads and connections as long as it is there.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: Producer | None = None

    def produce(self, *arguments: Any, **named: Any) -> None:
        """As `Producer.produce`."""
        with self._lock:
            if self._made is None:
                self._made = self._settings.producer()
        self._made.produce(*arguments, **named)

    def poll(self, timeout: float) -> int:
        """As `Producer.poll`; waits for the whole `timeout` where there is nothing to be told of yet."""
        if self._made is not None:
            return self._made.poll(timeout)
        if timeout:
            time.sleep(timeout)
        return 0

    def flush(self, timeout: float) -> int:
        """As `Producer.flush`."""
        return self._made.flush(timeout) if self._made is not None else 0


TOLD_SECONDS = 0.2
"""How often a producer whose records nobody waits for hears what became of them, while it writes."""


class UnawaitedProducer:
    """Writes records whose arrival nobody waits for: what does not arrive is written again later in a newer form.

    That it does not arrive is in the log, once a cause. Made with its first record, and anew after an error that ends it. May be
    used by several threads.
    """

    def __init__(self, settings: KafkaSettings, *, linger_ms: int = 5) -> None:
        self._settings, self._linger_ms = settings, linger_ms
        self._lock = threading.Lock()
        self._made: Producer | None = None
        self._polled = 0.0

    def write(self, topic: str, value: bytes | None, key: bytes) -> None:
        """Hands a record over. Raises nothing of Kafka's."""
        try:
            producer = self.producer()
            producer.produce(topic, value, key, on_delivery=self._delivered)
            now = time.monotonic()
            if now - self._polled > TOLD_SECONDS:
                # Not at each record: a poll lets go of the interpreter, and beside hundreds of threads it comes back late.
                self._polled = now
                producer.poll(0)
        except BufferError:
            self._settings.report(KafkaError(KafkaError._QUEUE_FULL), about=topic)  # noqa: SLF001 (it has no other name)
        except KafkaException as error:
            self._failed(error.args[0], topic)
        except TrunklineError as error:  # it could not be made
            log.warning("nothing can be written", topic=topic, reason=str(error), code=error.code)

    def producer(self) -> Producer:
        """The producer, for what is waited for."""
        with self._lock:
            if self._made is None:
                self._made = self._settings.producer(linger_ms=self._linger_ms)
            return self._made

    def flush(self, timeout: float) -> None:
        """Waits for what is under way."""
        if self._made is not None:
            self._made.flush(timeout)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed(error, message.topic() or "")

    def _failed(self, error: KafkaError, topic: str) -> None:
        self._settings.report(error, about=topic)
        if error.fatal() or error.code() == KafkaError._FATAL:  # noqa: SLF001
            self._made = None


class RestingProducer:
    """A producer that a pipeline gives up while it has nothing to write, and makes again when it has.

    Belongs to the thread that writes. With a transactional id that another worker may have by then, who makes one again has to look
    whether it still may write.
    """

    def __init__(self, make: Callable[[], Producer]) -> None:
        self._make = make
        self._there: Producer | None = None
        self._rests_at = 0.0

    @property
    def current(self) -> Producer:
        """The one that is in use."""
        assert self._there is not None
        return self._there

    @property
    def resting(self) -> bool:
        """Whether there is none."""
        return self._there is None

    def renew(self) -> None:
        """Makes one now, in place of the one that is there. Raises what making it does."""
        self._there = None
        self._there = self._make()
        self._rests_at = time.monotonic() + UNUSED_SECONDS

    def use(self) -> Producer:
        """The producer, to write with now. Raises what making it does."""
        if self._there is None:
            self.renew()
        self._rests_at = time.monotonic() + REST_SECONDS
        return self.current

    @property
    def due(self) -> bool:
        """Whether it was not used for so long that `rest` gives it up."""
        return self._there is not None and time.monotonic() > self._rests_at

    def rest(self) -> None:
        """Gives it up after a long time without use. Nothing may be under way."""
        if self.due:
            self._there = None


def produce(
    producer: Producer | LazyProducer,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    headers: WireHeaders,
    *,
    partition: int = -1,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
) -> None:
    """Hands a record to the producer, and waits for room where its queue is full: the broker is slower than we are.

    Raises KafkaException, and `RetriableError` when there is no room for QUEUE_SECONDS.
    """
    pairs = cast("list[tuple[str, str | bytes | None]]", headers)
    deadline: float | None = None
    while True:
        try:
            if on_delivery is None:
                producer.produce(topic, value, key, partition, headers=pairs)
            else:
                producer.produce(topic, value, key, partition, headers=pairs, on_delivery=on_delivery)
            return
        except BufferError:
            now = time.monotonic()
            deadline = deadline or now + QUEUE_SECONDS
            if now > deadline:
                raise RetriableError(f"the queue to {topic} stays full", code="kafka.unavailable") from None
            producer.poll(0.1)


def produce_and_wait(
    producer: Producer,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    timeout: float = 30.0,
    *,
    partition: int = -1,
) -> None:
    """Writes one record and waits until every replica has it. Raises our error for Kafka's."""
    produce_all_and_wait(producer, topic, [(value, key)], timeout, partition=partition)


def produce_all_and_wait(
    producer: Producer,
    topic: str,
    records: Sequence[tuple[bytes | None, bytes | None]],
    timeout: float = 30.0,
    *,
    partition: int = -1,
) -> None:
    """Writes records, each a value and a key, and waits until every replica has all of them. Raises our error for Kafka's."""
    outcomes: list[KafkaError | None] = []
    try:
        for value, key in records:
            producer.produce(topic, value, key, partition, lambda error, _message: outcomes.append(error))
    except KafkaException as error:
        raise translate(error, f"{topic} can't be written") from error
    left = producer.flush(timeout)
    if left or len(outcomes) < len(records):
        raise RetriableError(
            f"{topic} can't be written: no acknowledgement within {timeout:g} s", code="kafka.unavailable"
        )
    for outcome in outcomes:
        if outcome is not None:
            raise translate(outcome, f"{topic} can't be written")
