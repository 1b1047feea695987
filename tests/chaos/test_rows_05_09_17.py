"""Rows 5, 9 and 17 in short, one after another on one broker that they harm."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.conftest import Short
from tests.chaos.faults.brokers import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def lent_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker behind a proxy, which the first row starts."""
    broker = Broker(tmp_path_factory.mktemp("harmed"), proxied=True)
    yield broker
    broker.close()


async def test_a_killed_broker_costs_nothing_that_was_acknowledged(short: Short) -> None:
    result = await short(5)
    assert result.fired["broker kill -9"] == 1


async def test_a_bad_network_costs_nothing_and_doubles_nothing(short: Short) -> None:
    result = await short(9)
    assert result.fired["injections"] == 4
    for kind in ("reset", "black hole", "delay", "lost reply"):
        assert result.fired[kind] >= 1


async def test_every_webhook_that_was_told_2xx_is_in_the_topic_after_the_broker_was_away(short: Short) -> None:
    result = await short(17)
    assert result.fired["broker kill -9"] == 1
