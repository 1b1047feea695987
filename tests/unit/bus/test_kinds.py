"""The engine's part of the table of kinds."""

from __future__ import annotations

from trunkline.bus.worker.building.kinds import RUNTIMES
from trunkline.core.manifests.kinds import PIPELINE_KINDS


def test_every_kind_of_pipeline_has_a_runtime_and_nothing_else_has() -> None:
    assert set(RUNTIMES) == set(PIPELINE_KINDS)
