"""When the work is done: every polled source has come to its end, and every pipeline has committed all of its inputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trunkline.bus.accounting.commits import positions
from trunkline.bus.accounting.lag import LagReader
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.source.positions import read_positions
from trunkline.bus.states import State
from trunkline.bus.topics import matching_topics, topic_states
from trunkline.bus.worker.board import Board
from trunkline.core.contracts import PushSource
from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.manifests import Project, Sink, Stream
from trunkline.core.plugins import load_plugin

if TYPE_CHECKING:
    from trunkline.bus.worker.worker import Worker

QUIET_ROUNDS = 2
"""So many looks in a row must find nothing to do: a source that goes on after its stored end is seen by the second."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a pipeline stands, all workers together."""

    state: State
    finished: bool
    reason: str | None = None


Standings = Callable[[], Mapping[str, Standing]]


class Finish:
    """Tells when the work is done. Blocks on the broker; belongs in a thread."""

    def __init__(self, kafka: KafkaSettings, names: Names, project: Project, standings: Standings) -> None:
        self._kafka = kafka
        self._names = names
        self._standings = standings
        self._lag = LagReader(kafka)
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
        standings = self._standings()
        for name, standing in standings.items():
            if standing.state is State.FAILED:
                raise FatalError(standing.reason or "it failed", where=name, code="pipeline.failed")
        self._quiet = self._quiet + 1 if self._done(standings) else 0
        return self._quiet >= QUIET_ROUNDS

    def _done(self, standings: Mapping[str, Standing]) -> bool:
        self.unfinished = [name for name in self._polled if name not in standings or not standings[name].finished]
        if self.unfinished:
            return False
        try:
            return self._caught_up()
        except RetriableError:
            return False

    def _caught_up(self) -> bool:
        wanted: set[tuple[str, str, int]] = set()
        topics = sorted({topic for inputs in self._inputs.values() for topic in inputs})
        states = topic_states(self._kafka, matching_topics(self._kafka, topics)) if topics else {}
        for name, inputs in self._inputs.items():
            for state in states.values():
                if any(state.name == one or (one.endswith(".*") and state.name.startswith(one[:-1])) for one in inputs):
                    wanted |= {(name, state.name, partition) for partition in range(state.partitions)}
        committed = positions(self._kafka, self._names, self._inputs)
        lags = self._lag.measure(committed)
        if wanted - {(lag.pipeline, lag.topic, lag.partition) for lag in lags}:
            return False  # what was never committed was never assigned
        return all(lag.seconds == 0.0 for lag in lags)


def reports_of_worker(worker: Worker) -> Standings:
    """The standings that the only worker, in this process, reports."""

    def standings() -> Mapping[str, Standing]:
        return {one.pipeline: Standing(one.state, one.finished, one.reason) for one in worker.reports}

    return standings


def reports_of_board(kafka: KafkaSettings, names: Names) -> Standings:
    """The standings that several workers wrote since now. A source is finished when all of its splits are."""
    board, begun = Board(kafka, names), time.time()

    def standings() -> Mapping[str, Standing]:
        splits_at = read_positions(kafka, names)
        found: dict[str, Standing] = {}
        for report in board.reports():
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
            found[report.pipeline] = Standing(
                worst, finished or (before is not None and before.finished), report.reason
            )
        return found

    return standings
