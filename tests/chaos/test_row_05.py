"""Row 5 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


@pytest.mark.xfail(
    strict=False,
    reason="librdkafka's administrator client can abort a worker while the broker is away (librdkafka#5040)",
)
async def test_a_killed_broker_costs_nothing_that_was_acknowledged(short: Short) -> None:
    result = await short(5)
    assert result.fired["broker kill -9"] == 1
