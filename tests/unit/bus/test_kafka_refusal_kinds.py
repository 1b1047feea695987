"""What librdkafka says of a cluster that can't be used, taken apart: each line was said by librdkafka 2.16 of Kafka 4.3.1."""

from __future__ import annotations

import re

import pytest
from confluent_kafka import KafkaError

from trunkline.bus.kafka.errors import passes, translate
from trunkline.bus.kafka.refusals import KINDS, Said, classify, unusable_options
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError

_AUTHENTICATION = KafkaError._AUTHENTICATION
_TRANSPORT, _RESOLVE, _SSL, _ALL_DOWN = (
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._SSL,
    KafkaError._ALL_BROKERS_DOWN,
)
LINES = [
    (
        _AUTHENTICATION,
        (
            "sasl_plaintext://127.0.0.1:30832/bootstrap: SASL authentication error: Authentication failed during authentication due to "
            "invalid credentials with SASL mechanism SCRAM-SHA-512 (after 330ms in state AUTH_REQ)"
        ),
        "kafka.authentication",
    ),
    (
        _AUTHENTICATION,
        (
            "sasl_plaintext://127.0.0.1:30832/1: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's "
            "supported mechanisms: SCRAM-SHA-512 (after 301ms in state AUTH_HANDSHAKE)"
        ),
        "kafka.sasl_mechanism",
    ),
    (
        _AUTHENTICATION,
        (
            "sasl_plaintext://127.0.0.1:27100/bootstrap: SASL SCRAM-SHA-512 mechanism handshake failed: Broker: Request not valid in "
            "current SASL state: broker's supported mechanisms:  (after 0ms in state AUTH_HANDSHAKE)"
        ),
        "kafka.sasl_unexpected",
    ),
    (_AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: Could not connect to server", "kafka.token"),
    (
        _AUTHENTICATION,
        (
            'sasl_plaintext://127.0.0.1:29556/bootstrap: SASL authentication error: {"status":"invalid_token"} (after 346ms in state '
            "AUTH_REQ)"
        ),
        "kafka.token_refused",
    ),
    (
        _TRANSPORT,
        (
            "ssl://127.0.0.1:27100/bootstrap: SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT "
            "broker listener? (after 2ms in state SSL_HANDSHAKE)"
        ),
        "kafka.tls_to_plaintext",
    ),
    (
        _TRANSPORT,
        "ssl://127.0.0.1:30621/bootstrap: error:0A000086:SSL routines::certificate verify failed (after 4ms in state SSL_HANDSHAKE)",
        "kafka.tls_ca",
    ),
    (
        _TRANSPORT,
        (
            "ssl://127.0.0.1:25226/bootstrap: Receive failed: error:0A000412:SSL routines::ssl/tls alert bad certificate: SSL alert "
            "number 42 (after 1ms in state APIVERSION_QUERY)"
        ),
        "kafka.tls_client_certificate",
    ),
    (
        _SSL,
        (
            "ssl://127.0.0.1:25226/bootstrap: SSL handshake failed: error:0A000410:SSL routines::ssl/tls alert handshake failure "
            "(after 1ms in state SSL_HANDSHAKE)"
        ),
        "kafka.tls",
    ),
    (
        _RESOLVE,
        (
            "no-such-host.invalid:9092/bootstrap: Failed to resolve 'no-such-host.invalid:9092': Name or service not known "
            "(after 1ms in state CONNECT)"
        ),
        "kafka.unknown_host",
    ),
    (
        _TRANSPORT,
        (
            "127.0.0.1:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT, "
            "3 identical error(s) suppressed)"
        ),
        "kafka.refused",
    ),
    (
        KafkaError._TIMED_OUT,
        "10.0.0.1:9092/2: 1 request(s) timed out: disconnect (average rtt 3.1ms) (after 61000ms in state UP)",
        "kafka.timeout",
    ),
    (
        _TRANSPORT,
        "127.0.0.1:30621/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN (after 0ms in state APIVERSION_QUERY)",
        "kafka.disconnected",
    ),
]


@pytest.mark.parametrize(("code", "line", "expected"), LINES, ids=[case[2] for case in LINES])
def test_each_reason_has_a_code_a_hint_and_the_address_that_was_meant(code: int, line: str, expected: str) -> None:
    found = classify([Said.of(code, line)], "cluster:1")

    assert found is not None
    error = found.error
    address = re.search(r"(\S+:\d+)/", line.removeprefix("sasl_plaintext://").removeprefix("ssl://"))
    assert (error.code, error.exit_code) == (expected, 3)
    assert (address[1] if address else "") in error.message
    assert "in state" not in error.message
    assert error.hint == KINDS[expected].hint


def test_no_two_reasons_share_a_hint() -> None:
    assert len({kind.hint for kind in KINDS.values()}) == len(KINDS)


def test_of_many_things_said_the_one_that_tells_most_is_the_reason() -> None:
    said = [
        Said.of(
            _TRANSPORT,
            "a:1/bootstrap: Connect to ipv4#10.0.0.1:1 failed: Connection refused (after 0ms in state CONNECT)",
        ),
        Said.of(
            _AUTHENTICATION, "sasl_ssl://b:2/bootstrap: SASL authentication error: no (after 3ms in state AUTH_REQ)"
        ),
        Said.of(_ALL_DOWN, "2/2 brokers are down"),
    ]

    found = classify(said, "a:1,b:2")

    assert found is not None
    assert (found.kind.code, found.address) == ("kafka.authentication", "b:2")


def test_that_all_brokers_are_down_is_no_reason() -> None:
    assert classify([Said.of(_ALL_DOWN, "1/1 brokers are down")], "a:1") is None


def test_a_line_of_the_clients_log_is_taken_apart_like_what_it_calls_back() -> None:
    line = "[thrd:ssl://[::1]:9093/7]: ssl://[::1]:9093/7: Disconnected (after 5ms in state UP)"

    assert Said.of(_TRANSPORT, line) == Said(_TRANSPORT, "[::1]:9093", "Disconnected", "UP", listed=True)


def test_options_that_no_client_can_be_made_of_are_wrong_input() -> None:
    error = unusable_options(KafkaError(KafkaError._INVALID_ARG, "Unsupported SASL mechanism: FOO"), {})

    assert isinstance(error, ConfigurationError)
    assert (error.code, error.exit_code) == ("kafka.options", 2)


def test_a_client_that_a_missing_right_ended_for_good_says_which_right() -> None:
    words = "Fatal error: Broker: Group authorization failed: ConsumerGroupHeartbeat fatal error"
    error = translate(KafkaError(KafkaError._FATAL, words), "reading failed")
    assert (type(error), error.code) == (FatalError, "kafka.denied_group")
    assert "grant" in (error.hint or "")
    other = translate(KafkaError(KafkaError._FATAL, "Fatal error: Local: Fenced"), "reading failed")
    assert isinstance(other, RetriableError)


@pytest.mark.parametrize("code", [KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED])
def test_a_member_whose_sign_in_is_refused_goes_on_and_a_reader_is_told(code: int) -> None:
    refused = KafkaError(code, "FindCoordinator response error: Local: Authentication failure")
    assert passes(refused)
    assert not passes(refused, member=False)
