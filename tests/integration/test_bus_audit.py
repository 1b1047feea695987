"""The audit trail: decisions stay, in their order, and those in a transaction stand or fall with it."""

from __future__ import annotations

import pytest
from conftest import KafkaUnderTest

from trunkline.bus.accounting.audit import append, entries
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, internal_topics, topic_states

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(kafka: KafkaUnderTest, namespace: str) -> KafkaSettings:
    made = KafkaSettings(kafka.bootstrap)
    ensure_topics(made, [plan for plan in internal_topics(Names(namespace)) if plan.name == Names(namespace).audit])
    return made


def test_the_trail_gives_decisions_back_in_their_order_whole_and_of_one_pipeline(
    settings: KafkaSettings, namespace: str
) -> None:
    names = Names(namespace)
    append(settings, names, "parked.drop", who="ada", pipeline="slack", details={"key": "c1"}, at=5.0)
    append(settings, names, "redrive.start", who="bob", pipeline="sheets")
    found = list(entries(settings, names))
    assert [(one.who, one.action, one.pipeline, one.details) for one in found] == [
        ("ada", "parked.drop", "slack", {"key": "c1"}),
        ("bob", "redrive.start", "sheets", {}),
    ]
    assert found[0].at == 5.0
    assert [one.who for one in entries(settings, names, "sheets")] == ["bob"]


def test_a_decision_in_a_transaction_that_aborts_never_was(settings: KafkaSettings, namespace: str) -> None:
    names = Names(namespace)
    producer = settings.producer(transactional_id=names.transactional_id("slack", "test"))
    producer.init_transactions(30)
    producer.begin_transaction()
    append(producer, names, "parked.drop", who="ada", pipeline="slack")
    producer.abort_transaction(30)
    producer.begin_transaction()
    append(producer, names, "parked.retry", who="ada", pipeline="slack")
    producer.commit_transaction(30)
    assert [one.action for one in entries(settings, names)] == ["parked.retry"]


def test_the_trail_never_expires(settings: KafkaSettings, namespace: str) -> None:
    config = topic_states(settings, [Names(namespace).audit])[Names(namespace).audit].config
    assert (config["cleanup.policy"], config["retention.ms"], config["retention.bytes"]) == ("delete", "-1", "-1")
