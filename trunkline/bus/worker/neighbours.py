"""What other workers say of pipelines: who runs which, and who has which partitions. Heard from the status topic as it is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trunkline.bus.intake import Partition
from trunkline.bus.states import State
from trunkline.bus.worker.board import HEARTBEAT_KEY, STALE_SECONDS, Report, parse_report, positions_in
from trunkline.core.errors import TrunklineError

_ABLE = frozenset({State.RUNNING, State.PAUSED, State.RESTARTING})


@dataclass(frozen=True, slots=True)
class _Said:
    """A worker's last word on a pipeline, heard at `at` by our clock."""

    state: State
    partitions: frozenset[Partition]
    at: float


class Neighbours:
    """The other workers. On the event loop."""

    def __init__(self, worker: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._worker = worker
        self._clock = clock
        self._said: dict[str, dict[str, _Said]] = {}
        self._beaten: dict[str, float] = {}
        """When the heartbeat of each came last."""

    def begin(self, reports: Iterable[Report]) -> None:
        """What was said before this worker heard anything, with its age by the clocks of who said it."""
        now, clock = time.time(), self._clock()
        for report in reports:
            self._note(report, clock - max(0.0, now - max(report.at, report.heard_at)))

    def heard(self, key: str, value: bytes | None, _offset: int) -> None:
        """A record of the status topic came."""
        if key.startswith(HEARTBEAT_KEY):
            self._beat(key.removeprefix(HEARTBEAT_KEY), there=value is not None)
        pipeline, _, worker = key.rpartition("/")
        if not pipeline or worker == self._worker or key.startswith("@"):
            return
        if value is None:
            self._said.get(pipeline, {}).pop(worker, None)
            return
        try:
            self._note(parse_report(value), self._clock())
        except (TrunklineError, ValueError, KeyError, TypeError):
            # One of another version: it is there, and nobody knows with what.
            self._said.setdefault(pipeline, {})[worker] = _Said(State.UNASSIGNED, frozenset(), self._clock())

    async def run(self, pipeline: str) -> bool:
        """Whether another worker runs the pipeline."""
        return any(said.state in _ABLE for said in self._fresh(pipeline).values())

    def partitions(self, pipeline: str) -> frozenset[Partition]:
        """The partitions of a pipeline that other workers have."""
        return frozenset().union(*(said.partitions for said in self._fresh(pipeline).values()))

    def speaks_for(self, pipeline: str, *, has_it: bool = True) -> bool:
        """Whether this worker, and none of the others with the pipeline, tells of what nobody has of it. All come to one answer, as far as
        they have heard of each other. One that does not have it itself, for it lacks what it needs, tells only where no other has it."""
        others = self._fresh(pipeline)
        return all(self._worker < worker for worker in others) if has_it else not others

    def _note(self, report: Report, at: float) -> None:
        if report.worker == self._worker:
            return
        said = self._said.setdefault(report.pipeline, {})
        if report.state is State.UNASSIGNED or report.removed:
            said.pop(report.worker, None)
        else:
            places = frozenset(positions_in(report.positions)) if report.holding else frozenset()
            said[report.worker] = _Said(report.state, places, at)

    def _beat(self, worker: str, *, there: bool) -> None:
        if there:
            self._beaten[worker] = self._clock()
            return
        self._beaten.pop(worker, None)
        for said in self._said.values():
            said.pop(worker, None)

    def _fresh(self, pipeline: str) -> dict[str, _Said]:
        since = self._clock() - STALE_SECONDS
        known = self._said.get(pipeline, {})
        return {worker: said for worker, said in known.items() if max(said.at, self._beaten.get(worker, 0.0)) >= since}
