"""How pipelines stand, and what people want of them: `status`, `lag`, `reconcile`; `pause`, `resume`, `restart` and such."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.command import command
from trunkline.cli.output import console
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.bus.accounting.reconcile import OnProgress, PartitionCheck
    from trunkline.bus.states import Desired
    from trunkline.control.status import PipelineStatus
    from trunkline.control.wishes import Requested
    from trunkline.core.errors import UnavailableError

PipelineArgument = Annotated[str, typer.Argument(help="The pipeline's name.", metavar="PIPELINE")]
MaybePipelineArgument = Annotated[str | None, typer.Argument(help="One pipeline; all without it.", metavar="PIPELINE")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait until the state shows; 0 does not wait.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "status")(status)
    command(app, "pause")(pause)
    command(app, "resume")(resume)
    command(app, "stop")(stop)
    command(app, "start")(start)
    command(app, "restart")(restart)
    command(app, "lag")(lag)
    command(app, "reconcile")(reconcile)


def status(
    session: Session,
    pipeline: MaybePipelineArgument = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it anew again and again, until Ctrl-C.")] = False,
    every: Annotated[str, typer.Option("--every", help="With --watch, how often.")] = "2s",
) -> None:
    """Show states with their reasons, what became of the records, lag, and whether ledgers close. Exit code 1 where a pipeline fails.

    Watched, it ends with Ctrl-C, prints one line of JSON or one YAML document at a time where data is asked for, and judges nothing.
    """
    from trunkline.cli.values import duration
    from trunkline.cli.watching import watched
    from trunkline.control.status import judge

    if not watch:
        found = _statuses(session, pipeline)
        _show_statuses(session, found)
        judge(found)
        return
    seconds = max(duration(every, "--every"), 0.1)

    def show(found: list[PipelineStatus]) -> None:
        if session.out.for_people:
            _show_statuses(session, found)
        else:
            session.out.record([one.as_dict() for one in found])

    watched(session.out, lambda: _statuses(session, pipeline), show, seconds)


def _statuses(session: Session, pipeline: str | None) -> list[PipelineStatus]:
    from trunkline.control.status import statuses
    from trunkline.core.errors import UnavailableError

    try:
        return statuses(session.cluster(), pipeline)
    except UnavailableError as error:
        return _told_by_worker(session, pipeline, error)


def _show_statuses(session: Session, found: list[PipelineStatus]) -> None:
    from trunkline.cli.statustable import remarks, status_table

    columns, rows = status_table(found)
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="no pipeline is applied or running")
    for one in found if session.out.for_people else ():
        if one.reason:
            session.out.note(f"{one.pipeline}: {one.reason}" + (f"\n  hint: {one.hint}" if one.hint else ""))
        for remark in remarks(one):
            session.out.note(f"{one.pipeline}: {remark}")


def _told_by_worker(session: Session, pipeline: str | None, error: UnavailableError) -> list[PipelineStatus]:
    """While the broker does not answer, the worker of the home folder can still be asked. Raises `error` where there is none."""
    from trunkline.control.workerstatus import ask_worker

    endpoint = session.endpoint()
    if endpoint is None:
        raise error
    session.out.note(
        f"{error.message}; this is what the worker at {endpoint.api} says, without the cluster's counts and lag"
    )
    return ask_worker(endpoint.local or endpoint.api, pipeline, key=endpoint.key)


def pause(session: Session, pipeline: PipelineArgument, timeout: TimeoutOption = 30.0) -> None:
    """Let a pipeline rest; it keeps its partitions."""
    from trunkline.bus.states import Desired

    _want(session, pipeline, Desired.PAUSED, timeout)


def resume(session: Session, pipeline: PipelineArgument, timeout: TimeoutOption = 30.0) -> None:
    """Let a paused or stopped pipeline go on."""
    from trunkline.bus.states import Desired

    _want(session, pipeline, Desired.RUNNING, timeout)


def stop(session: Session, pipeline: PipelineArgument, timeout: TimeoutOption = 60.0) -> None:
    """End a pipeline; it gives its partitions up."""
    from trunkline.bus.states import Desired

    _want(session, pipeline, Desired.STOPPED, timeout)


def start(session: Session, pipeline: PipelineArgument, timeout: TimeoutOption = 30.0) -> None:
    """Begin a stopped pipeline again."""
    resume(session, pipeline, timeout)


def restart(
    session: Session,
    pipeline: MaybePipelineArgument = None,
    failed: Annotated[bool, typer.Option("--failed", help="Restart every failed pipeline.")] = False,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Restart a pipeline, or all that failed, now instead of after their back-off."""
    from trunkline.control import wishes
    from trunkline.core.errors import ConfigurationError

    if failed == (pipeline is not None):
        raise ConfigurationError("name a pipeline, or pass --failed", where="restart", code="option.missing")
    cluster = session.cluster()
    names = wishes.failed(cluster) if pipeline is None else [pipeline]
    if not names:
        session.out.note("no pipeline has failed")
        return
    _follow(session, wishes.restart(cluster, names), timeout)


