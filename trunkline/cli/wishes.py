"""What people want of pipelines: written to the control topic, then waited for until workers report it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import Desired, State
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.board import STALE_SECONDS, Board, Report, Wish
from trunkline.cli.session import Session, user
from trunkline.cli.standing import known_pipelines
from trunkline.core.errors import FatalError, UnavailableError

POLL_SECONDS = 0.3
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

    _await(session, board, [pipeline], shows, str(expected), timeout)


def restart(session: Session, pipelines: Sequence[str], timeout: float) -> None:
    """Asks for restarts and waits until the workers have begun anew."""
    kafka, names = _cluster(session)
    board = Board(kafka, names)
    wishes = board.wishes()
    wanted = {}
    for pipeline in pipelines:
        known_pipelines(session, kafka, names, pipeline)
        before = wishes.get(pipeline, Wish())
        wanted[pipeline] = before.restart + 1
        board.wish(pipeline, Wish(before.desired, before.restart + 1, user(), time.time()))
    asked = time.time()

    def shows(report: Report) -> bool:
        if report.restart < wanted[report.pipeline]:
            return False
        if report.state is State.FAILED and report.since > asked:
            raise _failed(report)
        return report.state in {State.RUNNING, State.PAUSED, State.STOPPED}

    _await(session, board, list(pipelines), shows, "restarted", timeout)


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


def _await(
    session: Session, board: Board, pipelines: list[str], shows: Callable[[Report], bool], expected: str, timeout: float
) -> None:
    deadline = time.monotonic() + timeout
    waiting = list(pipelines)
    while waiting:
        # A running worker repeats its reports every few seconds, those of stopped pipelines too.
        reports = [report for report in board.reports() if time.time() - report.at < STALE_SECONDS]
        for pipeline in list(waiting):
            own = [report for report in reports if report.pipeline == pipeline and _lives(report)]
            if not own or timeout <= 0:
                session.out.line(
                    f"{pipeline}: asked for; " + ("no worker runs it now" if not own else "not waited for")
                )
                waiting.remove(pipeline)
            elif all(shows(report) for report in own):
                session.out.line(f"{pipeline}: {expected}")
                waiting.remove(pipeline)
        if not waiting:
            break
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{', '.join(waiting)} did not become {expected} in {timeout:g} s",
                hint="it was asked for and may still come: see `trunkline status`",
                code="pipeline.slow",
            )
        time.sleep(POLL_SECONDS)
    if not session.out.for_people:
        session.out.data([report.as_dict() for report in board.reports() if report.pipeline in pipelines])


def _lives(report: Report) -> bool:
    """A worker that ended says so last: its report counts no more."""
    return report.state is not State.UNASSIGNED


def _failed(report: Report) -> FatalError:
    return FatalError(
        report.reason or "it failed", where=report.pipeline, hint=report.hint, code=report.code or "pipeline.fatal"
    )
