"""The registry's topic: created if it is missing, refused if it would lose schemas, followed by one thread."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from trunkline.core.errors import ConfigurationError, UnavailableError
from trunkline.core.log import KafkaClientLog
from trunkline.core.secret import revealed
from trunkline.kafkaclient import AdminClient
from trunkline.registry.state import Record, State, read_record

T = TypeVar("T")
log = logging.getLogger("trunkline.registry.kafka")

TOPIC_CONFIG: Final = {
    "cleanup.policy": "compact",
    "segment.bytes": str(16 * 1024 * 1024),
    "segment.ms": str(60 * 60 * 1000),
    "min.cleanable.dirty.ratio": "0.1",
}
"""Small segments, compacted early: the topic is read from its beginning at every start."""


def ensure_topic(admin: AdminClient, topic: str, *, timeout: float = 30.0) -> None:
    """Create the topic if it is missing.

    Raises ConfigurationError where it has more than one partition or is not compacted (retention would delete schemas), and
    UnavailableError where the broker can't be asked.
    """
    try:
        new = NewTopic(topic, num_partitions=1, replication_factor=-1, config=dict(TOPIC_CONFIG))
        admin.create_topics([new], operation_timeout=timeout, request_timeout=timeout)[topic].result(timeout)
        return
    except KafkaException as error:
        refused = error.args[0]
        # Who may not create topics is told so of one that is there as well.
        if refused.code() != KafkaError.TOPIC_ALREADY_EXISTS and not (
            refused.code() in _DENIED and admin.list_topics(topic, timeout=timeout).topics[topic].error is None
        ):
            raise UnavailableError(
                f"the topic {topic} can't be created: {refused.str()}",
                hint="grant the worker's principal CREATE, READ and WRITE on it" if refused.code() in _DENIED else None,
                code="registry.topic",
            ) from error
    partitions, policy = _described(admin, topic, timeout)
    if partitions != 1:
        raise ConfigurationError(f"the topic {topic} has {partitions} partitions; schemas need exactly one")
    if policy != "compact":
        raise ConfigurationError(
            f"the topic {topic} has cleanup.policy={policy}, under which old schemas are deleted",
            hint="set it to compact",
        )


def topic_id(admin: AdminClient, topic: str, *, timeout: float = 5.0) -> str | None:
    """Kafka's id of the topic, another one after it was deleted and made anew; None where there is none. Raises UnavailableError."""
    try:
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout)
        return str(asked[topic].result(timeout + 1).topic_id)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            return None
        raise UnavailableError(
            f"the topic {topic} can't be described: {error.args[0].str()}", code="registry.topic"
        ) from error


def _described(admin: AdminClient, topic: str, timeout: float) -> tuple[int, str | None]:
    """How many partitions the topic has, and its cleanup policy. Raises UnavailableError.

    Somebody else may have created it this moment: brokers don't know all of it yet then.
    """
    deadline = time.monotonic() + timeout
    resource = ConfigResource(ResourceType.TOPIC, topic)
    while True:
        try:
            partitions = admin.list_topics(topic, timeout=timeout).topics[topic].partitions
            config = admin.describe_configs([resource], request_timeout=timeout)[resource].result(timeout)
            if partitions:
                return len(partitions), config["cleanup.policy"].value
            reason = "it has no partitions yet"
        except KafkaException as error:
            reason = error.args[0].str()
            if error.args[0].code() not in _PASSING:
                deadline = 0.0
        if time.monotonic() >= deadline:
            raise UnavailableError(f"the topic {topic} can't be described: {reason}", code="registry.topic")
        time.sleep(0.05)


