"""What people want of pipelines: written to the control topic, then waited for until workers report it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.redrive.runner import has_runner
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.board import STALE_SECONDS, Board, Report, Wish
from trunkline.cli.session import Session, user
from trunkline.cli.standing import known_pipelines
from trunkline.core.errors import FatalError, UnavailableError

POLL_SECONDS = 0.3
WORKER_SECONDS = 6.0
"""How long workers may be silent before it is asked whether any is there: longer than between two reports of one."""
_EXPECTED = {Desired.RUNNING: State.RUNNING, Desired.PAUSED: State.PAUSED, Desired.STOPPED: State.STOPPED}


def wish(session: Session, pipeline: str, desired: Desired, timeout: float) -> None:
    """Asks for a state and waits for it. Raises `UnavailableError` after `timeout` seconds, `FatalError` when it fails meanwhile."""
    kafka, names = _cluster(session)
    known_pipelines(session, kafka, names, pipeline)
    board = Board(kafka, names)
    before = board.wishes().get(pipeline, Wish())
    asked = time.time()
    board.wish(pipeline, Wish(desired, before.restart, user(), asked))
    expected = _EXPECTED[desired]

    def shows(report: Report) -> bool:
        if report.state is State.FAILED and report.at > asked and desired is Desired.RUNNING:
            raise _failed(report)
        return report.state is expected

    _Awaited(session, kafka, names, asked, str(expected), shows).wait([pipeline], timeout)


def restart(session: Session, pipelines: Sequence[str], timeout: float) -> None:
    """Asks for restarts and waits until the workers have begun anew."""
    kafka, names = _cluster(session)
    board = Board(kafka, names)
    wishes, asked = board.wishes(), time.time()
    wanted = {}
    for pipeline in pipelines:
        known_pipelines(session, kafka, names, pipeline)
        before = wishes.get(pipeline, Wish())
        wanted[pipeline] = before.restart + 1
        board.wish(pipeline, Wish(before.desired, before.restart + 1, user(), asked))

    def shows(report: Report) -> bool:
        if report.restart < wanted[report.pipeline]:
            return False
        if report.state is State.FAILED and report.since > asked:
            raise _failed(report)
        return report.state in {State.RUNNING, State.PAUSED, State.STOPPED}

    _Awaited(session, kafka, names, asked, "restarted", shows).wait(pipelines, timeout)


def restart_failed(session: Session, timeout: float) -> None:
    """Restarts every pipeline that a worker reports as failed."""
    reports = session.board().reports()
    failed = sorted({one.pipeline for one in reports if one.state is State.FAILED and not one.stale})
    if not failed:
        session.out.note("no pipeline has failed")
        return
    restart(session, failed, timeout)


def _cluster(session: Session) -> tuple[KafkaSettings, Names]:
    kafka, names = session.kafka(), session.names()
    ensure_topics(kafka, internal_topics(names))
    return kafka, names


@dataclass(slots=True)
class _Awaited:
    """What was asked for at `asked`, in Unix seconds, and `shows` in the report of every worker that has done it."""

    session: Session
    kafka: KafkaSettings
    names: Names
    asked: float
    expected: str
    shows: Callable[[Report], bool]

    def wait(self, pipelines: Sequence[str], timeout: float) -> None:
        """Waits until it shows of all. Raises `UnavailableError` after `timeout` seconds."""
        board, out = Board(self.kafka, self.names), self.session.out
        begun = looked = time.monotonic()
        waiting = list(pipelines)
        while True:
            # A running worker repeats its reports every few seconds, those of stopped pipelines too.
            reports = [one for one in board.reports() if time.time() - one.at < STALE_SECONDS and _lives(one)]
            own = {name: [one for one in reports if one.pipeline == name] for name in waiting}
            late = time.monotonic() - begun > timeout
            if late or time.monotonic() - looked > WORKER_SECONDS:
                looked = time.monotonic()
                if any(self._silent(found) for found in own.values()) and not has_runner(self.kafka, self.names):
                    # The last words of workers that were killed.
                    own = {name: [] if self._silent(found) else found for name, found in own.items()}
            for name, found in own.items():
                said = self._outcome(found, timeout)
                if said is not None:
                    out.line(f"{name}: {said}")
                    waiting.remove(name)
            if not waiting:
                break
            if late:
                raise self._too_late({name: own[name] for name in waiting}, timeout)
            time.sleep(POLL_SECONDS)
        if not out.for_people:
            out.data([report.as_dict() for report in board.reports() if report.pipeline in pipelines])

    def _outcome(self, reports: Sequence[Report], timeout: float) -> str | None:
        if not reports:
            return "asked for; no worker runs it now, so it is kept for when one comes"
        if timeout <= 0:
            return "asked for; not waited for"
        return self.expected if all(self.shows(report) for report in reports) else None

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
