"""`trunkline job`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.bus.redrive.jobs import Desired, Job

JobArgument = Annotated[str, typer.Argument(help="The job's id, as `job list` shows it.", metavar="JOB")]
DetachOption = Annotated[bool, typer.Option("--detach", help="Return at once; a worker does it.")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "job", "Jobs: work that goes on without the command that asked for it.")
    command(noun, "list")(list_)
    command(noun, "show")(show)
    command(noun, "pause")(pause)
    command(noun, "resume")(resume)
    command(noun, "cancel")(cancel)


def list_(
    session: Session,
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all without it.", metavar="PIPELINE")] = None,
) -> None:
    """List jobs with how far they are, the oldest first. Those that ended stay for 30 days."""
    from trunkline.cli.following import JOB_COLUMNS, job_row
    from trunkline.control.redrives import jobs

    found = jobs(session.cluster(), pipeline)
    session.out.table(JOB_COLUMNS, [job_row(one) for one in found], [one.as_dict() for one in found], empty="no jobs")


def show(session: Session, job: JobArgument) -> None:
    """Show one job: what was asked, by whom, and how far it is."""
    from trunkline.control.redrives import find

    _print(session, find(session.cluster(), job))


def pause(session: Session, job: JobArgument) -> None:
    """Let a job rest after the transaction under way."""
    from trunkline.bus.redrive.jobs import Desired

    _want(session, job, Desired.PAUSED)


def resume(session: Session, job: JobArgument, detach: DetachOption = False) -> None:
    """Let a paused, failed or orphaned job go on, and follow it. Without any worker it is executed here."""
    from trunkline.bus.redrive.jobs import Desired

    _want(session, job, Desired.RUNNING, detach=detach)


def cancel(session: Session, job: JobArgument) -> None:
    """End a job. What was sent stays sent; what was not keeps waiting."""
    from trunkline.bus.redrive.jobs import Desired

    _want(session, job, Desired.CANCELLED)


def _want(session: Session, identity: str, desired: Desired, *, detach: bool = False) -> None:
    """Says what is wanted of a job, waits until it shows, and prints it."""
    from trunkline.cli.following import execution, followed
    from trunkline.control.redrives import find, want

    cluster = session.cluster()
    cluster.ensure_internal_topics()
    job = find(cluster, identity)
    wish = want(cluster, job, desired)
    if wish is None:
        session.out.note(f"{identity} ended already: {job.progress.state}")
        _print(session, job)
    elif detach:
        _print(session, find(cluster, identity))
    else:
        with execution(session, cluster) as around:
            now = followed(session, cluster, around, job, wish)
        _print(session, now)


def _print(session: Session, job: Job) -> None:
    from trunkline.cli.following import JOB_COLUMNS, job_row

    order = job.order
    asked = {
        "FILTER": order.where,
        "PLACES": ", ".join(order.places) or None,
        "LIMIT": order.limit,
        "RATE": order.rate,
        "CAP": order.cap,
        "EDITED": order.edit is not None,
    }
    session.out.fields({**dict(zip(JOB_COLUMNS, job_row(job), strict=True)), **asked}, job.as_dict())
