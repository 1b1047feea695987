"""The Kafka clients, made in one place with the options that the reliability rules ask for.

Option names are librdkafka's (its CONFIGURATION.md). What a user may set is an allow-list, because some options load code
(`plugin.library.paths`) and others would break a promise (`acks`, `enable.auto.commit`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol, TypeVar
from weakref import WeakValueDictionary, ref

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from trunkline.bus.kafka.clienterrors import ClientErrors
from trunkline.bus.kafka.refusals import KafkaUnusableError, Said, unusable_options
from trunkline.bus.kafka.wakeups import lenient_threads
from trunkline.bus.memory import LARGEST_RECORD, Shares
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.log import KafkaClientLog, get_logger
from trunkline.core.secret import guarded, revealed
from trunkline.kafkaclient import AdminClient, Producer

log = get_logger(__name__)
C = TypeVar("C")
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
        "https.ca.location",
        "https.ca.pem",
        "metadata.max.age.ms",
        "queued.max.messages.kbytes",
        "reconnect.backoff.max.ms",
        "reconnect.backoff.ms",
        "request.timeout.ms",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.oauthbearer.client.id",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.extensions",
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
FULL_QUEUE_MS = 50
"""After this long a partition is asked for again whose queue was full. What is queued lasts half the client's default of a second."""
BATCH_BYTES = 1_000_000
"""The client's default, below the default limit of a topic."""
BATCH_ROOM = 1024
TRANSACTION_TIMEOUT_MS = 10_000
"""A killed transaction blocks read_committed readers until it times out (Kafka's default of 60 s is too long a stall)."""
MAX_MESSAGE_BYTES = LARGEST_RECORD
LEAST_FETCH_BYTES = 2**20
"""A larger batch than this comes whole all the same (KIP-74)."""
IDLE_FETCH_MS = 1000
"""What was just assigned, or resumed beside partitions that stayed idle, is first asked for when such a fetch ends: so not longer."""
ANSWER_MS = 10_000
"""A connection on which a request has no answer for so long is made anew. One that is dead without anybody being told, as
behind a firewall that forgot it, would hold a pipeline up for the client's default of a minute, and nobody could see why."""
LATE_SECONDS = 0.04
"""How late a consumer's heartbeats and looks around may be. Records and answers come from outside: for them it does not count."""


