"""`trunkline dlq`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.command import command, group
from trunkline.cli.confirming import DryRunOption, YesOption, confirmed
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.bus.redrive.jobs import Job, RedriveOrder
    from trunkline.bus.redrive.plan import Plan
    from trunkline.control.cluster import Cluster

PipelineArgument = Annotated[str, typer.Argument(help="The pipeline's name.", metavar="PIPELINE")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        help="Only dead letters for which this CEL expression is true, such as `event.id > 7 && letter.code == 'sink.rejected'`.",
    ),
]

PlacesArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Only these, as PARTITION@OFFSET of the dead-letter topic.", metavar="[PLACE]..."),
]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "dlq", "Dead letters: what failed, why, sending it again, and dropping it.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "show")(show)
    command(noun, "redrive")(redrive)
    command(noun, "drop")(drop)


def ls(
    session: Session,
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all without it.", metavar="PIPELINE")] = None,
) -> None:
    """List dead letters that wait, grouped by what they have in common: one line for each cause."""
    from trunkline.control.deadletters import grouped

    found = grouped(session.cluster(), pipeline)
    columns = ["PIPELINE", "FINGERPRINT", "COUNT", "STAGE", "CODE", "FIRST", "LAST", "EXAMPLE", "OWNER", "REASON"]
    rows = [tuple(getattr(one, column.lower()) for column in columns) for one in found]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="no dead letters wait")


def show(
    session: Session,
    pipeline: PipelineArgument,
    place: Annotated[
        str | None,
        typer.Argument(help="One dead letter, as PARTITION@OFFSET of the dead-letter topic.", metavar="PLACE"),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show so many, the oldest first.")] = 20,
    where: FilterOption = None,
) -> None:
    """Show dead letters with their reasons, and one with its headers and value."""
    from trunkline.control.deadletters import at_place, details, fate, waiting
    from trunkline.control.filters import raise_unjudged

    cluster = session.cluster()
    with cluster.registry() as registry:
        if place is not None:
            letter = at_place(cluster, pipeline, place)
            found = details(letter, cluster.decoders(registry)).as_dict() | {"settled": fate(cluster, pipeline, letter)}
            session.out.fields({name: _text(value) for name, value in found.items()}, found)
            return
        chosen = waiting(cluster, registry, pipeline, where=where, limit=limit)
        _say_unjudged(session, chosen.unjudged, chosen.first_unjudged)
        decoder_of = cluster.decoders(registry)
        data = [details(letter, decoder_of).as_dict() for letter in chosen.letters]
    columns = ["PLACE", "FAILED", "STAGE", "CODE", "ATTEMPTS", "ORIGIN", "KEY", "REASON"]
    rows = [
        (
            one["place"],
            one["failed_at"],
            one["stage"],
            one["code"],
            one["attempts"],
            one["origin"],
            one["key"],
            one["reason"],
        )
        for one in data
    ]
    session.out.table(columns, rows, data, empty="no dead letters wait")
    raise_unjudged(len(data), chosen.unjudged, chosen.first_unjudged, "--filter")


def redrive(
    session: Session,
    pipeline: PipelineArgument,
    places: PlacesArgument = None,
    where: FilterOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be sent.")] = False,
    rate: Annotated[float | None, typer.Option("--rate", min=0.001, help="Send at most so many a second.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Send at most so many, the oldest first.")
    ] = None,
    cap: Annotated[
        int, typer.Option("--cap", min=1, help="Skip events that were sent again so often already; they are counted.")
    ] = 10,
    edit: Annotated[
        str | None,
        typer.Option(
            "--edit", help="A JSON file (- for standard input) with the value of the one letter named.", metavar="FILE"
        ),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Set a field of each letter to a CEL expression; may be repeated.", metavar="FIELD=CEL"
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; a worker does it.")] = False,
) -> None:
    """Send dead letters to their pipeline again, and to no other, as a job that outlives this command. Nothing is sent twice."""
    from trunkline.control.redrives import judge, order_of

    cluster = session.cluster()
    change = _edit_of(edit, assignments or [], places or [])
    order = order_of(cluster, pipeline, places or [], where=where, limit=limit, rate=rate, cap=cap, edit=change)
    plan, job = _redriven(session, cluster, pipeline, order, dry_run=dry_run, detach=detach)
    sent = job.progress.sent if job is not None else 0
    counts = {"waiting": plan.total, "capped": plan.capped, "refused": plan.refused}
    state = str(job.progress.state) if job is not None else None
    shown = {
        **counts,
        "sent": "nothing, a dry run" if dry_run else sent,
        "job": job.id if job is not None else None,
        "state": state,
    }
    for refusal in plan.refusals:
        session.out.note(f"refused {refusal}")
    if plan.settled_before:
        session.out.note(f"sent again or dropped already: {', '.join(plan.settled_before)}")
    _say_unjudged(session, plan.unjudged, plan.first_unjudged)
    left_out = {"unjudged": plan.unjudged, "settled_before": plan.settled_before}
    data = {"pipeline": pipeline, **counts, **left_out, "sent": sent, "dry_run": dry_run}
    session.out.fields(shown, {**data, "job": job.id if job is not None else None, "state": state})
    judge(plan, None if detach else job)


def drop(
    session: Session,
    pipeline: PipelineArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit trail.")],
    places: PlacesArgument = None,
    where: FilterOption = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Drop at most so many, the oldest first.")
    ] = None,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Decide that dead letters are not sent again: they wait no longer, and `status` counts them as dropped. They stay in their topic."""
    from trunkline.cli.recordcounts import counted
    from trunkline.control.drops import carry_out, judge, proposed

    cluster, dropped = session.cluster(), 0
    with proposed(cluster, pipeline, places or [], where=where, limit=limit, reason=reason) as proposal:
        plan = proposal.plan
        letters = counted(plan.total, "dead letter")
        session.out.line(f"- {pipeline}: {letters}")
        if plan.settled_before:
            session.out.note(f"sent again or dropped already: {', '.join(plan.settled_before)}")
        _say_unjudged(session, plan.unjudged, plan.first_unjudged)
        judge(proposal)
        if plan.total and not dry_run:
            confirmed(session, f"Drop {letters} of {pipeline}?", yes=yes)
            dropped = carry_out(cluster, proposal)
            session.out.line(f"dropped {counted(dropped, 'dead letter')}")
    if not session.out.for_people:
        session.out.data({**proposal.as_dict(), "dropped": dropped, "dry_run": dry_run})


