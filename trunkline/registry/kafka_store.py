"""The registry's store in Kafka: the topic `_schemas`, written by as many processes as like to.

I-R1: an id is never given to two schemas. Writers share one transactional id, named like the topic. Who has called
`init_transactions` last owns the topic: it reads the topic to its end once, and from then on knows every record, because any
other writer's commit fails. A writer that finds itself fenced becomes owner again, reads to the end, and decides anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import KafkaError, KafkaException

from trunkline.core.errors import UnavailableError
from trunkline.core.log import KafkaClientLog
from trunkline.core.secret import revealed
from trunkline.kafkaclient import Producer
from trunkline.registry import errors
from trunkline.registry.changes import UNKNOWN, Auditor, Change, Extra, changes_of
from trunkline.registry.errors import RegistryError
from trunkline.registry.remade import OtherSchemasError, records_missing
from trunkline.registry.rules import Decide
from trunkline.registry.state import Record, State
from trunkline.registry.topic import Follower, ensure_topic, topic_id

T = TypeVar("T")
log = logging.getLogger("trunkline.registry.kafka")
WATCH_SECONDS: Final = 5.0
"""How often it is looked whether the topic is still the same."""
TOGETHER: Final = 50
"""How many writes that wait share a transaction: one costs some ten milliseconds, whatever it holds."""


class _Asked(NamedTuple):
    """A write that waits for its turn."""

    decide: Decide[Any]
    by: str
    answer: Future[Any]


class _Decided(NamedTuple):
    """What decisions come to, one after another."""

    records: list[Record]
    changes: list[Change]
    answers: list[Any]


def topic_name(namespace: str) -> str:
    """The name of the schemas' topic in a Trunkline namespace; `_schemas`, as everywhere, without one."""
    return f"{namespace}._schemas" if namespace else "_schemas"