def _want(session: Session, pipeline: str, desired: Desired, timeout: float) -> None:
    from trunkline.control import wishes

    _follow(session, wishes.want(session.cluster(), pipeline, desired), timeout)


def _follow(session: Session, requested: Requested, timeout: float) -> None:
    """Says what becomes of a request on each pipeline, as it shows."""
    from trunkline.control.wishes import Answer

    said = {
        Answer.SHOWN: requested.expected,
        Answer.UNATTENDED: "asked for; no worker runs it now, so it is kept for when one comes",
        Answer.NOT_AWAITED: "asked for; not waited for",
    }
    for outcome in requested.wait(timeout):
        session.out.line(f"{outcome.pipeline}: {said[outcome.answer]}")
    if not session.out.for_people:
        session.out.data([report.as_dict() for report in requested.reports()])


def lag(
    session: Session,
    pipeline: MaybePipelineArgument = None,
    partitions: Annotated[bool, typer.Option("--partitions", "-p", help="Show each partition.")] = False,
) -> None:
    """Show how far pipelines are behind, in records and in seconds; of one pipeline for each partition."""
    from trunkline.cli.lagtable import PARTITION_COLUMNS, PIPELINE_COLUMNS, partition_row, pipeline_row
    from trunkline.control.lag import by_pipeline, measure

    found = measure(session.cluster(), pipeline)
    if partitions or pipeline is not None:
        lags = [one for name in sorted(found) for one in found[name]]
        rows = [partition_row(one) for one in lags]
        session.out.table(PARTITION_COLUMNS, rows, [one.as_dict() for one in lags], empty="nothing is committed yet")
        return
    together = by_pipeline(found)
    rows = [pipeline_row(one) for one in together]
    session.out.table(PIPELINE_COLUMNS, rows, [one.as_dict() for one in together], empty="no pipeline reads a topic")


def reconcile(session: Session, pipeline: PipelineArgument) -> None:
    """Read a pipeline's committed input again and compare it with its ledger. Exit code 1 where a record is missing."""
    from trunkline.cli.statustable import sum_of
    from trunkline.control.reconcile import became, judge
    from trunkline.control.reconcile import reconcile as compare

    cluster = session.cluster()
    with _reading_again(session) as on_progress:
        checks = compare(cluster, pipeline, on_progress=on_progress)
    outcomes = became(cluster, pipeline)
    if outcomes is not None and session.out.for_people:
        session.out.note(sum_of(outcomes))
    data = [one.as_dict() for one in checks]
    session.out.table(_CHECK_COLUMNS, [_check_row(one) for one in checks], data, empty="nothing is committed yet")
    judge(pipeline, checks, outcomes)


_CHECK_COLUMNS = (
    "TOPIC",
    "PARTITION",
    "FIRST",
    "COMMITTED",
    "READ",
    "PRESENT",
    "AGREES",
    "PROBLEM",
    "MISSING",
    "EXTRA",
)


def _check_row(check: PartitionCheck) -> tuple[Any, ...]:
    agrees: Any = check.closes
    if check.closes and check.unverifiable:
        agrees = "unverifiable"
    unnamed = f"and {check.unnamed} older than the trace" if check.unnamed else ""
    return (
        check.topic,
        check.partition,
        check.first,
        check.committed,
        check.read,
        check.present,
        agrees,
        check.problem,
        " ".join([*map(str, check.missing), unnamed]).strip() or None,
        " ".join(map(str, check.extra)) or None,
    )


@contextmanager
def _reading_again(session: Session) -> Iterator[OnProgress | None]:
    """A bar in a terminal."""
    screen = console(sys.stderr)
    if not screen.is_terminal or not session.out.for_people:
        yield None
        return
    from rich.progress import Progress

    with Progress(console=screen, transient=True) as bar:
        task = bar.add_task("Reading again", total=None)

        def show(topic: str, partition: int, done: int, total: int) -> None:
            bar.update(task, description=f"{topic}[{partition}]", completed=done, total=total)

        yield show