class Follower:
    """Applies every committed record of the topic to a state, in a thread of its own."""

    def __init__(self, options: Mapping[str, Any], topic: str) -> None:
        self._partition = TopicPartition(topic, 0, 0)
        self.admin = AdminClient(revealed(options), logger=KafkaClientLog(log))
        self._consumer = Consumer(
            {
                **revealed(options),
                # No group is joined and no offset committed: librdkafka asks for a name all the same.
                "group.id": f"{topic}.reader.{uuid.uuid4().hex}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "check.crcs": True,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
            },
            logger=KafkaClientLog(log),
        )
        self._state = State()
        self._changed = threading.Condition()
        self._applied = 0
        self._awaited: tuple[bytes, bytes | None] | None = None
        self._failure: str | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{topic} reader", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._consumer.assign([self._partition])
        self._thread.start()

    def stop(self) -> None:
        """End the thread and close the connection."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(15)
        self._consumer.close()

    def view(self, ask: Callable[[State], T]) -> T:
        """The answer to a question to the state, while it stands still."""
        with self._changed:
            return ask(self._state)

    def catch_up(self, timeout: float) -> None:
        """Return once everything that is committed now was applied. Raises UnavailableError, TimeoutError."""
        deadline = time.monotonic() + timeout
        self.wait_for(self._end(deadline), deadline - time.monotonic())

    def _end(self, deadline: float) -> int:
        # Not the consumer's own query: it waits without end while another thread consumes (confluent-kafka 2.16).
        wanted = {TopicPartition(self._partition.topic, 0): OffsetSpec.latest()}  # type: ignore[no-untyped-call]
        while True:
            try:
                asked = self.admin.list_offsets(
                    wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=5.0
                )
                return max(int(each.result(10).offset) for each in asked.values())
            except KafkaException as error:
                # Right after its creation a topic has no leader for a moment.
                if error.args[0].code() not in _PASSING or time.monotonic() >= deadline:
                    raise UnavailableError(
                        f"the end of {self._partition.topic} can't be read: {error.args[0].str()}",
                        code="registry.topic",
                    ) from error
            self._stopping.wait(0.05)

    def wait_for(self, offset: int, timeout: float) -> None:
        """Return once every record below `offset` was applied. Raises UnavailableError, TimeoutError."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._applied >= offset or self._failure is not None, timeout)
            self._refuse_failed()
            if not done:
                raise TimeoutError(f"{self._partition.topic} was read up to offset {self._applied}, not {offset}")

    def await_record(self, key: bytes, value: bytes | None) -> None:
        """Before a record is written: note that `wait_for_record` will wait for it."""
        with self._changed:
            self._awaited = (key, value)

    def wait_for_record(self, timeout: float) -> None:
        """Return once the noted record was applied. Raises UnavailableError, TimeoutError."""
        with self._changed:
            done = self._changed.wait_for(lambda: self._awaited is None or self._failure is not None, timeout)
            self._refuse_failed()
            if not done:
                raise TimeoutError(f"what was written to {self._partition.topic} did not come back")

    def _refuse_failed(self) -> None:
        if self._failure is not None:
            raise UnavailableError(
                f"the topic {self._partition.topic} can't be read: {self._failure}", code="registry.topic"
            )

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                first = self._consumer.poll(0.25)
                if first is None:
                    self.admin.poll(0)  # nobody else does, and what it reports while a broker is away would pile up
                    continue
                # `consume` alone would wait for its time-out or a full batch, and with it all who wait for a record.
                messages = [first, *self._consumer.consume(500, 0)]
                # Read before anybody has to wait: a schema may be large, and there may be many.
                read = [(one, None if one.error() else read_record(one.key(), one.value())) for one in messages]
                with self._changed:
                    for message, record in read:
                        self._take(message, record)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 (a dead thread must be seen by those who wait for it)
            self._fail(str(error))

    def _take(self, message: Any, record: Record | None) -> None:
        error = message.error()
        if error is None:
            self._state.take(record)
            self._applied = message.offset() + 1
            if self._awaited == (message.key(), message.value()):
                self._awaited = None
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (the client's own name for it)
            # The end lies behind transaction markers, which are never delivered.
            self._applied = max(self._applied, message.offset())
        elif error.fatal() or error.code() in _HOPELESS:
            self._failure = error.str()
        else:
            log.warning("reading %s: %s", self._partition.topic, error.str())

    def _fail(self, reason: str) -> None:
        with self._changed:
            self._failure = reason
            self._changed.notify_all()


_DENIED: Final = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED})
_HOPELESS: Final = frozenset(
    {
        KafkaError._AUTO_OFFSET_RESET,  # noqa: SLF001
        KafkaError.OFFSET_OUT_OF_RANGE,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
_PASSING: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError._NOENT,  # noqa: SLF001 ("No leaders found")
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    }
)
