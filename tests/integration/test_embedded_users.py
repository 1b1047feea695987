"""Users of the embedded broker: each may do what it was given on its topics, until it is removed."""

from __future__ import annotations

import json
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from embedded_owner import call, client, consumed, no_registry, running, settings, until

from trunkline.bus.embedded import EmbeddedKafka, RunningBroker
from trunkline.bus.embedded.options import REAUTHENTICATION_MS
from trunkline.bus.kafka import KafkaSettings, KafkaUnusableError, closing, ping, produce_and_wait
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.control import brokerusers
from trunkline.control.brokerusers import NewUser, Wanted
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, TrunklineError
from trunkline.kafkaclient import AdminClient

pytestmark = pytest.mark.kafka
CUT_OFF_SECONDS = 5
"""Who is removed has no connection any more after this long."""


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("users") / "home") as broker:
        ensure_topics(settings(running(broker)), [TopicPlan("kept", 1)])
        yield broker


@pytest.fixture
def broker(owned: EmbeddedKafka) -> RunningBroker:
    return running(owned)


@pytest.fixture
def cluster(broker: RunningBroker) -> Cluster:
    return Cluster(settings(broker), Names(), "somebody", no_registry)


@pytest.fixture
def topics(broker: RunningBroker) -> tuple[str, str]:
    """Two topics, of which the users of a test have rights on the first."""
    one, other = f"t{uuid.uuid4().hex[:8]}", f"t{uuid.uuid4().hex[:8]}"
    ensure_topics(settings(broker), [TopicPlan(one, 1), TopicPlan(other, 1)])
    return one, other


def produced(made: NewUser, topic: str, **more: Any) -> int:
    """Writes a record; the code of what came of it, 0 where it is there."""
    codes: list[int] = []
    producer = Producer(client(made, **{"enable.idempotence": True, "message.timeout.ms": 100_000, **more}))
    producer.produce(topic, b"x", on_delivery=lambda error, _: codes.append(error.code() if error is not None else 0))
    assert producer.flush(120) == 0
    return codes[0]


def test_a_user_may_produce_to_its_topic_and_nothing_else(cluster: Cluster, topics: tuple[str, str]) -> None:
    topic, other = topics
    made = brokerusers.create(cluster, "writer", Wanted(produce=[topic]))

    assert produced(made, topic) == 0
    assert produced(made, other) == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert produced(made, Names().manifests) == KafkaError.TOPIC_AUTHORIZATION_FAILED, "it would command the bus"
    assert consumed(made, topic, "writer_group") in {
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
    }
    admin = AdminClient(client(made))
    assert set(admin.list_topics(timeout=20).topics) == {topic}
    from confluent_kafka.admin import NewTopic

    refusals = {
        "create": admin.create_topics([NewTopic("mine", 1, 1)])["mine"],
        "delete": admin.delete_topics([topic])[topic],
        "rights": next(iter(admin.create_acls([right.binding("writer") for right in made.rights]).values())),
    }
    for what, future in refusals.items():
        with pytest.raises(KafkaException) as refused:
            future.result(30)
        assert refused.value.args[0].code() in {
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        }, what
    with pytest.raises(KafkaException) as refused:
        Producer(client(made, **{"transactional.id": "writer_1"})).init_transactions(30)
    assert refused.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_a_user_may_consume_its_topic_with_groups_of_its_own_name_and_nothing_else(
    cluster: Cluster, topics: tuple[str, str]
) -> None:
    topic, other = topics
    for name in topics:
        produce_and_wait(cluster.kafka.producer(), name, b"news", None)
    made = brokerusers.create(cluster, "reader", Wanted(consume=[topic]))

    assert consumed(made, topic, "reader_reports") == b"news"
    assert consumed(made, topic, "orders-out") == KafkaError.GROUP_AUTHORIZATION_FAILED
    assert consumed(made, topic, "readers") == KafkaError.GROUP_AUTHORIZATION_FAILED
    assert produced(made, topic, **{"enable.idempotence": False}) == KafkaError.TOPIC_AUTHORIZATION_FAILED
    with closing(Consumer(client(made, **{"group.id": "reader_x"}))) as consumer, pytest.raises(KafkaException):
        consumer.get_watermark_offsets(TopicPartition(other, 0), timeout=20)


