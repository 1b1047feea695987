"""Row 16 in short: the sources that poll."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_killed_source_loses_nothing_of_what_grows_and_publishes_nothing_twice(short: Short) -> None:
    result = await short(16)
    assert sum(times for kind, times in result.fired.items() if kind.startswith("killed at")) == 2