class KafkaStore:
    """See `Store`. `options` are those of librdkafka that reach the broker: `bootstrap.servers`, security and the like.

    What an `auditor` makes of the changes is written in their transactions.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        topic: str = "_schemas",
        *,
        timeout: float = 30.0,
        auditor: Auditor | None = None,
    ) -> None:
        self._options = dict(options)
        self._topic = topic
        self._timeout = timeout
        self._auditor = auditor
        self._follower = Follower(self._options, topic)
        self._producer: Producer | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="registry-writer")
        self._asked: deque[_Asked] = deque()
        self._topic_id: str | None = None
        self._refusal: RegistryError | None = None
        """Why nothing is answered any more."""
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Create the topic if need be and read it to its end. Raises ConfigurationError, UnavailableError."""

        def begin() -> None:
            try:
                ensure_topic(self._follower.admin, self._topic, timeout=self._timeout)
                self._follower.start()
                self._follower.catch_up(self._timeout)
                self._topic_id = topic_id(self._follower.admin, self._topic)
            except TimeoutError as error:
                raise UnavailableError(
                    f"the schemas could not be read in {self._timeout:g} s: {error}", code="registry.topic"
                ) from error

        try:
            await asyncio.to_thread(begin)
        except BaseException:
            await self.close()
            raise
        self._watching = asyncio.create_task(self._watch(), name=f"{self._topic} watch")

    async def close(self) -> None:
        """End what runs, after the write that is under way."""

        if self._watching is not None:
            self._watching.cancel()

        def end() -> None:
            self._writer.shutdown(wait=True, cancel_futures=True)
            while self._asked:
                self._asked.popleft().answer.cancel()
            self._producer = None
            self._follower.stop()

        await asyncio.to_thread(end)

    def view(self, ask: Callable[[State], T]) -> T:
        """See `Store.view`."""
        if self._refusal is not None:
            raise self._refusal
        return self._follower.view(ask)

    async def refresh(self) -> None:
        """See `Store.refresh`."""
        try:
            await asyncio.to_thread(self._follower.catch_up, self._timeout)
        except (UnavailableError, TimeoutError) as error:
            raise _store_failed(error) from error

    async def write(self, decide: Decide[T], by: str = UNKNOWN) -> T:
        """See `Store.write`."""

        asked = _Asked(decide, by, Future())
        self._asked.append(asked)
        self._writer.submit(self._write_asked)
        return await asyncio.wrap_future(asked.answer)

    def _write_asked(self) -> None:
        """Writes what waits, in one transaction, and answers each on its own."""
        asked = [self._asked.popleft() for _ in range(min(TOGETHER, len(self._asked)))]
        asked = [one for one in asked if one.answer.set_running_or_notify_cancel()]
        if not asked:
            return  # those before took it along
        try:
            if self._refusal is not None:
                raise self._refusal
            answers = self._write_together(asked)
        except RegistryError as error:
            if len(asked) == 1 or error is self._refusal:
                for one in asked:
                    one.answer.set_exception(error)
                return
            # One that can't be kept, such as a record that is too large, takes no other with it.
            answers = [self._write_alone(one) for one in asked]
        except BaseException as error:  # noqa: BLE001 (told to who asked: nobody looks at what this function raises)
            answers = [error for _ in asked]
        for one, answer in zip(asked, answers, strict=True):
            if isinstance(answer, BaseException):
                one.answer.set_exception(answer)
            else:
                one.answer.set_result(answer)

    def _write_alone(self, asked: _Asked) -> Any:
        try:
            return self._write_together([asked])[0]
        except RegistryError as error:
            return error

    def _write(self, decide: Decide[T]) -> T:
        answer = self._write_together([_Asked(decide, UNKNOWN, Future())])[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer  # type: ignore[no-any-return]

    def _write_together(self, asked: Sequence[_Asked]) -> list[Any]:
        """Decides one after another, each on what those before it decided, and keeps all their records in one transaction.

        The answer of a decision that raised is what it raised. Raises RegistryError where the records can't be kept.
        """
        decided = _decided(asked, self._follower.view(State.copy))
        if not decided.records and not any(isinstance(answer, RegistryError) for answer in decided.answers):
            return decided.answers
        # What was refused may have been decided on what is old: it is asked again, of the newest state.
        deadline = time.monotonic() + self._timeout
        attempt = 0
        while True:
            try:
                producer = self._own(deadline)
                decided = _decided(asked, self._follower.view(State.copy))
                if not decided.records:
                    return decided.answers
                self._follower.await_record(*decided.records[-1].encoded())
                told = self._auditor.records(decided.changes) if self._auditor is not None else ()
                _commit(producer, self._topic, decided.records, told, deadline)
            except KafkaException as error:
                self._give_up_ownership(error, deadline)
                attempt += 1
                time.sleep(random.uniform(0, min(0.05 * 2**attempt, 0.8)))  # noqa: S311 (jitter between two writers)
                continue
            except (UnavailableError, TimeoutError) as error:
                self._producer = None
                raise _store_failed(error) from error
            try:
                self._follower.wait_for_record(deadline - time.monotonic())
            except (UnavailableError, TimeoutError) as error:
                raise _store_failed(error) from error
            return decided.answers

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            try:
                await self.look()
            except (UnavailableError, TimeoutError, KafkaException, RegistryError) as error:
                log.debug("%s can't be looked at: %s", self._topic, error)
            except Exception:
                log.exception("the watch over %s broke; it goes on", self._topic)

    async def look(self) -> None:
        """Looks whether the topic is still the one that was read, and where it was deleted or made anew brings back what it had.

        librdkafka does not notice a topic that was made anew (its issue 4898).
        """
        # In the writer's thread, so that nobody writes meanwhile.
        await asyncio.get_running_loop().run_in_executor(self._writer, self._look)

    def _look(self) -> None:
        found = topic_id(self._follower.admin, self._topic)
        if found is not None and found == self._topic_id:
            return
        ensure_topic(self._follower.admin, self._topic, timeout=self._timeout)
        deadline = time.monotonic() + self._timeout
        while (found := topic_id(self._follower.admin, self._topic)) is None:
            # Right after its creation not every broker knows the topic.
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        if found == self._topic_id:
            return
        before, fresh = self._follower, Follower(self._options, self._topic)
        known = before.view(State.copy)

        def decide(state: State) -> tuple[list[Record], int]:
            missing = records_missing(known, state)
            return missing, len(missing)

        self._producer = None
        try:
            fresh.start()
            fresh.catch_up(self._timeout)
            self._follower = fresh
            written = self._write(decide)
        except BaseException as error:
            self._follower = before  # it knows what there was
            fresh.stop()
            if not isinstance(error, OtherSchemasError):
                raise
            self._refuse(error)
            return
        before.stop()
        self._topic_id, self._refusal = found, None
        log.warning("the topic %s was deleted and made anew: %d records were written back", self._topic, written)

    def _refuse(self, error: OtherSchemasError) -> None:
        """What ids mean is not certain any more. Schemas that are known already go on to be used where they are."""
        if self._refusal is None:
            log.error(
                "the topic %s was deleted and made anew, and has other schemas under ids that were given before: %s. Nothing is "
                "answered until the former topic is back, or this worker begins anew",
                self._topic,
                error,
            )
        self._refusal = RegistryError(
            errors.STORE_FAILED,
            f"The topic {self._topic} was deleted and made anew, and has other schemas under ids that were given before: {error}",
        )

    def _own(self, deadline: float) -> Producer:
        if self._producer is None:
            producer = Producer(
                {
                    **revealed(self._options),
                    "transactional.id": self._topic,
                    "transaction.timeout.ms": 10_000,
                    "acks": "all",
                    "enable.idempotence": True,
                    "linger.ms": 0,
                    # Its default of 100 ms is waited out in every transaction.
                    "retry.backoff.ms": 5,
                    "log_level": 0,  # what fails is raised
                },
                logger=KafkaClientLog(log),
            )
            # The coordinator is looked up at once where a broker is known already, and after half a second otherwise.
            producer.list_topics(self._topic, timeout=max(0.1, deadline - time.monotonic()))
            producer.init_transactions(max(0.1, deadline - time.monotonic()))
            self._follower.catch_up(max(0.1, deadline - time.monotonic()))
            if self._auditor is not None:
                self._auditor.begin()
            self._producer = producer
        return self._producer

    def _give_up_ownership(self, error: KafkaException, deadline: float) -> None:
        if self._producer is not None:
            self._producer.purge()
        self._producer = None
        cause = error.args[0]
        if time.monotonic() >= deadline or cause.code() in _HOPELESS:
            timed_out = cause.code() not in _HOPELESS
            raise RegistryError(
                errors.STORE_TIMED_OUT if timed_out else errors.STORE_FAILED,
                f"The schema store could not be written: {cause.str()}",
            ) from error


def _decided(asked: Sequence[_Asked], state: State) -> _Decided:
    """The records of all decisions with what they change, and the answer of each, or what it raised. `state` follows them."""
    records: list[Record] = []
    changes: list[Change] = []
    answers: list[Any] = []
    for one in asked:
        try:
            made, answer = one.decide(state)
            told = changes_of(state, made, one.by)
            for key, value in [record.encoded() for record in made]:
                state.apply(key, value)
        except Exception as error:  # noqa: BLE001 (given to who asked)
            answers.append(error)
            continue
        changes += told
        records += made
        answers.append(answer)
    return _Decided(records, changes, answers)


def _commit(producer: Producer, topic: str, records: Sequence[Record], told: Sequence[Extra], deadline: float) -> None:
    """Write the records, and what the audit trail tells of them, in one transaction. Raises KafkaException.

    There are no delivery callbacks: of records in a transaction the commit says it all, and confluent-kafka raises a fatal
    error (being fenced) into the middle of a callback.
    """
    producer.begin_transaction()
    for record in records:
        key, value = record.encoded()
        producer.produce(topic, value, key, partition=0)
    for one in told:
        producer.produce(one.topic, one.value, one.key, partition=one.partition)
    producer.commit_transaction(max(0.1, deadline - time.monotonic()))


def _store_failed(error: Exception) -> RegistryError:
    number = errors.STORE_TIMED_OUT if isinstance(error, TimeoutError) else errors.STORE_FAILED
    return RegistryError(number, f"Error in the backend data store: {error}")


_HOPELESS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
    }
)
