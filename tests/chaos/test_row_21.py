"""Row 21 in short. It needs no broker."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.campaign import execute, load_rows
from tests.chaos.conftest import SEED


async def test_no_hostile_address_is_connected_to_and_no_value_breaks_out_of_a_request(tmp_path: Path) -> None:
    result = await execute(load_rows()[21], seed=SEED, folder=tmp_path, full=False)
    assert result.findings == []
    assert result.fired["addresses"] >= 120
