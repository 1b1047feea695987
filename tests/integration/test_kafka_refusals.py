"""Each way in which Kafka can refuse a client, on the real thing: its code, the address it names, and what it says to do."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    NewTopic,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from typer.testing import CliRunner, Result

from tests.chaos.faults.brokers import Broker
from tests.conftest import KafkaUnderTest
from tests.integration.kafka_listeners import PASSWORD, UNKNOWN_HOST, ManyListeners, allowing_keys, scram
from tests.integration.three_brokers import three_brokers
from tests.integration.token_service import CLIENT as TOKEN_CLIENT
from tests.integration.token_service import SECRET, TokenService
from trunkline.bus.kafka import (
    KafkaHealth,
    KafkaSettings,
    KafkaUnusableError,
    closing,
    ping,
    produce_and_wait,
    translate,
)
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.cli.main import app
from trunkline.core.errors import FatalError


def refusal_of(settings: KafkaSettings, timeout: float = 15.0) -> KafkaUnusableError:
    """What a cluster that can't be used is said to be."""
    with pytest.raises(KafkaUnusableError) as refused:
        ping(settings, timeout)
    assert refused.value.exit_code == 3
    assert refused.value.hint
    return refused.value


@pytest.fixture
def silent_port() -> Iterator[str]:
    """The address of something that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


# --- with any broker ---


def test_tls_to_a_listener_without_it(kafka: KafkaUnderTest) -> None:
    error = refusal_of(KafkaSettings(kafka.bootstrap, {"security.protocol": "SSL"}))

    assert error.code == "kafka.tls_to_plaintext"
    assert kafka.bootstrap in error.message


def test_a_command_says_the_same_and_ends_with_3(kafka: KafkaUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_KAFKA_SECURITY_PROTOCOL", "SSL")
    result = CliRunner().invoke(app, ["--bootstrap", kafka.bootstrap, "status"])

    assert result.exit_code == 3
    assert result.stderr.startswith(f"error[kafka.tls_to_plaintext]: the listener at {kafka.bootstrap} speaks no TLS")
    assert "hint: use the port of its TLS listener" in result.stderr
    assert len(result.stderr.splitlines()) == 2, "the client's own errors are not beside it"


def test_signing_in_at_a_listener_that_has_no_sign_in(kafka: KafkaUnderTest) -> None:
    error = refusal_of(KafkaSettings(kafka.bootstrap, scram()))

    assert error.code == "kafka.sasl_unexpected"
    assert kafka.bootstrap in error.message


def test_a_name_that_nobody_has() -> None:
    error = refusal_of(KafkaSettings("no-such-broker.invalid:9092"), 0.5)

    assert error.code == "kafka.unknown_host"
    assert "no-such-broker.invalid:9092" in error.message


def test_a_broker_that_never_answers(silent_port: str) -> None:
    error = refusal_of(KafkaSettings(silent_port), 0.5)

    assert error.code == "kafka.timeout"
    assert silent_port in error.message


def test_one_address_that_answers_is_enough(kafka: KafkaUnderTest) -> None:
    ping(KafkaSettings(f"127.0.0.1:1,{kafka.bootstrap}"))


# --- with a broker that has a listener for each ---


@pytest.fixture(scope="module")
def tokens() -> Iterator[TokenService]:
    with TokenService() as made:
        yield made


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory, tokens: TokenService) -> Iterator[ManyListeners]:
    made = ManyListeners(tmp_path_factory.mktemp("listeners"), tokens=tokens)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(*allowing_keys(tokens))  # for its restarts, too
        made.broker.start()
        try:
            yield made
        finally:
            made.broker.stop()


@dataclass(frozen=True)
class Case:
    """A client that is refused: where, with which options, and what is to be said."""

    listener: str
    code: str
    options: Callable[[ManyListeners], dict[str, str]] = field(default=lambda _: {})
    says: str = ""


def tls(listeners: ManyListeners, **more: str) -> dict[str, str]:
    """The options of a client that speaks TLS and trusts the authority of the broker."""
    options = {"security.protocol": "SSL", "ssl.ca.location": str(listeners.authority)}
    return options | {name.replace("_", "."): value for name, value in more.items()}


def certificate(listeners: ManyListeners, name: str, key: str | None = None) -> dict[str, str]:
    """The options of a client with a certificate: `client`, `late` (expired) or `foreign` (of another authority)."""
    home = listeners.home
    return tls(
        listeners,
        ssl_certificate_location=str(home / f"{name}.pem"),
        ssl_key_location=str(home / f"{key or name}.key"),
    )


def token(endpoint: str, secret: str = SECRET) -> dict[str, str]:
    """The options of a client that gets tokens."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": TOKEN_CLIENT,
        "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.token.endpoint.url": endpoint,
    }


