"""Whether anybody runs a pipeline."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from trunkline.bus.worker.board import Report


def attended(applied: Collection[str], reports: Iterable[Report], pipeline: str) -> bool:
    """Whether a pipeline is one of the `applied` ones, which a worker runs as soon as one is there, or a worker has it now."""
    return pipeline in applied or any(one.pipeline == pipeline and one.lives for one in reports)