@pytest.mark.parametrize("connected", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["rights", "connection"])
def test_a_user_that_is_removed_is_cut_off(cluster: Cluster, topics: tuple[str, str], connected: bool) -> None:
    topic, _ = topics
    assert REAUTHENTICATION_MS < CUT_OFF_SECONDS * 1000
    made = brokerusers.create(cluster, "leaver", Wanted(produce=[topic], consume=[topic]))
    errors: list[int] = []
    outcomes: list[int] = []
    producer = Producer(client(made, error_cb=lambda error: errors.append(error.code()), **{"linger.ms": 0}))

    def outcome() -> int:
        producer.produce(topic, b"x", on_delivery=lambda error, _: outcomes.append(error.code() if error else 0))
        assert producer.flush(120) == 0
        return outcomes[-1]

    assert outcome() == 0
    brokerusers.remove(cluster, "leaver")

    # The rights go first, which who is connected feels with the next record; the connection itself ends when it is to sign in anew.
    until(lambda: outcome() != 0, "the loss of the right")
    assert set(outcomes) <= {0, KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._AUTHENTICATION}
    if connected:
        until(lambda: producer.poll(0.1) is not None and KafkaError._AUTHENTICATION in errors, "its end")
    with pytest.raises(KafkaUnusableError) as refused:
        ping(KafkaSettings(made.bootstrap, made.options), 15)
    assert refused.value.code == "kafka.authentication"
    assert "leaver" not in brokerusers.users(cluster)


@pytest.mark.slow
def test_signing_in_anew_disturbs_nobody(cluster: Cluster, topics: tuple[str, str]) -> None:
    topic, _ = topics
    made = brokerusers.create(cluster, "steady", Wanted(produce=[topic], consume=[topic], transactions="steady_"))
    errors: list[str] = []

    def noted(error: KafkaError) -> None:
        errors.append(error.str())

    producer = Producer(client(made, error_cb=noted, **{"transactional.id": "steady_1"}))
    producer.init_transactions(30)
    group = {"group.id": "steady_group", "group.protocol": "consumer", "auto.offset.reset": "earliest"}
    sent, received = 0, 0
    with closing(Consumer(client(made, error_cb=noted, **group, **{"isolation.level": "read_committed"}))) as consumer:
        consumer.subscribe([topic])
        end = time.monotonic() + 4 * REAUTHENTICATION_MS / 1000
        while time.monotonic() < end or received < sent:
            if time.monotonic() < end:
                producer.begin_transaction()
                producer.produce(topic, b"%d" % sent)
                producer.commit_transaction(20)
                sent += 1
            for message in consumer.consume(100, 0.05):
                assert message.error() is None
                assert message.value() == b"%d" % received, "none is lost, repeated or overtaken"
                received += 1
            assert time.monotonic() < end + 60
    assert errors == []


def test_the_password_of_a_user_is_shown_once_or_written_where_only_its_owner_reads_it(
    owned: EmbeddedKafka, topics: tuple[str, str], tmp_path: Path
) -> None:
    home, file = str(owned.home), tmp_path / "kcat.conf"
    made = call("--home", home, "broker", "user", "create", "billing", "--produce", topics[0], "--file", str(file))
    assert made.exit_code == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = dict(line.split("=", 1) for line in file.read_text().splitlines())
    password = lines["sasl.password"]
    assert len(password) >= 40
    assert password not in made.output
    ping(KafkaSettings(lines.pop("bootstrap.servers"), lines), 15)

    again = call("--home", home, "broker", "user", "create", "billing", "--produce", topics[0])
    assert (again.exit_code, again.stderr.splitlines()[0].split(":")[0]) == (2, "error[user.exists]")
    listed = call("--home", home, "broker", "user", "ls", "-o", "json")
    assert {one["name"]: one["rights"] for one in json.loads(listed.stdout)}["billing"] == [
        {"resource": "topic", "name": topics[0], "operation": "write", "prefixed": False}
    ]
    assert call("--home", home, "broker", "user", "rm", "billing").exit_code == 0
    gone = call("--home", home, "broker", "user", "rm", "billing")
    assert (gone.exit_code, "error[user.unknown]" in gone.stderr) == (2, True)

    own = call("--home", home, "broker", "client", "-o", "json")
    assert json.loads(own.stdout)["options"] == running(owned).client_options
    trail = call("--home", home, "audit", "list", "-o", "json").output
    assert "user.create" in trail
    assert password not in trail


