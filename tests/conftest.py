"""The broker of the tests, and names that no two tests share.

`TRUNKLINE_TEST_BROKER=embedded` (the default) starts one embedded broker a session, shared by all pytest-xdist workers.
`TRUNKLINE_TEST_BROKER=external` uses the one at `TRUNKLINE_BOOTSTRAP_SERVERS`.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.bus.embedded.processes import end_broker, is_broker

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

MakeTopic = Callable[..., str]
_SHORT_SESSIONS = {"group.consumer.session.timeout.ms": "3000", "group.consumer.heartbeat.interval.ms": "500"}
"""The partitions of a worker that a test kills are another's after half the time."""


@dataclass(frozen=True)
class KafkaUnderTest:
    """The broker that the tests use."""

    bootstrap: str
    kind: str

    def client_config(self, **options: Any) -> dict[str, Any]:
        """A confluent-kafka configuration; `group_id="g"` stands for `group.id`."""
        # Callbacks and `log_level` are the options whose names have an underscore of their own.
        own = {name: value for name, value in options.items() if name.endswith("_cb") or name == "log_level"}
        dotted = {name.replace("_", "."): value for name, value in options.items() if name not in own}
        return {"bootstrap.servers": self.bootstrap} | own | dotted


def pytest_configure(config: pytest.Config) -> None:
    kind = os.environ.get("TRUNKLINE_TEST_BROKER", "embedded")
    if kind not in ("embedded", "external"):
        raise pytest.UsageError(f"TRUNKLINE_TEST_BROKER is {kind!r}; it can be 'embedded' or 'external'")
    if kind == "external" and not os.environ.get("TRUNKLINE_BOOTSTRAP_SERVERS"):
        raise pytest.UsageError(
            "TRUNKLINE_TEST_BROKER=external needs TRUNKLINE_BOOTSTRAP_SERVERS, such as localhost:9092"
        )


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaUnderTest]:
    """The broker under test: Apache Kafka, never a stand-in."""
    if os.environ.get("TRUNKLINE_TEST_BROKER") == "external":
        yield KafkaUnderTest(os.environ["TRUNKLINE_BOOTSTRAP_SERVERS"], "external")
        return
    root = tmp_path_factory.getbasetemp()
    with _shared_broker(root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) as bootstrap:
        yield KafkaUnderTest(bootstrap, "embedded")


#: Brokers started by this process. They are referenced to its end, since another worker may be the last that uses them.
_started: list[EmbeddedKafka] = []


@contextmanager
def _shared_broker(root: Path) -> Iterator[str]:
    """The first worker starts the broker; the last one to leave ends it, whoever that is."""
    with _state(root) as state:
        if not (_living_users(state) and is_broker(state["pid"], Path(state["home"]))):
            home = root / f"broker-{uuid.uuid4().hex[:8]}"
            broker = EmbeddedKafka(home, EmbeddedOptions(overrides=_SHORT_SESSIONS))
            running = broker.start()
            _started.append(broker)
            state.update(home=str(home), pid=running.pid, bootstrap=running.bootstrap, users=[])
        state["users"].append(os.getpid())
        bootstrap = state["bootstrap"]
    try:
        yield bootstrap
    finally:
        with _state(root) as state:
            state["users"].remove(os.getpid())
            if not _living_users(state):
                for broker in _started:
                    broker.stop()
                end_broker(state["pid"], Path(state["home"]), timeout=10)


def _living_users(state: dict[str, Any]) -> list[int]:
    """The workers that use the broker; one that was killed doesn't count."""
    return [pid for pid in state.get("users", []) if _is_alive(pid)]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def _state(root: Path) -> Iterator[dict[str, Any]]:
    """What the workers share, in a locked file."""
    with (root / "broker-state.json").open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        state: dict[str, Any] = json.loads(file.read() or "{}")
        yield state
        file.seek(0)
        file.truncate()
        file.write(json.dumps(state))


@pytest.fixture(scope="session")
def kafka_admin(kafka: KafkaUnderTest) -> AdminClient:
    """An admin client of the broker under test."""
    from confluent_kafka.admin import AdminClient

    return AdminClient(kafka.client_config(log_level=0))  # it may outlive the broker by a moment


@pytest.fixture
def namespace() -> str:
    """A Trunkline namespace that only this test uses."""
    return f"t{uuid.uuid4().hex[:8]}"


@pytest.fixture
def make_topic(kafka_admin: AdminClient, namespace: str) -> MakeTopic:
    """Creates a topic of a name that only this test uses: `make_topic("flights", partitions=3, config={...})`."""
    from confluent_kafka.admin import NewTopic

    def make(name: str = "topic", partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        topic = f"{namespace}.{name}.{uuid.uuid4().hex[:6]}"
        new = NewTopic(topic, num_partitions=partitions, replication_factor=-1, config=dict(config or {}))
        kafka_admin.create_topics([new], operation_timeout=15)[topic].result(20)
        return topic

    return make


@pytest.fixture(params=["pool", "session"])
def both_ways_out(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """All requests of the HTTP client go through our own connections, or all through aiohttp."""
    way = str(request.param)
    direct = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} if way == "pool" else set()
    monkeypatch.setattr("trunkline.core.http.client.DIRECT", frozenset(direct))
    return way