class Hearing(Protocol):
    """Who is told what clients report of themselves, and knows whether their cluster can be used."""

    def heard(self, said: Said) -> None:
        """A client reports an error. Called on the thread that polls it, and must not wait."""

    def trouble(self) -> KafkaUnusableError | None:
        """Why the cluster can't be used now, or None. From any thread."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the cluster is and how to reach it."""

    bootstrap: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """By their names in librdkafka. What is a secret among them becomes a `Secret`."""
    consumer_protocol: bool = True
    """Whether the brokers speak KIP-848 (Kafka 4.0 and later)."""
    classic_assignor: Literal["range", "cooperative-sticky"] = "range"
    """How partitions are shared where they do not. Only `range` gives the same partitions of several topics to one member."""
    shares: Shares = field(default_factory=Shares)
    """How much the clients may hold."""
    batch_bytes: int = BATCH_BYTES
    """The most bytes of records that a producer sends in one batch: a topic refuses batches above its `max.message.bytes`."""
    pipeline: str = ""
    """Whose clients these are, for the log; nobody's where the worker itself uses them."""
    health: Hearing | None = field(default=None, compare=False, repr=False)
    """Who is told what they report, beside the log."""

    def __post_init__(self) -> None:
        for name in self.options:
            if name not in ALLOWED_OPTIONS:
                raise ConfigurationError(
                    f"the Kafka option {name!r} may not be set",
                    hint=did_you_mean(name, ALLOWED_OPTIONS),
                    code="kafka.option",
                )
        object.__setattr__(self, "options", guarded(self.options))

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
            "socket.timeout.ms": ANSWER_MS,
            **self.options,
            "log.connection.close": False,
            "logger": _CLIENT_LOG,
            "error_cb": partial(_on_client_error, replace(self, health=None), _weak(self.health)),
        }

    def report(self, error: KafkaError, *, about: str = "") -> None:
        """Logs an error that somebody met and goes on with, once a cause, as clients' own are."""
        said = Said.of(error.code(), error.str())
        _CLIENT_ERRORS.tell(said, self.bootstrap, self.pipeline, about)

    def of(self, pipeline: str) -> KafkaSettings:
        """The settings of a pipeline's clients."""
        return replace(self, pipeline=pipeline)

    def for_others(self) -> dict[str, Any]:
        """The options of clients that another room makes, as the registry does for its topic: they report like ours.

        Secrets among them are to be `revealed` where a client is made.
        """
        return {name: value for name, value in self._base().items() if name != "logger"}

    def client(self, kind: Callable[[dict[str, Any]], C], more: Mapping[str, Any]) -> C:
        """A client with these settings and `more`, which wins.

        Raises our error where it can't be made: for a file that is not there, or options that exclude each other.
        """
        try:
            return kind(revealed({**self._base(), **more}))
        except KafkaException as error:
            raise unusable_options(error.args[0], self.options) from error

    def fitting(self, limits: Iterable[int]) -> KafkaSettings:
        """The settings of producers for topics that accept so many bytes at once each."""
        # I29: no batch is larger than the smallest limit of the topics it may go to. Kafka holds `max.message.bytes` against whole
        # batches, and a transaction with one that is refused would be undone and done again for ever.
        least = min(limits, default=BATCH_BYTES + BATCH_ROOM)
        return replace(self, batch_bytes=max(1, min(self.batch_bytes, least - BATCH_ROOM)))

    def producer(
        self, *, transactional_id: str | None = None, linger_ms: int = 5, only_failures: bool = False
    ) -> Producer:
        """An idempotent producer that waits for all replicas; transactional where an id is given.

        With `only_failures`, delivery callbacks are called for failed records alone: a call for each good one costs time.
        """
        config: dict[str, Any] = {
            "acks": "all",
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": linger_ms,
            "batch.size": self.batch_bytes,
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
        return self.client(Producer, config)

    def consumer(self, group: str) -> Consumer:
        """A member of a pipeline's group: nothing is committed or stored by itself, and nothing is reset silently."""
        config: dict[str, Any] = {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            # I10: no position is ever chosen silently: what was never read begins where the manifest says, a lost commit is an error.
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "check.crcs": True,
            "enable.partition.eof": False,
            "queued.min.messages": 20_000,
            "fetch.queue.backoff.ms": FULL_QUEUE_MS,
            # I27: what is fetched ahead is bounded by the worker's memory. A fetch may exceed the queue once, so it is no larger.
            "queued.max.messages.kbytes": self.shares.fetched // 1024,
            "fetch.max.bytes": max(self.shares.fetched, LEAST_FETCH_BYTES),
            "fetch.message.max.bytes": min(2 * 2**20, max(self.shares.fetched, LEAST_FETCH_BYTES)),
            # The broker answers at once when something comes: this is only how often an idle consumer asks again.
            "fetch.wait.max.ms": IDLE_FETCH_MS,
        }
        if self.consumer_protocol:
            config["group.protocol"] = "consumer"
            # The brokers see new topics of a family and new partitions: looking for them would be for nothing.
            config["topic.metadata.refresh.interval.ms"] = 60_000
            # The same partition of co-partitioned topics must come to the same worker: the default (uniform) does not see to that.
            config["group.remote.assignor"] = "range"
        else:
            config["partition.assignment.strategy"] = self.classic_assignor
            config["max.poll.interval.ms"] = 300_000
            config["topic.metadata.refresh.interval.ms"] = 10_000
        config.update(self.options)
        with lenient_threads(LATE_SECONDS):
            return self.client(Consumer, config)

    def take(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Reads these partitions from now on, in answer to a member's `on_assign`."""
        (consumer.assign if self._all_at_once else consumer.incremental_assign)(partitions)

    def give_up(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Reads these partitions no more, in answer to a member's `on_revoke` or `on_lost`."""
        if self._all_at_once:
            consumer.unassign()
        else:
            consumer.incremental_unassign(partitions)
        # The client keeps in mind what was paused: a partition that goes so and comes back would never be read again.
        consumer.resume(partitions)

    def commit(self, consumer: Consumer, offsets: list[TopicPartition]) -> list[TopicPartition]:
        """Commits offsets and waits for the answer. Raises KafkaException, and that at once while the cluster is known not to answer.

        The client would wait for its coordinator for 45 s (its session's time-out, which can't be set in KIP-848), and could not be
        closed meanwhile: a pipeline could neither stop nor be told of anything.
        """
        trouble = self.health.trouble() if self.health is not None else None
        if trouble is not None:
            raise KafkaException(KafkaError(KafkaError._WAIT_COORD, trouble.message))  # noqa: SLF001 (it has no other name)
        committed: list[TopicPartition] = consumer.commit(offsets=offsets, asynchronous=False)
        return committed

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
        return self.client(
            Consumer,
            {
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
            },
        )

    def follower(self) -> Consumer:
        """A reader that stays at the end of what it reads."""
        with lenient_threads(LATE_SECONDS):
            return self.reader(idle_fetch_ms=IDLE_FETCH_MS)

    def admin(self) -> AdminClient:
        """An administrator's client: the same one as long as somebody keeps it. Its answers come only as long as it is referenced."""
        key = (self.bootstrap, _weak(self.health), *sorted(self.options.items()))
        with _ADMINS_LOCK:
            found = _ADMINS.get(key)
            if found is None:
                found = _ADMINS[key] = replace(self, pipeline="").client(AdminClient, {})
            return found


_CLIENT_LOG = KafkaClientLog(log)
# Each client has threads and connections of its own, and a worker asks many questions.
_ADMINS: WeakValueDictionary[tuple[object, ...], AdminClient] = WeakValueDictionary()
_ADMINS_LOCK = threading.Lock()


_CLIENT_ERRORS = ClientErrors()


def serve_admins() -> None:
    """Takes what administrators' clients report: nobody polls them, and it would pile up while a broker is away."""
    with _ADMINS_LOCK:
        admins = list(_ADMINS.values())
    for admin in admins:
        admin.poll(0)


def _weak(health: Hearing | None) -> ref[Hearing] | None:
    """For what a client holds. Who hears of clients has some, and a client in a cycle ends only when the collector comes.

    That may be on a thread of the client itself, where librdkafka ends the process ("called from librdkafka owned thread").
    """
    return ref(health) if health is not None else None


def _on_client_error(settings: KafkaSettings, hearing: ref[Hearing] | None, error: KafkaError) -> None:
    # librdkafka heals most of these by itself, but a call tells neither that it has to nor why: a wrong password is said only here.
    said = Said.of(error.code(), error.str())
    _CLIENT_ERRORS.tell(said, settings.bootstrap, settings.pipeline)
    health = hearing() if hearing is not None else None
    if health is not None and said.about_connection:
        health.heard(said)
