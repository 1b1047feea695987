"""Row 23 in short. It needs no broker."""

from __future__ import annotations

from pathlib import Path

from tests.chaos.campaign import execute, load_rows
from tests.chaos.conftest import SEED


async def test_no_formula_comes_alive_and_no_hostile_text_reaches_python_or_takes_long(tmp_path: Path) -> None:
    result = await execute(load_rows()[23], seed=SEED, folder=tmp_path, full=False)
    assert result.findings == []
    assert result.fired["escapes"] >= 300
