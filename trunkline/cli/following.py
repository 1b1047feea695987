"""Jobs in a terminal: their cells, and following one with a bar until it rests or Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from trunkline.bus.redrive.job import Surroundings
from trunkline.bus.redrive.jobs import Desired, Job, Wish
from trunkline.cli.output import console
from trunkline.cli.session import Session
from trunkline.cli.values import elapsed
from trunkline.control.cluster import Cluster
from trunkline.control.redrives import NO_WISH, QUIET_SECONDS, Happening, follow, surroundings

JOB_COLUMNS = ("JOB", "PIPELINE", "STATE", "SENT", "OF", "SKIPPED", "RATE/s", "LEFT", "BY", "AGE", "REASON")


def job_row(job: Job) -> tuple[Any, ...]:
    """The cells under JOB_COLUMNS."""
    progress, left = job.progress, job.seconds_left
    return (
        job.id,
        job.pipeline,
        _state(job),
        progress.sent,
        progress.total,
        progress.capped + progress.refused,
        job.rate,
        elapsed(left) if left is not None else None,
        job.by,
        elapsed(time.time() - job.at),
        progress.reason,
    )


def _state(job: Job) -> str:
    """The state with what is asked of it: `RUNNING (to be paused)` until its executor has seen it."""
    state = job.progress.state
    if job.runnable and job.wish.desired is Desired.CANCELLED:
        return f"{state} (to be cancelled)"
    if job.runnable and job.wish.desired is Desired.PAUSED:
        return f"{state} (to be paused)"
    return str(state)


def execution(session: Session, cluster: Cluster) -> AbstractContextManager[Surroundings]:
    """What an execution in this process works with: it knows the sources of the files that a worker runs beside it too."""

    def files() -> tuple[Path, ...]:
        beside = session.endpoint()
        return () if beside is None else tuple(Path(file) for file in beside.files)

    return surroundings(cluster, executor=f"command line of {cluster.actor}", worker="cli", unapplied=files)


def followed(session: Session, cluster: Cluster, around: Surroundings, job: Job, wish: Wish = NO_WISH) -> Job:
    """Shows a job until it rests as `wish` wants, and gives how it is then.

    The first Ctrl-C cancels what is executed here, and ends the following of what a worker executes; the second ends at once.
    Raises `FatalError` where the job failed.
    """
    now = job
    with ExitStack() as stack:
        interrupted, show = stack.enter_context(_interrupts()), stack.enter_context(_bar(session))
        for event in stack.enter_context(closing(follow(cluster, around, job, interrupted, wish))):
            now = event.job
            if event.happening is Happening.SEEN:
                show(now)
            elif event.happening is Happening.QUIET:
                session.out.note(f"{job.id}: nothing happens for {QUIET_SECONDS:g} s; see the logs of the workers")
            else:
                session.out.note(f"{job.id} goes on without being followed; `trunkline job cancel {job.id}` ends it")
    return now


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    interrupted = threading.Event()

    def note(_number: int, _frame: FrameType | None) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signals come to the main thread alone
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _bar(session: Session) -> Iterator[Callable[[Job], None]]:
    screen = console(sys.stderr)
    if not screen.is_terminal or not session.out.for_people:
        yield lambda _job: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("Sending again", total=None)
        yield lambda job: bar.update(task, completed=job.progress.sent, total=job.progress.total)
