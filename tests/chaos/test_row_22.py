"""Row 22 in short. It needs no broker."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.campaign import execute, load_rows
from tests.chaos.conftest import SEED


async def test_a_hostile_name_link_key_or_line_leaves_no_file_elsewhere_and_no_part_of_one(tmp_path: Path) -> None:
    result = await execute(load_rows()[22], seed=SEED, folder=tmp_path, full=False)
    assert result.findings == []
    assert result.fired["cut uploads"] >= 3
