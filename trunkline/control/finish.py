"""When the work is done: every polled source has come to its end, and every pipeline has committed all of its inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.bus.accounting.commits import all_committed
from trunkline.bus.accounting.inputs import inputs_of
from trunkline.bus.accounting.lagreader import LagReader
from trunkline.bus.source.positions import read_positions
from trunkline.bus.states import State
from trunkline.control.cluster import Cluster
from trunkline.core.contracts import PushSource
from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.manifests import Project, Sink, Stream
from trunkline.core.plugins import load_plugin

if TYPE_CHECKING:
    from trunkline.bus.worker.worker import Worker

QUIET_ROUNDS = 2
"""So many looks in a row must find nothing to do: a source that goes on after its stored end is seen by the second."""


@dataclass(frozen=True, slots=True)
class Reported:
    """What is reported of a pipeline, all workers together."""

    state: State
    finished: bool
    reason: str | None = None


Reports = Callable[[], Mapping[str, Reported]]
"""What is reported now, by pipeline."""


class Finish:
    """Tells when the work is done. Blocks on the broker; belongs in a thread."""

    def __init__(self, cluster: Cluster, project: Project, reports: Reports) -> None:
        self._cluster = cluster
        self._reports = reports
        self._lag = LagReader(cluster.kafka)
        self._polled = [
            name
            for name, source in project.sources.items()
            if not issubclass(load_plugin("source", source.spec.connector), PushSource)
        ]
        readers: dict[str, Stream | Sink] = {**project.streams, **project.sinks}
        self._inputs = {name: list(pipeline.spec.from_) for name, pipeline in readers.items()}
        self._quiet = 0
        self.unfinished: list[str] = list(self._polled)
        """Polled sources that had not come to their end at the last look."""

    def reached(self) -> bool:
        """Whether nothing is left to do. Raises `FatalError` when a pipeline failed, since then it never would be."""
        reports = self._reports()
        for name, one in reports.items():
            if one.state is State.FAILED:
                raise FatalError(one.reason or "it failed", where=name, code="pipeline.failed")
        self._quiet = self._quiet + 1 if self._done(reports) else 0
        return self._quiet >= QUIET_ROUNDS

    def _done(self, reports: Mapping[str, Reported]) -> bool:
        self.unfinished = [name for name in self._polled if name not in reports or not reports[name].finished]
        if self.unfinished:
            return False
        try:
            return self._caught_up()
        except RetriableError:
            return False

    def _caught_up(self) -> bool:
        kafka, names = self._cluster.kafka, self._cluster.names
        inputs = inputs_of(kafka, names, self._inputs)
        # What was never committed was never assigned, and what can't be known may wait.
        lags = self._lag.measure(all_committed(kafka, names, self._inputs), inputs)
        return all(lag.records == 0 for lag in lags)


def reported_by_worker(worker: Worker) -> Reports:
    """What the only worker, in this process, reports."""

    def reports() -> Mapping[str, Reported]:
        return {one.pipeline: Reported(one.state, one.finished, one.reason) for one in worker.reports}

    return reports


def reported_by_workers(cluster: Cluster) -> Reports:
    """What several workers have written since now. A source is finished when all of its splits are."""
    begun = time.time()

    def reports() -> Mapping[str, Reported]:
        splits_at = read_positions(cluster.kafka, cluster.names)
        found: dict[str, Reported] = {}
        for report in cluster.board.reports():
            if report.at < begun:
                continue
            splits = [one.finished for (pipeline, _), one in splits_at.items() if pipeline == report.pipeline]
            worst = (
                State.FAILED
                if State.FAILED in {report.state, getattr(found.get(report.pipeline), "state", None)}
                else report.state
            )
            finished = bool(splits) and all(splits) and report.state is State.RUNNING
            before = found.get(report.pipeline)
            found[report.pipeline] = Reported(
                worst, finished or (before is not None and before.finished), report.reason
            )
        return found

    return reports
