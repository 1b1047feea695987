"""Row 27 in short."""

from __future__ import annotations

import pytest

from tests.chaos.conftest import Short
from tests.chaos.rows.row_27_topics_made_anew import RUNNING, STOPPED

pytestmark = pytest.mark.kafka


@pytest.mark.slow
async def test_no_record_of_a_topic_made_anew_is_read_by_old_offsets_or_passed_over(short: Short) -> None:
    result = await short(27)
    assert {result.fired[RUNNING], result.fired[STOPPED]} == {1}
