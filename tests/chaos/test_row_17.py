"""Row 17 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_every_webhook_that_was_told_2xx_is_in_the_topic_after_the_broker_was_away(short: Short) -> None:
    result = await short(17)
    assert result.fired["broker kill -9"] == 1
