"""The embedded broker asks who is there: our own clients know its password, and nobody else does."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_owner import call, consumed, no_registry, running, settings, until

from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions, RunningBroker, find_at, find_running
from trunkline.bus.embedded.password import FILE
from trunkline.bus.kafka import KafkaSettings, KafkaUnusableError, ping, produce_and_wait, read_all
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.bus.worker.board import Board
from trunkline.control import brokerusers
from trunkline.control.brokerusers import Wanted
from trunkline.control.checkup import Finding, Level, Machine, examine
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError

pytestmark = pytest.mark.kafka


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
