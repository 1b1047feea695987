"""Where people's decisions on parked keys meet the pipelines that have the keys."""

from __future__ import annotations

from collections.abc import Callable

from trunkline.bus.parking.decisions import Decision


class DecisionDesk:
    """One a worker. On the event loop. A decision on a pipeline that does not run here waits in Kafka."""

    def __init__(self) -> None:
        self._attending: dict[str, Callable[[Decision], None]] = {}

    def attend(self, pipeline: str, decide: Callable[[Decision], None]) -> None:
        """The pipeline runs, and `decide` takes what is decided on its keys."""
        self._attending[pipeline] = decide

    def leave(self, pipeline: str) -> None:
        """It runs no more."""
        self._attending.pop(pipeline, None)

    def hand(self, decision: Decision) -> None:
        """A decision came."""
        decide = self._attending.get(decision.pipeline)
        if decide is not None:
            decide(decision)
