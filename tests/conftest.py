"""The broker of the tests, and names that no two tests share.

`TRUNKLINE_TEST_BROKER=embedded` (the default) starts one embedded broker a session, shared by all pytest-xdist workers. It is open, as
most tests are not about who may do what; those of the embedded broker itself, of the demo and of signing in have secured ones.
`TRUNKLINE_TEST_BROKER=external` uses the one at `TRUNKLINE_BOOTSTRAP_SERVERS`.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.chaos.faults.brokers import proxied_listeners
from tests.chaos.faults.proxy import TcpProxy
from tests.namespaces import delete_topics, new_namespace
from tests.variables import environment_kept
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.bus.embedded.ports import choose_ports, new_ports
from trunkline.bus.embedded.processes import end_broker, is_broker
from trunkline.bus.embedded.properties import HOST
from trunkline.core import redaction

if TYPE_CHECKING:
    from tests.integration.bus_harness import Bus, Endpoint
    from trunkline.kafkaclient import AdminClient

MakeTopic = Callable[..., str]
_SHORT_SESSIONS = {"group.consumer.session.timeout.ms": "3000", "group.consumer.heartbeat.interval.ms": "500"}
"""The partitions of a worker that a test kills are another's after half the time."""


@dataclass(frozen=True)
class KafkaUnderTest:
    """The broker that the tests use."""

    bootstrap: str
    kind: str
    proxied: tuple[int, int] | None = None
    """The port of a listener that only this test process uses, and the port that it tells clients; where there is one."""

    def client_config(self, **options: Any) -> dict[str, Any]:
        """A confluent-kafka configuration; `group_id="g"` stands for `group.id`."""
        # Callbacks and `log_level` are the options whose names have an underscore of their own.
        own = {name: value for name, value in options.items() if name.endswith("_cb") or name == "log_level"}
        dotted = {name.replace("_", "."): value for name, value in options.items() if name not in own}
        return {"bootstrap.servers": self.bootstrap} | own | dotted


def pytest_configure(config: pytest.Config) -> None:
    # The operator of the tests' workers has secrets where tests put them, and where examples say that they are.
    os.environ["TRUNKLINE_SECRET_FILES"] = os.pathsep.join((tempfile.gettempdir(), "/run/secrets"))
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
        _brokers_in_use.append(os.environ["TRUNKLINE_BOOTSTRAP_SERVERS"])
        yield KafkaUnderTest(os.environ["TRUNKLINE_BOOTSTRAP_SERVERS"], "external")
        return
    root = tmp_path_factory.getbasetemp()
    with _shared_broker(root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) as (bootstrap, proxied):
        _brokers_in_use.append(bootstrap)
        yield KafkaUnderTest(bootstrap, "embedded", proxied)


#: The broker under test, once this process has asked for it.
_brokers_in_use: list[str] = []


@dataclass(frozen=True)
class LeavingKafka:
    """A way to the broker under test that can be closed, as if the broker had ended, and opened again.

    It costs nothing, where an end and a start of a broker take seconds of the processor. Of an outage it shows what clients see of
    it; the broker, which goes on, ends their sessions and transactions meanwhile.
    """

    bootstrap: str
    _proxy: TcpProxy

    def leave(self) -> None:
        """Cuts all connections, and refuses new ones."""
        self._proxy.away(on=True)

    def come_back(self) -> None:
        """Serves again."""
        self._proxy.away(on=False)


@pytest.fixture
def leaving_kafka(kafka: KafkaUnderTest) -> Iterator[LeavingKafka]:
    """The broker under test by a way of this test's own, which can be closed."""
    if kafka.proxied is None:
        pytest.skip("a broker that was started elsewhere has no listener for it")
    listener, told = kafka.proxied
    proxy = TcpProxy((HOST, listener), port=told)
    proxy.start()
    try:
        yield LeavingKafka(f"{HOST}:{told}", proxy)
    finally:
        proxy.stop()


#: Brokers started by this process. They are referenced to its end, since another worker may be the last that uses them.
_started: list[EmbeddedKafka] = []


@contextmanager
def _shared_broker(root: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """The first worker starts the broker; the last one to leave ends it, whoever that is.

    Gives where it is, and the ports of the listener that only this worker uses.
    """
    with _state(root) as state:
        if not (_living_users(state) and is_broker(state["pid"], Path(state["home"]))):
            home = root / f"broker-{uuid.uuid4().hex[:8]}"
            own = choose_ports(home / "kafka" / "ports.json")
            count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
            ports = new_ports(2 * count)
            proxied = list(zip(ports[:count], ports[count:], strict=True))
            overrides = _SHORT_SESSIONS | proxied_listeners(own.client, own.controller, proxied)
            broker = EmbeddedKafka(home, EmbeddedOptions(open=True, overrides=overrides))
            running = broker.start()
            _started.append(broker)
            state.update(home=str(home), pid=running.pid, bootstrap=running.bootstrap, proxied=proxied, users=[])
        state["users"].append(os.getpid())
        bootstrap, proxied = state["bootstrap"], state["proxied"]
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    listener, told = proxied[number % len(proxied)]  # who takes the place of a worker that crashed has a higher number
    try:
        yield bootstrap, (listener, told)
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint() -> AsyncIterator[Endpoint]:
    """An HTTP server that deliveries go to."""
    from tests.integration.bus_harness import Endpoint

    made = Endpoint()
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Bus]:
    """One worker, with a connection `peer` to the endpoint, for those tests of a file that do not end it."""
    from tests.integration.bus_harness import bus, http_connection

    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("worker")) as made:
        await made.start(http_connection("peer", endpoint.url))
        yield made


@pytest.fixture(scope="session")
def kafka_admin(kafka: KafkaUnderTest) -> AdminClient:
    """An admin client of the broker under test."""
    from trunkline.kafkaclient import AdminClient

    return AdminClient(kafka.client_config(log_level=0))  # it may outlive the broker by a moment


@pytest.fixture(scope="module", autouse=True)
def _topics_end_with_their_module() -> Iterator[None]:
    yield
    for broker in _brokers_in_use:
        delete_topics(broker)


@pytest.fixture
def namespace() -> str:
    """A Trunkline namespace that only this test uses."""
    return new_namespace()


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


@pytest.fixture(autouse=True)
def _environment_kept() -> Iterator[None]:
    """What a test does to the environment ends with it: the next one in the process has that of its session and module."""
    with environment_kept():
        yield


@pytest.fixture(scope="module", autouse=True)
def _no_secrets_of_other_files() -> None:
    """A process knows its secrets for life; a test would have those of all files before it blanked in its messages.

    Once a file, and before its other fixtures: their secrets are looked for by all of its tests.
    """
    redaction._REDACTOR.__init__()  # type: ignore[misc]


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(request: pytest.FixtureRequest) -> None:
    """Unit tests share no fixtures with secrets, so each begins without any."""
    if "unit" in request.path.parts:
        redaction._REDACTOR.__init__()  # type: ignore[misc]
