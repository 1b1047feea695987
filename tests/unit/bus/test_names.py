"""What things are called, and in which states a pipeline is said to be."""

from __future__ import annotations

import pytest

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.core.errors import ConfigurationError


def test_a_namespace_stands_before_every_name() -> None:
    names = Names("acme")
    found = [
        names.manifests, names.control, names.status, names.positions, names.leases, names.deliveries, names.trace,
        names.redriven, names.schemas, names.group("p"), names.dead_letters("p"), names.retry("p"),
        names.transactional_id("p", "w", "0"),
    ]  # fmt: skip
    assert all(name.startswith("acme.") for name in found)
    assert len(set(found)) == len(found)
    assert names.event_source("p") == "/acme/p"


def test_without_a_namespace_names_are_bare() -> None:
    names = Names()
    assert (names.group("p"), names.dead_letters("p"), names.retry("p")) == ("p", "p.dlq", "p.retry")
    assert names.transactional_id("p", "w", "0") == "p.w.0"
    assert names.event_source("p") == "/trunkline/p"


@pytest.mark.parametrize("namespace", ["Acme", "a.b", "-a", "a" * 32, "a b", "ü", "a\n"])
def test_a_namespace_that_would_not_stay_apart_is_refused(namespace: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Names(namespace)
    assert raised.value.code == "namespace.invalid"


@pytest.mark.parametrize("option", ["plugin.library.paths", "acks", "enable.auto.commit", "ssl.engine.location"])
def test_options_that_load_code_or_break_a_promise_are_refused(option: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        KafkaSettings("localhost:9092", {option: "x"})
    assert raised.value.code == "kafka.option"


def test_a_misspelt_option_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ConfigurationError, match=r"sasl\.username"):
        KafkaSettings("localhost:9092", {"sasl.usernam": "x"})


def test_options_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_KAFKA_SASL_USERNAME", "me")
    assert KafkaSettings.from_environment("b:1").options == {"sasl.username": "me"}
