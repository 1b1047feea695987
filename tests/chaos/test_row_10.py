"""Row 10 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_a_worker_that_dies_within_a_transaction_leaves_nothing_of_it_and_repeats_nothing(short: Short) -> None:
    result = await short(10)
    assert result.fired == {"killed at produced": 1}
    assert result.notes["aborted records"] > 0
