"""Row 19 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_bombs_are_refused_and_slow_clients_keep_nobody_from_being_served(short: Short) -> None:
    result = await short(19)
    assert result.fired["bombs"] == 8