def of_service(kind: str, secret: str = SECRET) -> Callable[[ManyListeners], dict[str, str]]:
    """The options of a client that gets tokens of a kind from the service of the broker."""
    return lambda made: token(made.tokens.endpoint(kind), secret)


CASES = {
    "a wrong password": Case("CLIENT", "kafka.authentication", lambda _: scram(password="wrong")),
    "an unknown user": Case("CLIENT", "kafka.authentication", lambda _: scram("nobody")),
    "another mechanism": Case(
        "CLIENT", "kafka.sasl_mechanism", lambda _: scram(sasl_mechanism="PLAIN"), "supported mechanisms: SCRAM-SHA-512"
    ),
    # Said by a setting: a command signs in by itself to an embedded broker that it finds at the address.
    "no sign-in": Case(
        "CLIENT", "kafka.sasl_required", lambda _: {"security.protocol": "PLAINTEXT"}, says="SCRAM-SHA-512"
    ),
    "a sign-in where there is none": Case("OPEN", "kafka.sasl_unexpected", lambda _: scram()),
    "a sign-in at a TLS listener without one": Case(
        "TLS", "kafka.sasl_unexpected", lambda made: scram() | tls(made, security_protocol="SASL_SSL")
    ),
    "no TLS": Case("TLS", "kafka.plaintext_to_tls"),
    "a sign-in without TLS": Case("TLS", "kafka.plaintext_to_tls", lambda _: scram()),
    "TLS where there is none": Case("OPEN", "kafka.tls_to_plaintext", tls),
    "no authority": Case("TLS", "kafka.tls_ca", lambda _: {"security.protocol": "SSL"}, "self-signed certificate"),
    "another authority": Case("TLS", "kafka.tls_ca", lambda made: tls(made, ssl_ca_location=str(made.stranger))),
    "an authority's file that is not there": Case(
        "TLS",
        "kafka.tls_ca",
        lambda made: tls(made, ssl_ca_location=str(made.home / "none.pem")),
        "none.pem can't be used: No such file",
    ),
    "a certificate that has expired": Case("EXPIRED", "kafka.tls_expired", tls, "has expired"),
    "a certificate for another name": Case("MISNAMED", "kafka.tls_hostname", tls, "not valid for '127.0.0.1'"),
    "no client certificate": Case("MUTUAL", "kafka.tls_client_certificate", tls, "none is set"),
    "a client certificate that is not there": Case(
        "MUTUAL",
        "kafka.tls_client_certificate",
        lambda made: tls(made, ssl_certificate_location=str(made.home / "none.pem")),
        "No such file",
    ),
    "a client certificate that has expired": Case(
        "MUTUAL", "kafka.tls_client_certificate", lambda made: certificate(made, "late")
    ),
    "a client certificate of another authority": Case(
        "MUTUAL", "kafka.tls_client_certificate", lambda made: certificate(made, "foreign")
    ),
    "the key of another certificate": Case(
        "MUTUAL", "kafka.tls_client_certificate", lambda made: certificate(made, "client", "late")
    ),
    "a wrong password of PLAIN": Case(
        "PLAIN", "kafka.authentication", lambda _: scram(password="wrong", sasl_mechanism="PLAIN")
    ),
    "a wrong password of PLAIN over TLS": Case(
        "SIGNED",
        "kafka.authentication",
        lambda made: scram(password="wrong", sasl_mechanism="PLAIN") | tls(made, security_protocol="SASL_SSL"),
    ),
    "a wrong password over TLS": Case(
        "SIGNED",
        "kafka.authentication",
        lambda made: scram(password="wrong") | tls(made, security_protocol="SASL_SSL"),
    ),
    "no authority for a sign-in over TLS": Case(
        "SIGNED", "kafka.tls_ca", lambda _: scram(security_protocol="SASL_SSL")
    ),
    "no sign-in over TLS": Case("SIGNED", "kafka.sasl_required", tls, "PLAIN, SCRAM-SHA-512"),
    "a password where tokens are asked for": Case(
        "TOKENS", "kafka.sasl_mechanism", lambda _: scram(), "supported mechanisms: OAUTHBEARER"
    ),
    "a wrong secret for the token service": Case("TOKENS", "kafka.token", of_service("right", "wrong")),
    "a token service that gives none": Case("TOKENS", "kafka.token", of_service("empty")),
    "a token that has expired": Case("TOKENS", "kafka.token", of_service("expired")),
    "a token for another audience": Case("TOKENS", "kafka.token_refused", of_service("audience")),
    "a token of another issuer": Case("TOKENS", "kafka.token_refused", of_service("issuer")),
    "a token that somebody else signed": Case("TOKENS", "kafka.token_refused", of_service("key")),
    "an address that the cluster gives and nobody has": Case("LOST", "kafka.advertised", says=UNKNOWN_HOST),
    "a token service that is away": Case(
        "CLIENT",
        "kafka.token",
        lambda _: token("http://127.0.0.1:1/token"),
        "token",
    ),
}


