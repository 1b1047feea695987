"""The Kafka clients, made in one place with the options that the reliability rules ask for.

Option names are librdkafka's (its CONFIGURATION.md). What a user may set is an allow-list, because some options load code
(`plugin.library.paths`) and others would break a promise (`acks`, `enable.auto.commit`).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast
from weakref import WeakValueDictionary

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import OffsetSpec

from trunkline.bus.memory import LARGEST_RECORD, Shares
from trunkline.core.envelope import Headers
from trunkline.core.errors import (
    ConfigurationError,
    FatalError,
    RetriableError,
    TrunklineError,
    UnavailableError,
    did_you_mean,
)
from trunkline.core.log import KafkaClientLog, get_logger

log = get_logger(__name__)
T = TypeVar("T")

ALLOWED_OPTIONS = frozenset(
    {
        "broker.address.family",
        "client.dns.lookup",
        "client.rack",
        "connections.max.idle.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.wait.max.ms",
        "metadata.max.age.ms",
        "queued.max.messages.kbytes",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "request.timeout.ms",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.password",
        "sasl.username",
        "security.protocol",
        "socket.connection.setup.timeout.ms",
        "socket.keepalive.enable",
        "socket.timeout.ms",
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.certificate.pem",
        "ssl.endpoint.identification.algorithm",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.key.pem",
    }
)
TRANSACTION_TIMEOUT_MS = 10_000
IDLE_CONNECTION_MS = 10_000
"""A killed transaction blocks read_committed readers until it times out (Kafka's default of 60 s is too long a stall)."""
MAX_MESSAGE_BYTES = LARGEST_RECORD
LEAST_FETCH_BYTES = 2**20
"""A larger batch than this comes whole all the same (KIP-74)."""
QUEUE_SECONDS = 30.0
IDLE_FETCH_MS = 1000
"""What was just assigned, or resumed beside partitions that stayed idle, is first asked for when such a fetch ends: so not longer."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the cluster is and how to reach it."""

    bootstrap: str
    options: Mapping[str, str] = field(default_factory=dict)
    consumer_protocol: bool = True
    """Whether the brokers speak KIP-848 (Kafka 4.0 and later)."""
    classic_assignor: Literal["range", "cooperative-sticky"] = "range"
    """How partitions are shared where they do not. Only `range` gives the same partitions of several topics to one member."""
    shares: Shares = field(default_factory=Shares)
    """How much the clients may hold."""

    def __post_init__(self) -> None:
        for name in self.options:
            if name not in ALLOWED_OPTIONS:
                raise ConfigurationError(
                    f"the Kafka option {name!r} may not be set",
                    hint=did_you_mean(name, ALLOWED_OPTIONS),
                    code="kafka.option",
                )

    @classmethod
    def from_environment(cls, bootstrap: str) -> KafkaSettings:
        """Options from `TRUNKLINE_KAFKA_<OPTION>`: `TRUNKLINE_KAFKA_SASL_USERNAME` sets `sasl.username`."""
        options = {}
        prefix = "TRUNKLINE_KAFKA_"
        for name, value in os.environ.items():
            if name.startswith(prefix):
                options[name.removeprefix(prefix).lower().replace("_", ".")] = value
        return cls(bootstrap, options)

    def _base(self) -> dict[str, Any]:
        return {
            "bootstrap.servers": self.bootstrap,
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 2000,
            **self.options,
            "log.connection.close": False,
            "logger": _CLIENT_LOG,
            "error_cb": _on_client_error,
        }

    def producer(
        self, *, transactional_id: str | None = None, linger_ms: int = 5, only_failures: bool = False
    ) -> Producer:
        """An idempotent producer that waits for all replicas; transactional where an id is given.

        With `only_failures`, delivery callbacks are called for failed records alone: a call for each good one costs time.
        """
        config: dict[str, Any] = {
            **self._base(),
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "partitioner": "murmur2_random",  # the Java clients' partitioning: co-partitioned with what they write
            "message.max.bytes": MAX_MESSAGE_BYTES,
            "delivery.report.only.error": only_failures,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": self.shares.unsent // 1024,
            "delivery.timeout.ms": 120_000,
            # Topics are made before they are written to: one that is gone is said in seconds, not in half a minute.
            "topic.metadata.propagation.max.ms": 5_000,
        }
        if transactional_id is not None:
            config["transactional.id"] = transactional_id
            config["transaction.timeout.ms"] = TRANSACTION_TIMEOUT_MS
            # The default of 100 ms makes each send_offsets_to_transaction wait that long for the coordinator.
            config["retry.backoff.ms"] = 5
            config["delivery.timeout.ms"] = TRANSACTION_TIMEOUT_MS
            # The client looks for the group's coordinator again only when a connection opens or closes, whatever time-out
            # `send_offsets_to_transaction` was given (librdkafka#5456): after a connection that was cut and made again within a
            # second it would wait for ever. Closing what is idle wakes it.
            config.setdefault("connections.max.idle.ms", IDLE_CONNECTION_MS)
        return Producer(config)

    def consumer(self, group: str) -> Consumer:
        """A member of a pipeline's group: nothing is committed or stored by itself, and nothing is reset silently."""
        config: dict[str, Any] = {
            **self._base(),
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # I10: no position is ever chosen silently: what was never read begins where the manifest says, a lost commit is an error.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "enable.partition.eof": False,
            "queued.min.messages": 20_000,
            # I27: what is fetched ahead is bounded by the worker's memory. A fetch may exceed the queue once, so it is no larger.
            "queued.max.messages.kbytes": self.shares.fetched // 1024,
            "fetch.max.bytes": max(self.shares.fetched, LEAST_FETCH_BYTES),
            "fetch.message.max.bytes": min(2 * 2**20, max(self.shares.fetched, LEAST_FETCH_BYTES)),
            # The broker answers at once when something comes: this is only how often an idle consumer asks again.
            "fetch.wait.max.ms": IDLE_FETCH_MS,
            "topic.metadata.refresh.interval.ms": 10_000,
        }
        if self.consumer_protocol:
            config["group.protocol"] = "consumer"
            # The same partition of co-partitioned topics must come to the same worker: the default (uniform) does not see to that.
            config["group.remote.assignor"] = "range"
        else:
            config["partition.assignment.strategy"] = self.classic_assignor
            config["max.poll.interval.ms"] = 300_000
        config.update(self.options)
        return Consumer(config)

    def take(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Reads these partitions from now on, in answer to a member's `on_assign`."""
        (consumer.assign if self._all_at_once else consumer.incremental_assign)(partitions)

    def give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Reads these partitions no more, in answer to a member's `on_revoke` or `on_lost`."""
        if self._all_at_once:
            consumer.unassign()
        else:
            consumer.incremental_unassign(partitions)

    @property
    def _all_at_once(self) -> bool:
        """Whether a rebalance takes and gives all partitions: librdkafka refuses the incremental calls then."""
        return not self.consumer_protocol and self.classic_assignor == "range"

    def reader(
        self,
        *,
        committed_only: bool = True,
        eof: bool = False,
        idle_fetch_ms: int = 50,
        fetch_bytes: int = 2 * 2**20,
        group: str = "trunkline-reader",
    ) -> Consumer:
        """A consumer without a group's rights, for reading topics by assignment: `fetch_bytes` at a time of a partition.

        The end of a topic is said when a fetch found nothing for `idle_fetch_ms`. `group` matters to who asks for its commits.
        """
        return Consumer(
            {
                **self._base(),
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed" if committed_only else "read_uncommitted",
                "check.crcs": True,
                "enable.partition.eof": eof,
                "fetch.message.max.bytes": fetch_bytes,
                "fetch.max.bytes": MAX_MESSAGE_BYTES,
                "fetch.wait.max.ms": idle_fetch_ms,
                **self.options,
            }
        )

    def follower(self) -> Consumer:
        """A reader that stays at the end of what it reads."""
        return self.reader(idle_fetch_ms=IDLE_FETCH_MS)

    def admin(self) -> AdminClient:
        """An administrator's client: the same one as long as somebody keeps it. Its answers come only as long as it is referenced."""
        key = (self.bootstrap, *sorted(self.options.items()))
        with _ADMINS_LOCK:
            found = _ADMINS.get(key)
            if found is None:
                found = _ADMINS[key] = AdminClient(self._base())
            return found


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


_CLIENT_LOG = KafkaClientLog(log)
# Each client has threads and connections of its own, and a worker asks many questions.
_ADMINS: WeakValueDictionary[tuple[object, ...], AdminClient] = WeakValueDictionary()
_ADMINS_LOCK = threading.Lock()


def _on_client_error(error: KafkaError) -> None:
    # librdkafka heals these by itself; what matters comes back from the calls.
    log.debug("kafka client", error=error.str())


def translate(error: KafkaException | KafkaError, what: str, *, where: str | None = None) -> TrunklineError:
    """One of our errors for Kafka's: what a person must mend is fatal, what may pass is retriable."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    code = cause.code()
    text = f"{what}: {cause.str()}"
    if code in _DENIED:
        return FatalError(
            text, where=where, hint="grant the pipeline's principal the missing right", code="kafka.denied"
        )
    if code in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001
        return RetriableError(text, where=where, code="kafka.fenced")
    if code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
        return FatalError(text, where=where, hint="create the topic, or apply its manifest", code="kafka.unknown_topic")
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return FatalError(text, where=where, hint="raise the topic's max.message.bytes", code="kafka.too_large")
    if code in _BROKEN_OPTIONS:
        return ConfigurationError(text, where=where, hint="check the Kafka connection options", code="kafka.options")
    return RetriableError(text, where=where, code="kafka.unavailable")


_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001
    KafkaError.POLICY_VIOLATION,
}
SETTLING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
}
"""What a broker says while it begins or its leaders change, though librdkafka does not call it retriable."""
_BROKEN_OPTIONS = {KafkaError._INVALID_ARG, KafkaError.UNSUPPORTED_SASL_MECHANISM}  # noqa: SLF001


def ping(settings: KafkaSettings, timeout: float = 10.0) -> None:
    """Raises `UnavailableError` (`kafka.unreachable`) when no broker answers within `timeout` seconds."""
    try:
        settings.admin().list_topics(timeout=timeout)
    except KafkaException as error:
        raise UnavailableError(
            f"no Kafka broker answers at {settings.bootstrap}: {error.args[0].str()}",
            hint="check the address, or leave out --bootstrap to run the embedded broker",
            code="kafka.unreachable",
        ) from error


def read_all(
    settings: KafkaSettings,
    topic: str,
    *,
    partitions: Iterable[int] | None = None,
    start: Callable[[Consumer, int], int] | None = None,
    timeout: float = 30.0,
    patient: bool = True,
) -> Iterator[Message]:
    """Every committed record of a topic up to the ends it has now, partition by partition.

    `start` gives the first offset of a partition; without it the oldest one is taken. The ends are those of all records, open
    transactions included: a record of ours behind somebody's open transaction is waited for, unless the reader is not
    `patient` and takes what is committed now. Raises `RetriableError` when a
    read does not advance for `timeout` seconds. A topic that does not exist has no records.
    """
    ends = end_offsets(settings, topic, committed_only=not patient)
    wanted = sorted(ends) if partitions is None else [partition for partition in partitions if partition in ends]
    if not wanted:
        return
    reader = settings.reader(eof=True)
    try:
        for partition in wanted:
            first = watermarks(reader, topic, partition, timeout)[0]
            if start is not None:
                first = max(first, start(reader, partition))
            yield from read_range(reader, topic, partition, first, ends[partition], timeout)
    finally:
        reader.close()


def end_offsets(
    settings: KafkaSettings, topic: str, timeout: float = 10.0, *, committed_only: bool = False
) -> dict[int, int]:
    """The offset after the last record of each partition; empty for a topic that does not exist.

    Open transactions are included, unless `committed_only` asks for where a reader of committed records comes to now.
    """
    admin = settings.admin()
    level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED

    def ask() -> dict[int, int]:
        metadata = admin.list_topics(topic, timeout=timeout).topics[topic]
        if metadata.error is not None or not metadata.partitions:
            return {}
        asked = {TopicPartition(topic, partition): LATEST for partition in metadata.partitions}
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=timeout)
        return {part.partition: future.result(timeout).offset for part, future in answers.items()}

    return patiently(ask, f"the end of the topic {topic} can't be found", timeout)


def patiently(ask: Callable[[], T], what: str, timeout: float = 10.0) -> T:
    """The answer to a question to the cluster, asked again for `timeout` seconds while the refusal is one that passes.

    A topic that was just created, or a broker that just came back, has no leader for a moment. Raises our error for Kafka's.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            return ask()
        except KafkaException as error:
            cause = error.args[0]
            if not (cause.retriable() or cause.code() in SETTLING) or time.monotonic() > deadline:
                raise translate(error, what) from error
            time.sleep(0.05)


def read_range(
    reader: Consumer, topic: str, partition: int, first: int, end: int, timeout: float = 30.0
) -> Iterator[Message]:
    """The committed records of a partition from `first` to before `end`, with a reader that tells of ends (`eof=True`).

    Raises as `read_all`.
    """
    if first >= end:
        return
    reader.assign([TopicPartition(topic, partition, first)])
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        messages = reader.consume(1000, 0.05)
        for message in messages:
            error = message.error()
            if message.topic() is not None and (message.topic(), message.partition()) != (topic, partition):
                continue  # left over from what this reader read before
            if error is None:
                if offset_of(message) >= end:
                    return
                yield message
                if offset_of(message) == end - 1:
                    return
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                # Transaction markers and aborted records count as offsets: the end may be reached without a record at `end - 1`.
                if offset_of(message) >= end:
                    return
            elif not error.retriable():
                raise translate(error, f"{topic}[{partition}] can't be read")
        if any(message.error() is None for message in messages):
            deadline = time.monotonic() + timeout
    raise RetriableError(
        f"{topic}[{partition}] gave nothing for {timeout:g} s before its end {end}", code="kafka.unavailable"
    )


def watermarks(reader: Consumer, topic: str, partition: int, timeout: float = 10.0) -> tuple[int, int]:
    """The first offset that is kept and the one after the last."""
    return patiently(
        lambda: reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=timeout),
        f"{topic}[{partition}] can't be read",
        timeout,
    )


LATEST = OffsetSpec.latest()  # type: ignore[no-untyped-call]
EARLIEST = OffsetSpec.earliest()  # type: ignore[no-untyped-call]


def headers_of(message: Message) -> Headers:
    """The headers of a message that was read. A header without a value is given an empty one."""
    return [(name, content or b"") for name, content in cast("list[tuple[str, bytes | None]]", message.headers() or [])]


def produce(
    producer: Producer | LazyProducer,
    topic: str,
    value: bytes | None,
    key: bytes | None,
    headers: Headers,
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


def offset_of(message: Message) -> int:
    """The offset of a message that was read."""
    offset = message.offset()
    return OFFSET_INVALID if offset is None else offset


@contextlib.contextmanager
def closing(consumer: Consumer) -> Iterator[Consumer]:
    """The consumer, closed at the end."""
    try:
        yield consumer
    finally:
        consumer.close()


def produce_and_wait(
    producer: Producer, topic: str, value: bytes | None, key: bytes | None, timeout: float = 30.0
) -> None:
    """Writes one record and waits until every replica has it. Raises our error for Kafka's."""
    outcome: list[KafkaError | None] = []
    try:
        producer.produce(topic, value, key, on_delivery=lambda error, _message: outcome.append(error))
    except KafkaException as error:
        raise translate(error, f"{topic} can't be written") from error
    left = producer.flush(timeout)
    if left or not outcome:
        raise RetriableError(
            f"{topic} can't be written: no acknowledgement within {timeout:g} s", code="kafka.unavailable"
        )
    if outcome[0] is not None:
        raise translate(outcome[0], f"{topic} can't be written")
