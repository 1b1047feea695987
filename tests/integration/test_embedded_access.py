"""The embedded broker asks who is there: our own clients, users with rights of their own, and nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from typer.testing import CliRunner, Result

from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions, RunningBroker, find_at, find_running
from trunkline.bus.embedded.options import REAUTHENTICATION_MS
from trunkline.bus.embedded.password import FILE
from trunkline.bus.kafka import KafkaSettings, KafkaUnusableError, closing, ping, produce_and_wait, read_all
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.bus.worker.board import Board
from trunkline.cli.main import app
from trunkline.control import brokerusers
from trunkline.control.brokerusers import NewUser, Wanted
from trunkline.control.checkup import Finding, Level, Machine, examine
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, TrunklineError
from trunkline.kafkaclient import AdminClient

pytestmark = pytest.mark.kafka
CUT_OFF_SECONDS = 5
"""Who is removed has no connection any more after this long."""


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker as users start it, in a folder that an older version made: readable by everybody, with an open broker's data."""
    home = tmp_path_factory.mktemp("older") / "home"
    with EmbeddedKafka(home, EmbeddedOptions(open=True)) as older:
        kafka = settings(running(older))
        ensure_topics(kafka, [TopicPlan("kept", 1)])
        produce_and_wait(kafka.producer(), "kept", b"of an older version", None)
    home.chmod(0o755)
    with EmbeddedKafka(home) as broker:
        yield broker


@pytest.fixture
def broker(owned: EmbeddedKafka) -> RunningBroker:
    return running(owned)


def running(broker: EmbeddedKafka) -> RunningBroker:
    assert broker.running is not None
    return broker.running


def settings(broker: RunningBroker, options: dict[str, str] | None = None) -> KafkaSettings:
    return KafkaSettings(broker.bootstrap, broker.client_options if options is None else options)


def no_registry() -> Any:
    raise AssertionError("no schema is needed")


@pytest.fixture
def cluster(broker: RunningBroker) -> Cluster:
    return Cluster(settings(broker), Names(), "somebody", no_registry)


@pytest.fixture
def topics(broker: RunningBroker) -> tuple[str, str]:
    """Two topics, of which the users of a test have rights on the first."""
    one, other = f"t{uuid.uuid4().hex[:8]}", f"t{uuid.uuid4().hex[:8]}"
    ensure_topics(settings(broker), [TopicPlan(one, 1), TopicPlan(other, 1)])
    return one, other


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come to be in {seconds:g} s"
        time.sleep(0.05)


# --- who is let in ---


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (None, "kafka.sasl_required"),
        ({"sasl.password": "another"}, "kafka.authentication"),
        pytest.param({"sasl.username": "admin"}, "kafka.authentication", marks=pytest.mark.slow),
        pytest.param({"sasl.username": "trunkline-internal"}, "kafka.authentication", marks=pytest.mark.slow),
        pytest.param({"sasl.mechanism": "SCRAM-SHA-512"}, "kafka.authentication", marks=pytest.mark.slow),
    ],
    ids=["nobody", "another password", "another user", "the broker's own user", "our user by SCRAM"],
)
def test_who_does_not_have_the_password_is_refused(
    broker: RunningBroker, change: dict[str, str] | None, code: str
) -> None:
    options = {} if change is None else {**broker.client_options, **change}
    with pytest.raises(KafkaUnusableError) as refused:
        ping(settings(broker, options), 15)

    assert refused.value.code == code


