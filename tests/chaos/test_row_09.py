"""Row 9 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_bad_network_costs_nothing_and_doubles_nothing(short: Short) -> None:
    result = await short(9)
    assert result.fired["injections"] == 4
    for kind in ("reset", "black hole", "delay", "lost reply"):
        assert result.fired[kind] >= 1