def command(listeners: ManyListeners, case: Case, monkeypatch: pytest.MonkeyPatch) -> Result:
    """What a command says of it."""
    for name, value in case.options(listeners).items():
        monkeypatch.setenv(f"TRUNKLINE_KAFKA_{name.upper().replace('.', '_')}", value)
    return CliRunner().invoke(app, ["--bootstrap", listeners.address(case.listener), "status"])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_client_with(case: Case, listeners: ManyListeners, monkeypatch: pytest.MonkeyPatch) -> None:
    error = refusal_of(listeners.settings(case.listener, case.options(listeners)))

    assert error.code == case.code
    assert case.says in error.message
    result = command(listeners, case, monkeypatch)
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error[{case.code}]")
    assert f"hint: {error.hint}" in result.stderr
    local = {"kafka.token", "kafka.advertised"}
    if error.code not in local and error.where is None:
        assert listeners.address(case.listener) in error.message
    assert PASSWORD not in str(error)
    assert SECRET not in str(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("listener", "options"),
    [
        ("CLIENT", lambda _: scram()),
        ("OPEN", lambda _: {}),
        ("TLS", tls),
        ("MUTUAL", lambda made: certificate(made, "client")),
        ("PLAIN", lambda _: scram(sasl_mechanism="PLAIN")),
        ("SIGNED", lambda made: scram(sasl_mechanism="PLAIN") | tls(made, security_protocol="SASL_SSL")),
        ("SIGNED", lambda made: scram() | tls(made, security_protocol="SASL_SSL")),
        ("TOKENS", of_service("right")),
    ],
    ids=["SCRAM", "nothing", "TLS", "mTLS", "PLAIN", "PLAIN over TLS", "SCRAM over TLS", "OAUTHBEARER"],
)
def test_who_has_what_a_listener_asks_for_is_served(
    listener: str,
    options: Callable[[ManyListeners], dict[str, str]],
    listeners: ManyListeners,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As a user says them: each must be among the options that may be set.
    for name, value in options(listeners).items():
        monkeypatch.setenv(f"TRUNKLINE_KAFKA_{name.upper().replace('.', '_')}", value)
    settings = KafkaSettings.from_environment(listeners.address(listener))
    topic = f"t{uuid.uuid4().hex[:8]}"

    ping(settings)
    ensure_topics(settings, [TopicPlan(topic, 1)])
    producer = settings.producer(transactional_id=f"{topic}.writer")
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"in a transaction")
    producer.commit_transaction(30)
    with closing(settings.consumer(f"{topic}-group")) as member:
        member.subscribe([topic], on_assign=lambda one, partitions: settings.take(one, from_the_start(partitions)))
        received: list[bytes | None] = []

        def has_it() -> bool:
            received.extend(message.value() for message in member.consume(10, 0.2) if message.error() is None)
            return received == [b"in a transaction"]

        until(has_it, "the record")
    assert settings.admin().list_topics(topic, timeout=10).topics[topic].error is None


