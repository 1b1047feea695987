"""`trunkline job`."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

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
    from trunkline.bus.redrive.jobs import JobLog
    from trunkline.cli.jobs import JOB_COLUMNS, job_row

    found = JobLog.read(session.kafka(), session.names(), patient=False).of(None if pipeline is None else [pipeline])
    session.out.table(JOB_COLUMNS, [job_row(one) for one in found], [one.as_dict() for one in found], empty="no jobs")


def show(session: Session, job: JobArgument) -> None:
    """Show one job: what was asked, by whom, and how far it is."""
    from trunkline.cli.jobs import find

    _print(session, find(session.kafka(), session.names(), job))


def pause(session: Session, job: JobArgument) -> None:
    """Let a job rest after the transaction under way."""
    from trunkline.bus.redrive.jobs import Desired
    from trunkline.cli.jobs import want

    _print(session, want(session, job, Desired.PAUSED))


def resume(session: Session, job: JobArgument, detach: DetachOption = False) -> None:
    """Let a paused, failed or orphaned job go on, and follow it. Without any worker it is executed here."""
    from trunkline.bus.redrive.jobs import Desired
    from trunkline.cli.jobs import want

    _print(session, want(session, job, Desired.RUNNING, detach=detach))


def cancel(session: Session, job: JobArgument) -> None:
    """End a job. What was sent stays sent; what was not keeps waiting."""
    from trunkline.bus.redrive.jobs import Desired
    from trunkline.cli.jobs import want

    _print(session, want(session, job, Desired.CANCELLED))


def _print(session: Session, job: object) -> None:
    from trunkline.bus.redrive.jobs import Job
    from trunkline.cli.jobs import JOB_COLUMNS, job_row

    assert isinstance(job, Job)
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