@pytest.mark.parametrize(
    ("name", "wanted", "code"),
    [
        ("trunkline", Wanted(produce=["kept"]), "user.name"),
        ("trunkline-internal", Wanted(produce=["kept"]), "user.name"),
        ("a_b", Wanted(produce=["kept"]), "user.name"),
        ("*", Wanted(produce=["kept"]), "user.name"),
        ("ann", Wanted(), "user.rights"),
        ("ann", Wanted(produce=["_trunkline.manifests"]), "user.rights"),
        ("ann", Wanted(produce=["acme._trunkline.manifests"]), "user.rights"),
        ("ann", Wanted(consume=["__consumer_offsets"]), "user.rights"),
        ("ann", Wanted(produce=["*"]), "topic.unknown"),
        ("ann", Wanted(produce=["kep"]), "topic.unknown"),
        ("ann", Wanted(consume=["kept"], groups=""), "user.rights"),
        ("ann", Wanted(consume=["kept"], groups="orders-"), "user.rights"),
        ("ann", Wanted(consume=["kept"], groups="_trunkline"), "user.rights"),
        ("ann", Wanted(consume=["kept"], groups="*"), "user.rights"),
        ("ann", Wanted(produce=["kept"], transactions="acme."), "user.rights"),
    ],
)
def test_what_would_give_more_than_was_meant_is_refused(cluster: Cluster, name: str, wanted: Wanted, code: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        brokerusers.create(cluster, name, wanted)
    assert refused.value.code == code
    assert name not in brokerusers.users(cluster)


def test_a_user_that_could_not_be_given_a_password_has_no_rights_either(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object) -> str:
        raise TrunklineError("the broker went away")

    monkeypatch.setattr(brokerusers, "set_password", fails)
    with pytest.raises(TrunklineError, match="went away"):
        brokerusers.create(cluster, "halfway", Wanted(produce=["kept"]))
    assert "halfway" not in brokerusers.users(cluster)


def test_a_removal_that_was_broken_off_is_done_by_removing_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = brokerusers.create(cluster, "twice", Wanted(produce=["kept"]))

    def fails(*_arguments: object) -> bool:
        raise TrunklineError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(brokerusers, "delete_password", fails)
        with pytest.raises(TrunklineError, match="killed"):
            brokerusers.remove(cluster, "twice")
    with pytest.raises(ConfigurationError) as exists:
        brokerusers.create(cluster, "twice", Wanted(produce=["kept"]))
    assert exists.value.code == "user.exists"
    assert brokerusers.remove(cluster, "twice") == []
    with pytest.raises(KafkaUnusableError) as refused:
        ping(KafkaSettings(made.bootstrap, made.options), 15)
    assert refused.value.code == "kafka.authentication"


def test_who_may_not_change_users_is_told_so(cluster: Cluster, topics: tuple[str, str]) -> None:
    made = brokerusers.create(cluster, "curious", Wanted(produce=[topics[0]]))
    visitor = Cluster(KafkaSettings(made.bootstrap, made.options), Names(), "curious", cluster.registry)

    for what in (
        lambda: brokerusers.users(visitor),
        lambda: brokerusers.create(visitor, "friend", Wanted(produce=[topics[0]])),
        lambda: brokerusers.remove(visitor, "reader"),
    ):
        with pytest.raises(TrunklineError) as refused:
            what()
        assert refused.value.code == "kafka.denied_cluster"