def test_a_folder_of_an_older_version_is_secured_and_nothing_in_it_is_lost(
    owned: EmbeddedKafka, broker: RunningBroker
) -> None:
    assert [message.value() for message in read_all(settings(broker), "kept")] == [b"of an older version"]
    assert not broker.is_open
    for folder in (owned.home, owned.home / "kafka"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    password = broker.client_options["sasl.password"]
    holders = {
        str(path.relative_to(owned.home))
        for path in owned.home.rglob("*")
        if path.is_file() and password.encode() in path.read_bytes()
    }
    assert holders == {"broker.json", f"kafka/{FILE}", "kafka/server.properties"}
    for name in holders:
        assert stat.S_IMODE((owned.home / name).stat().st_mode) == 0o600, name
    assert password.encode() not in Path(f"/proc/{broker.pid}/cmdline").read_bytes()
    assert password not in repr(broker) + repr(owned.options)


@pytest.mark.slow
def test_clients_that_wait_for_the_broker_know_its_password_when_it_is_back(owned: EmbeddedKafka) -> None:
    before = running(owned)
    owned.kill()
    (owned.home / "kafka" / FILE).write_text("damaged while it was down")

    after = owned.start()

    assert after.client_options == before.client_options
    ping(settings(before), 30)
    assert (owned.home / "kafka" / FILE).read_text().strip() == before.client_options["sasl.password"]


@pytest.mark.slow
def test_with_tls_the_broker_proves_itself_before_anybody_shows_it_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUNKLINE_BROKER_TLS", "1")
    with EmbeddedKafka(tmp_path / "home", EmbeddedOptions.from_environment()) as sealed:
        found = running(sealed)
        assert (found.client_options["security.protocol"], found.client_options["sasl.mechanism"]) == (
            "SASL_SSL",
            "PLAIN",
        )
        kafka = settings(found)
        ensure_topics(kafka, [TopicPlan("sealed", 1)])
        produce_and_wait(kafka.producer(), "sealed", b"record", None)
        made = brokerusers.create(
            Cluster(kafka, Names(), "somebody", no_registry), "reader", Wanted(consume=["sealed"])
        )

        assert consumed(made, "sealed", "reader_group") == b"record"
        untrusting = {name: value for name, value in found.client_options.items() if name != "ssl.ca.location"}
        for options, code in (
            (untrusting, "kafka.tls_ca"),
            (found.client_options | {"security.protocol": "SASL_PLAINTEXT"}, "kafka.plaintext_to_tls"),
            (found.client_options | {"security.protocol": "SSL"}, "kafka.sasl_required"),
        ):
            with pytest.raises(KafkaUnusableError) as refused:
                ping(settings(found, options), 15)
            assert refused.value.code == code


@pytest.mark.parametrize(("said", "tls"), [("1", True), ("Yes", True), ("0", False), ("off", False), ("", False)])
def test_tls_is_switched_on_and_off_by_a_variable(monkeypatch: pytest.MonkeyPatch, said: str, tls: bool) -> None:
    monkeypatch.setenv("TRUNKLINE_BROKER_TLS", said)
    assert EmbeddedOptions.from_environment().tls is tls


def test_a_variable_that_says_neither_yes_nor_no_switches_nothing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_BROKER_TLS", "ture")
    with pytest.raises(ConfigurationError, match="TRUNKLINE_BROKER_TLS"):
        EmbeddedOptions.from_environment()


# --- what commands do about it ---


def call(*arguments: str, **environment: str | None) -> Result:
    return CliRunner(env=environment).invoke(app, list(arguments))


def test_commands_find_the_password_in_the_home_folder_also_where_its_address_is_named(
    owned: EmbeddedKafka, broker: RunningBroker, tmp_path: Path
) -> None:
    local = broker.bootstrap.replace("127.0.0.1", "localhost")
    for home, bootstrap in ((owned.home, None), (tmp_path, broker.bootstrap), (tmp_path, local)):
        named = call("--home", str(home), "topic", "ls", "-o", "json", TRUNKLINE_BOOTSTRAP_SERVERS=bootstrap)
        assert named.exit_code == 0, named.stderr
        assert "kept" in named.stdout

    without = {"TRUNKLINE_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}
    refused = call("--home", str(tmp_path), "--bootstrap", broker.bootstrap, "status", **without)
    assert refused.exit_code == 3
    assert refused.stderr.startswith("error[kafka.sasl_required]")
    assert "trunkline broker client" in refused.stderr
    assert find_at(broker.bootstrap) == find_at(local) == broker
    for other in ("127.0.0.1:1", f"kafka.example.com:{broker.bootstrap.rpartition(':')[2]}", "127.0.0.1", ""):
        assert find_at(other) is None


def test_the_doctor_is_loud_about_an_open_broker_and_silent_about_one_that_asks(
    owned: EmbeddedKafka, broker: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(owned.home, True, lambda: settings(broker), lambda: None, {}, {})

    def found() -> Finding:
        return next(one for one in examine(machine) if one.what == "broker")

    assert found().level is Level.OK
    is_open = RunningBroker(broker.bootstrap, broker.pid, broker.cluster_id, broker.version, {})
    monkeypatch.setattr("trunkline.bus.embedded.find_running", lambda _home: is_open)
    assert found().level is Level.WARN
    assert "OPEN" in found().found
    assert "TRUNKLINE_OPEN" in (found().hint or "")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--open", "TRUNKLINE_OPEN"])
def test_a_broker_that_was_opened_for_an_experiment_says_so_and_is_closed_again_by_the_next_start(
    tmp_path: Path, way: str
) -> None:
    home = tmp_path / "home"
    named = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}

    @contextlib.contextmanager
    def up(*options: str, **environment: str) -> Iterator[RunningBroker]:
        command = [sys.executable, "-m", "trunkline.cli.main", "--home", str(home), "up", *options]
        (home / "endpoint.json").unlink(missing_ok=True)
        with (tmp_path / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, env={**named, **environment}, stdout=log, stderr=log)
            try:
                until((home / "endpoint.json").exists, "the worker", 180)
                found = find_running(home)
                assert found is not None
                yield found
            finally:
                process.terminate()
                process.wait()

    opened = up("--open") if way == "--open" else up(TRUNKLINE_OPEN="1")
    with opened as broker:
        ping(KafkaSettings(broker.bootstrap), 30)
        assert b"the embedded broker is open" in (tmp_path / "log.txt").read_bytes()
        assert call("--home", str(home), "topic", "ls").exit_code == 0
    with up("--workers", "2") as broker:
        with pytest.raises(KafkaUnusableError) as refused:
            ping(KafkaSettings(broker.bootstrap), 30)
        assert refused.value.code == "kafka.sasl_required"
        assert b"is open" not in (tmp_path / "log.txt").read_bytes()
        until(lambda: fresh_workers(broker) == 2, "both workers", 180)
        password = broker.client_options["sasl.password"].encode()
        assert password not in (tmp_path / "log.txt").read_bytes()
        assert password not in b"".join(command_lines())


def fresh_workers(broker: RunningBroker) -> int:
    """How many workers report themselves."""
    return len([one for one in Board(settings(broker), Names()).workers() if one.fresh])


def command_lines() -> Iterator[bytes]:
    """Of every process of the machine."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield file.read_bytes()


# --- users with rights of their own ---


def client(made: NewUser, **more: Any) -> dict[str, Any]:
    """A client of a user, silent about what it is refused: the tests are about that."""
    quiet = {"error_cb": lambda _error: None, "log_level": 0}
    return {"bootstrap.servers": made.bootstrap, **made.options, **quiet, **more}


def produced(made: NewUser, topic: str, **more: Any) -> int:
    """Writes a record; the code of what came of it, 0 where it is there."""
    codes: list[int] = []
    producer = Producer(client(made, **{"enable.idempotence": True, "message.timeout.ms": 100_000, **more}))
    producer.produce(topic, b"x", on_delivery=lambda error, _: codes.append(error.code() if error is not None else 0))
    assert producer.flush(120) == 0
    return codes[0]


def consumed(made: NewUser, topic: str, group: str) -> bytes | int | None:
    """Reads a topic as a member of a group: its first value, or the code of what it is refused."""
    protocol = {"group.protocol": "consumer", "auto.offset.reset": "earliest"}
    consumer = Consumer(client(made, **{"group.id": group, **protocol}))
    try:
        consumer.subscribe([topic])
        message = consumer.poll(120)
        assert message is not None
        error = message.error()
        return message.value() if error is None else int(error.code())
    except KafkaException as refused:
        return int(refused.args[0].code())
    finally:
        consumer.close()


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