def from_the_start(partitions: list[TopicPartition]) -> list[TopicPartition]:
    return [TopicPartition(one.topic, one.partition, 0) for one in partitions]


@pytest.mark.slow
def test_who_signs_in_with_tokens_goes_on_when_they_expire(listeners: ManyListeners, tokens: TokenService) -> None:
    settings = listeners.settings("TOKENS", token(tokens.endpoint("short")))
    topic, given = f"t{uuid.uuid4().hex[:8]}", tokens.given
    ensure_topics(settings, [TopicPlan(topic, 1)])
    errors: list[str] = []
    producer = settings.client(Producer, {"error_cb": lambda error: errors.append(error.str())})

    def several_lives() -> bool:
        produce_and_wait(producer, topic, b"x", None)
        return tokens.given >= given + 4

    until(several_lives, "tokens for several lives of one")
    assert errors == []


@pytest.mark.slow
def test_each_right_that_is_missing_has_its_code_and_names_what_to_grant(listeners: ManyListeners) -> None:
    admin = listeners.settings("CLIENT", scram()).admin()
    set_password(listeners, "visitor", "visits")
    admin.create_topics([NewTopic("secret", 1, 1)])["secret"].result(15)
    visitor = listeners.settings("CLIENT", scram("visitor", "visits"))
    ping(visitor)  # who has no right at all can use the cluster all the same

    def write() -> None:
        failures: list[object] = []
        producer = visitor.producer()
        producer.produce("secret", b"x", on_delivery=lambda error, _message: failures.append(error))
        producer.flush(15)
        raise KafkaException(failures[0])

    def join() -> None:
        consumer = visitor.consumer("hidden")
        try:
            consumer.subscribe(["secret"])
            deadline = time.monotonic() + 15
            while time.monotonic() < deadline:
                message = consumer.poll(0.2)
                if message is not None and message.error() is not None:
                    raise KafkaException(message.error())
        finally:
            consumer.close()

    def create() -> None:
        visitor_admin = visitor.admin()
        visitor_admin.create_topics([NewTopic("mine", 1, 1)])["mine"].result(15)

    def begin() -> None:
        visitor.producer(transactional_id="mine").init_transactions(15)

    codes = {}
    for what in (write, join, create, begin):
        with pytest.raises(KafkaException) as refused:
            what()
        error = translate(refused.value, "it was refused")
        assert isinstance(error, FatalError)
        assert "grant" in (error.hint or "")
        codes[what.__name__] = error.code

    assert codes == {
        "write": "kafka.denied_topic",
        "join": "kafka.denied_group",
        "create": "kafka.denied_topic",
        "begin": "kafka.denied_transactional_id",
    }


# --- while a worker runs ---


def until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> float:
    """Waits for a condition; the seconds that took."""
    begun = time.monotonic()
    while not condition():
        if time.monotonic() - begun > seconds:
            raise AssertionError(f"{what} did not come to be in {seconds:g} s")
        time.sleep(0.05)
    return time.monotonic() - begun


@contextlib.contextmanager
def watching(settings: KafkaSettings) -> Iterator[KafkaHealth]:
    """A watch over a cluster that has been found well."""
    health = KafkaHealth(settings)
    health.start()
    try:
        until(lambda: health.answered_at is not None, "an answer")
        yield health
    finally:
        health.close()


def set_password(listeners: ManyListeners, user: str, password: str) -> None:
    """Changes the password of a user."""
    admin = listeners.settings("OPEN").admin()
    credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    change = UserScramCredentialUpsertion(user, credential, password.encode())
    admin.alter_user_scram_credentials([change])[user].result(15)


