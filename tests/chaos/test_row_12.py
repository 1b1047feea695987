"""Row 12 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_no_commit_passes_a_dead_letter_that_cannot_be_saved_and_after_the_repair_none_is_missing(
    short: Short,
) -> None:
    result = await short(12)
    assert result.fired["pipeline FAILED"] == 3
