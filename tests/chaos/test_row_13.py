"""Row 13 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short

pytestmark = pytest.mark.kafka


async def test_every_answer_of_the_other_system_gets_what_the_class_table_says(short: Short) -> None:
    result = await short(13)
    assert result.fired["pipeline FAILED"] == 3