@pytest.mark.slow
def test_a_password_that_was_changed_is_named_once_the_broker_asks_again_and_no_more_once_it_is_right(
    listeners: ManyListeners,
) -> None:
    set_password(listeners, "worker", "old")
    settings = listeners.settings("CLIENT", scram("worker", "old"))
    with watching(settings) as health:
        set_password(listeners, "worker", "new")
        listeners.broker.stop()
        until(lambda: health.trouble() is not None, "trouble while the broker is away")
        away = health.trouble()
        assert away is not None
        assert away.code == "kafka.away"
        listeners.broker.start()

        until(lambda: getattr(health.trouble(), "code", "") == "kafka.authentication", "the password is refused")
        refused = health.trouble()
        assert refused is not None
        assert refused.since == away.since, "it has not worked since then"

        set_password(listeners, "worker", "old")
        until(lambda: health.trouble() is None, "all is well")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Broker(tmp_path_factory.mktemp("proxied"), proxied=True)
    broker.start()
    yield broker
    broker.close()


@pytest.mark.slow
def test_a_network_that_swallows_everything_is_named_and_no_more_once_it_lets_through(proxied: Broker) -> None:
    assert proxied.proxy is not None
    with watching(KafkaSettings(proxied.bootstrap)) as health:
        proxied.proxy.black_hole(on=True)
        until(lambda: health.trouble() is not None, "trouble")
        error = health.trouble()
        assert error is not None
        assert error.code == "kafka.timeout"
        assert proxied.bootstrap in error.message
        proxied.proxy.black_hole(on=False)
        until(lambda: health.trouble() is None, "all is well")


@pytest.mark.slow
def test_a_connection_that_died_without_a_word_holds_a_reader_up_for_seconds(proxied: Broker) -> None:
    assert proxied.proxy is not None
    ensure_topics(KafkaSettings(proxied.direct), [TopicPlan("stranded", 1)])
    with watching(KafkaSettings(proxied.bootstrap)) as health, closing(health.settings.consumer("reader")) as reader:
        reader.assign([TopicPartition("stranded", 0, 0)])
        received: list[bytes | None] = []

        def has(count: int) -> bool:
            received.extend(message.value() for message in reader.consume(10, 0.2) if message.error() is None)
            return len(received) == count

        writer = KafkaSettings(proxied.direct).producer()
        produce_and_wait(writer, "stranded", b"before", None)
        until(lambda: has(1), "the first record")
        proxied.proxy.strand()
        produce_and_wait(writer, "stranded", b"after", None)

        assert until(lambda: has(2), "the second record") < 45, "the client's own default is a minute"


@pytest.mark.slow
def test_one_broker_of_three_that_is_away_is_no_trouble_and_all_of_them_are() -> None:
    with three_brokers() as brokers:
        ping(KafkaSettings(brokers.bootstrap))
        gone = brokers.deafen(1)
        with watching(KafkaSettings(f"{gone},{brokers.bootstrap}")) as health:
            changes: list[object] = []
            health.on_change(lambda: changes.append(health.trouble()))
            producer = health.settings.producer()
            begun = health.answered_at or 0

            def asked_for_long() -> bool:
                producer.poll(0.1)  # it reports the broker that is away, so that the cluster is asked anew
                return (health.answered_at or 0) > begun + 8

            until(asked_for_long, "eight seconds of answers")
            assert changes == []
        brokers.deafen(0)
        brokers.deafen(2)
        assert refusal_of(KafkaSettings(brokers.bootstrap), 1.0).code == "kafka.refused"


@pytest.mark.slow
def test_an_idle_healthy_cluster_never_looks_troubled(
    listeners: ManyListeners, capsys: pytest.CaptureFixture[str]
) -> None:
    # Each client closes its connections after two idle seconds, and opens others when it needs them.
    options = {**scram(), "connections.max.idle.ms": "2000"}
    with watching(listeners.settings("CLIENT", options)) as health:
        changes: list[object] = []
        health.on_change(lambda: changes.append(health.trouble()))
        producer = health.settings.producer()
        producer.list_topics(timeout=10)
        begun = health.answered_at or 0

        def quiet_for_long() -> bool:
            producer.poll(0.1)
            return (health.answered_at or 0) > begun + 8

        until(quiet_for_long, "eight seconds of answers")

        assert changes == []
        assert health.trouble() is None
    assert "can't" not in capsys.readouterr().out
