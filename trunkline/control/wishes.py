"""What people want of pipelines: written to the control topic, then waited for until workers report it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from trunkline.bus.redrive.runner import has_runner
from trunkline.bus.states import Desired, State
from trunkline.bus.worker import wishes
from trunkline.bus.worker.board import Report
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.core.errors import FatalError, UnavailableError

POLL_SECONDS = 0.3
WORKER_SECONDS = 6.0
"""How long workers may be silent before it is asked whether any is there: longer than between two reports of one."""
_EXPECTED = {Desired.RUNNING: State.RUNNING, Desired.PAUSED: State.PAUSED, Desired.STOPPED: State.STOPPED}


class Answer(StrEnum):
    """What became of a request."""

    SHOWN = "shown"
    """Every worker that has the pipeline reports that it did what was asked."""
    UNATTENDED = "unattended"
    """No worker runs it now: the request is kept for when one comes."""
    NOT_AWAITED = "not awaited"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request on one pipeline."""

    pipeline: str
    answer: Answer


def want(cluster: Cluster, pipeline: str, desired: Desired) -> Requested:
    """Asks for a state. Raises `ConfigurationError` for an unknown pipeline."""
    cluster.ensure_internal_topics()
    pipelines.present(cluster, pipeline)
    asked = time.time()
    wishes.want(cluster.kafka, cluster.names, [pipeline], by=cluster.actor, desired=desired)
    expected = _EXPECTED[desired]

    def shows(report: Report) -> bool:
        if report.state is State.FAILED and report.at > asked and desired is Desired.RUNNING:
            raise _failed(report)
        return report.state is expected

    return Requested(cluster, (pipeline,), asked, str(expected), shows)


def restart(cluster: Cluster, names: Sequence[str]) -> Requested:
    """Asks for restarts. Raises `ConfigurationError` for an unknown pipeline."""
    cluster.ensure_internal_topics()
    for name in names:
        pipelines.present(cluster, name)
    asked = time.time()
    wanted = wishes.want(cluster.kafka, cluster.names, names, by=cluster.actor, restart=True)

    def shows(report: Report) -> bool:
        if report.restart < wanted[report.pipeline].restart:
            return False
        if report.state is State.FAILED and report.since > asked:
            raise _failed(report)
        return report.state in {State.RUNNING, State.PAUSED, State.STOPPED}

    return Requested(cluster, tuple(names), asked, "restarted", shows)


def failed(cluster: Cluster) -> list[str]:
    """The pipelines that a worker reports as failed, by name."""
    reports = cluster.board.reports()
    return sorted({one.pipeline for one in reports if one.state is State.FAILED and not one.stale})


@dataclass(frozen=True, slots=True)
class Requested:
    """What was asked for at `asked`, in Unix seconds, and `shows` in the report of every worker that has done it."""

    cluster: Cluster
    pipelines: tuple[str, ...]
    asked: float
    expected: str
    """What it is called when it is done: a state, or `restarted`."""
    shows: Callable[[Report], bool]

    def wait(self, timeout: float) -> Iterator[Outcome]:
        """Gives the outcome of each pipeline as it comes, until all are there; with 0 seconds it waits for none.

        Raises `UnavailableError` after `timeout` seconds, `FatalError` when a pipeline that shall run fails meanwhile.
        """
        begun = looked = time.monotonic()
        waiting = list(self.pipelines)
        while True:
            # Of stopped pipelines too only the word of a worker that is there counts.
            reports = [one for one in self.cluster.board.reports() if not one.silent and _lives(one)]
            own = {name: [one for one in reports if one.pipeline == name] for name in waiting}
            late = time.monotonic() - begun > timeout
            if late or time.monotonic() - looked > WORKER_SECONDS:
                looked = time.monotonic()
                if any(self._silent(found) for found in own.values()) and not self._has_runner():
                    # The last words of workers that were killed.
                    own = {name: [] if self._silent(found) else found for name, found in own.items()}
            for name, found in own.items():
                answer = self._answer(found, timeout)
                if answer is not None:
                    yield Outcome(name, answer)
                    waiting.remove(name)
            if not waiting:
                return
            if late:
                raise self._too_late({name: own[name] for name in waiting}, timeout)
            time.sleep(POLL_SECONDS)

    def reports(self) -> list[Report]:
        """What workers report of these pipelines now."""
        return [report for report in self.cluster.board.reports() if report.pipeline in self.pipelines]

    def _has_runner(self) -> bool:
        return has_runner(self.cluster.kafka, self.cluster.names)

    def _answer(self, reports: Sequence[Report], timeout: float) -> Answer | None:
        if not reports:
            return Answer.UNATTENDED
        if timeout <= 0:
            return Answer.NOT_AWAITED
        return Answer.SHOWN if all(self.shows(report) for report in reports) else None

    def _silent(self, reports: Sequence[Report]) -> bool:
        return all(report.at < self.asked for report in reports)

    def _too_late(self, waiting: dict[str, list[Report]], timeout: float) -> UnavailableError:
        names = ", ".join(waiting)
        if all(self._silent(found) for found in waiting.values()):
            last = max(report.at for found in waiting.values() for report in found)
            return UnavailableError(
                f"no worker has said anything of {names} since it was asked for; the last word is {time.time() - last:.0f} s old",
                hint="if its worker is gone, it is kept for when one comes: see `trunkline status`",
                code="pipeline.slow",
            )
        return UnavailableError(
            f"{names} did not become {self.expected} in {timeout:g} s",
            hint="it was asked for and may still come: see `trunkline status`",
            code="pipeline.slow",
        )


def _lives(report: Report) -> bool:
    """A worker that ended says so last: its report counts no more."""
    return report.state is not State.UNASSIGNED


def _failed(report: Report) -> FatalError:
    return FatalError(
        report.reason or "it failed", where=report.pipeline, hint=report.hint, code=report.code or "pipeline.fatal"
    )
