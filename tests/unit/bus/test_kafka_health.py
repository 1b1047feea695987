"""What the watch over a cluster makes of the answers that it gets: when there is trouble, which, since when, and when it has ended."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from weakref import ref

import pytest
from confluent_kafka import KafkaError

from trunkline.bus.kafka import KafkaHealth, KafkaSettings
from trunkline.bus.kafka.health import QUIET_SECONDS
from trunkline.bus.kafka.refusals import KafkaUnusableError, Said, refusal
from trunkline.core.errors import ConfigurationError, UnavailableError


class Cluster:
    """A cluster whose answers a test chooses, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.answer: Exception | None = None
        self.stands = True
        self.changes: list[str | None] = []
        monkeypatch.setattr("trunkline.bus.kafka.health.time.monotonic", lambda: self.now)
        monkeypatch.setattr("trunkline.bus.kafka.health.time.time", lambda: self.now)
        monkeypatch.setattr("trunkline.bus.kafka.health.ping", self._ping)
        self.known: UnavailableError | None = None
        self.health = KafkaHealth(KafkaSettings("broker:9092"), explain=lambda: self.known)
        monkeypatch.setattr(self.health, "_stands", lambda: self.stands)
        self.health.on_change(lambda: self.changes.append(self.code))
        self.pings = 0

    def _ping(self, _settings: KafkaSettings, _timeout: float) -> None:
        self.pings += 1
        if self.answer is not None:
            raise self.answer

    @property
    def code(self) -> str | None:
        """The code of the trouble."""
        error = self.health.trouble()
        return error.code if error is not None else None

    def look(self, *, after: float = 2.0) -> None:
        """The watch asks once more."""
        self.now += after
        self.health._note(self.health._asked())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


def refused(code: str) -> Callable[[], KafkaUnusableError]:
    """An error of a kind, new each time."""
    return lambda: refusal(code, "broker:9092", "as said").error


@pytest.fixture
def _uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_uncollected")
def test_the_client_of_a_watch_ends_with_it_and_waits_for_no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector may come on a thread of the client's own, and librdkafka ends the process there."""
    monkeypatch.setattr("trunkline.bus.kafka.health.ASK_SECONDS", 0.05)
    watched = threading.Event()
    monkeypatch.setattr("trunkline.bus.kafka.health.ping", lambda *_: watched.set())
    health = KafkaHealth(KafkaSettings("127.0.0.1:1"), every=0.2)
    health.start()
    assert watched.wait(60)
    client = ref(health.settings.admin())
    assert client() is not None
    health.close()
    thread = health._thread
    assert thread is not None
    thread.join(60)
    assert client() is None


@pytest.mark.usefixtures("_uncollected")
def test_a_client_does_not_keep_who_hears_of_it() -> None:
    class Hears:
        def heard(self, said: Said) -> None: ...

        def trouble(self) -> KafkaUnusableError | None: ...

    hears = Hears()
    known, client = ref(hears), KafkaSettings("127.0.0.1:1", health=hears).admin()
    hears.client = client  # type: ignore[attr-defined]
    gone = ref(client)
    del hears, client
    assert known() is None
    assert gone() is None


def test_a_healthy_cluster_is_asked_by_the_client_that_stands_alone(cluster: Cluster) -> None:
    for _ in range(5):
        cluster.look()

    assert (cluster.code, cluster.changes, cluster.pings) == (None, [], 0)
    assert cluster.health.answered_at == cluster.now


def test_what_a_client_reports_is_no_trouble_where_the_cluster_can_be_used(cluster: Cluster) -> None:
    """One broker of three is away: who has partitions elsewhere goes on."""
    cluster.look()
    cluster.health.heard(
        Said.of(KafkaError._TRANSPORT, "broker-2:9092/2: Connect to ipv4#10.0.0.2:9092 failed: refused")
    )
    cluster.look()

    assert (cluster.code, cluster.changes, cluster.pings) == (None, [], 1)


def test_a_refused_password_is_trouble_though_the_client_that_stands_is_answered(cluster: Cluster) -> None:
    cluster.look()
    cluster.answer = refused("kafka.authentication")()
    cluster.health.heard(Said.of(KafkaError._AUTHENTICATION, "broker:9092/1: SASL authentication error: no"))
    cluster.look()

    assert cluster.code == "kafka.authentication"


def test_trouble_ends_only_when_signing_in_anew_works(cluster: Cluster) -> None:
    cluster.look()
    cluster.health.heard(Said.of(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    cluster.answer = refused("kafka.authentication")()
    cluster.look()
    cluster.look()
    assert cluster.code == "kafka.authentication"
    cluster.answer = None
    cluster.look()

    assert cluster.changes == ["kafka.authentication", None]


def test_a_broker_that_answered_before_went_away_and_trouble_began_with_its_last_answer(cluster: Cluster) -> None:
    cluster.look()
    last = cluster.health.answered_at
    cluster.stands, cluster.answer = False, refused("kafka.refused")()
    cluster.look()
    cluster.answer = refused("kafka.refused")()
    cluster.look(after=30.0)

    error = cluster.health.trouble()
    assert error is not None
    assert (error.code, error.since) == ("kafka.away", last)
    assert "as said" in error.message
    assert cluster.changes == ["kafka.away"]


def test_a_broker_that_never_answered_did_not_go_away(cluster: Cluster) -> None:
    cluster.stands, cluster.answer = False, refused("kafka.refused")()
    cluster.look()

    assert cluster.code == "kafka.refused"


def test_a_broker_that_is_held_up_for_a_moment_is_no_trouble(cluster: Cluster) -> None:
    cluster.look()
    cluster.stands, cluster.answer = False, refused("kafka.timeout")()
    cluster.look(after=QUIET_SECONDS / 2)
    assert cluster.code is None
    cluster.answer = refused("kafka.timeout")()
    cluster.look(after=QUIET_SECONDS)

    assert cluster.changes == ["kafka.timeout"]


def test_another_cause_takes_the_place_of_the_one_before_and_keeps_its_begin(cluster: Cluster) -> None:
    cluster.look()
    last = cluster.health.answered_at
    cluster.stands, cluster.answer = False, refused("kafka.refused")()
    cluster.look()
    cluster.answer = refused("kafka.authentication")()
    cluster.look()

    error = cluster.health.trouble()
    assert error is not None
    assert error.since == last
    assert cluster.changes == ["kafka.away", "kafka.authentication"]


def test_a_client_that_can_not_be_made_any_more_is_trouble_too(cluster: Cluster) -> None:
    cluster.look()
    cluster.stands = False
    cluster.answer = ConfigurationError("no provider", code="kafka.options")
    cluster.look()

    assert cluster.code == "kafka.options"


def test_who_runs_the_broker_knows_better_than_clients_why_nobody_answers(cluster: Cluster) -> None:
    cluster.look()
    begun = cluster.now
    cluster.stands, cluster.answer = False, refused("kafka.refused")()
    cluster.known = UnavailableError("the disk is full", where="/data", hint="make room", code="embedded.disk_full")
    cluster.look()
    error = cluster.health.trouble()
    assert error is not None
    assert (error.code, error.message, error.where, error.hint) == (
        "embedded.disk_full",
        "the disk is full",
        "/data",
        "make room",
    )
    assert (error.since, error.passes) == (begun, True)

    cluster.known = None
    cluster.look()
    assert cluster.code == "kafka.away"
    cluster.stands, cluster.answer = True, None
    cluster.look()
    assert cluster.changes == ["embedded.disk_full", "kafka.away", None]