def _edit_of(file: str | None, assignments: Sequence[str], places: Sequence[str]) -> dict[str, Any] | None:
    """The edit as data, None where nothing is edited. Raises `ConfigurationError` for a wrong file or expression."""
    from trunkline.bus.redrive.edits import Changes, Edit
    from trunkline.core.errors import ConfigurationError

    if file is None and not assignments:
        return None
    if file is not None and assignments:
        raise ConfigurationError(
            "--edit gives the whole value: leave out --set", where="--edit", code="option.conflict"
        )
    if file is not None:
        if len(places) != 1:
            raise ConfigurationError(
                "--edit is for one letter",
                where="--edit",
                hint="name its place, as `dlq show` lists it; --set changes many",
                code="option.missing",
            )
        return Edit(document=_document(file)).as_dict()
    changes = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign or not name.strip() or not text.strip():
            raise ConfigurationError(
                f"{assignment!r} is no assignment",
                where="--set",
                hint="write FIELD=CEL, such as --set 'country=\"DE\"'",
                code="option.assignment",
            )
        changes[name.strip()] = text.strip()
    Changes(changes)
    return Edit(set=changes).as_dict()


def _document(file: str) -> dict[str, Any]:
    import sys
    from pathlib import Path

    from trunkline.core.errors import ConfigurationError, RejectedError
    from trunkline.core.jsonable import to_json_bytes
    from trunkline.core.jsontext import read_json

    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        found = read_json(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{file} can't be read as JSON: {error}", where="--edit", code="option.file"
        ) from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} holds no JSON object", where="--edit", code="option.file")
    try:
        to_json_bytes(found)  # it is kept as a part of the job
    except RejectedError as error:
        raise ConfigurationError(f"{file}: {error.message}", where="--edit", code="option.file") from error
    return found


def _redriven(
    session: Session, cluster: Cluster, pipeline: str, order: RedriveOrder, *, dry_run: bool, detach: bool
) -> tuple[Plan, Job | None]:
    """The letters as counted first, and the job that sent them: none for a dry run, and where there is nothing to send."""
    from trunkline.cli.following import execution, followed
    from trunkline.control.redrives import counted, create

    cluster.ensure_internal_topics()
    with execution(session, cluster) as around:
        plan = counted(cluster, around, pipeline, order)
        if dry_run or not plan.total:
            return plan, None
        job = create(cluster, pipeline, order, plan.total)
        if detach:
            return plan, job
        session.out.note(f"job {job.id}: {plan.total} to send")
        return plan, followed(session, cluster, around, job)


def _say_unjudged(session: Session, count: int, first: str) -> None:
    """Says on how many letters a filter could not be evaluated, and why on the first; nothing where there were none."""
    if count:
        letters = "1 letter" if count == 1 else f"{count} letters"
        session.out.note(f"--filter could not be evaluated on {letters}, not chosen therefore: {first}")


def _text(value: object) -> object:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, (dict, list)) else value
