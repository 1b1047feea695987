"""Rows 5, 9 and 17 in short, one after another on one broker that they harm, and the faults of that broker themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Short
from tests.chaos.faults.brokers import FREEZE, KILL, Broker
from tests.chaos.faults.proxy import RESET
from trunkline.bus.kafka import KafkaSettings, produce_and_wait, read_all
from trunkline.bus.topics import TopicPlan, ensure_topics

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def lent_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker behind a proxy, which the first row starts."""
    broker = Broker(tmp_path_factory.mktemp("harmed"), proxied=True)
    yield broker
    broker.close()


async def test_a_killed_broker_costs_nothing_that_was_acknowledged(short: Short) -> None:
    result = await short(5)
    assert result.fired[KILL] == 1


async def test_a_bad_network_costs_nothing_and_doubles_nothing(short: Short) -> None:
    result = await short(9)
    assert result.fired["injections"] == 4
    for kind in ("reset", "black hole", "delay", "lost reply"):
        assert result.fired[kind] >= 1


async def test_every_webhook_that_was_told_2xx_is_in_the_topic_after_the_broker_was_away(short: Short) -> None:
    result = await short(17)
    assert result.fired[KILL] == 1


def test_clients_find_no_way_around_the_proxy_and_a_frozen_broker_goes_on(lent_broker: Broker) -> None:
    lent_broker.start()  # unless a row did
    assert lent_broker.proxy is not None
    before = lent_broker.all_fired
    settings = KafkaSettings(lent_broker.bootstrap)
    ensure_topics(settings, [TopicPlan("around", 1)])
    producer = settings.producer()
    produce_and_wait(producer, "around", b"before", None)
    assert lent_broker.proxy.connections > 0
    with lent_broker.frozen():
        pass
    assert [message.value() for message in read_all(settings, "around")] == [b"before"]
    assert lent_broker.proxy.reset() > 0
    produce_and_wait(producer, "around", b"after", None)
    fired = lent_broker.all_fired - before
    assert fired[RESET] > 0
    assert fired[FREEZE] == 1
