"""`trunkline dlq`."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

PipelineArgument = Annotated[str, typer.Argument(help="The pipeline's name.", metavar="PIPELINE")]
FilterOption = Annotated[
    str | None,
    typer.Option(
        "--filter",
        help="Only dead letters for which this CEL expression is true, such as `event.id > 7 && letter.code == 'sink.rejected'`.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "dlq", "Dead letters: what failed, why, and sending it again.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "show")(show)
    command(noun, "redrive")(redrive)


def ls(
    session: Session,
    pipeline: Annotated[str | None, typer.Argument(help="One pipeline; all without it.", metavar="PIPELINE")] = None,
) -> None:
    """List dead letters that wait, grouped by what they have in common: one line for each cause."""
    from trunkline.cli.deadletters import grouped

    kafka = session.kafka()
    found = grouped(session, kafka, pipeline)
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
    from trunkline.cli.deadletters import at_place, letter_data, waiting

    kafka = session.kafka()
    with session.registry(kafka) as registry:
        if place is not None:
            found = letter_data(at_place(session, kafka, pipeline, place), registry)
            session.out.fields({name: _text(value) for name, value in found.items()}, found)
            return
        data = [letter_data(letter, registry) for letter in waiting(session, kafka, registry, pipeline, where, limit)]
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


def redrive(
    session: Session,
    pipeline: PipelineArgument,
    places: Annotated[
        list[str] | None,
        typer.Argument(help="Only these, as PARTITION@OFFSET of the dead-letter topic.", metavar="[PLACE]..."),
    ] = None,
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
    from trunkline.cli.deadletters import order_of, redriven, say_unjudged
    from trunkline.cli.edits import edit_of

    kafka = session.kafka()
    change = edit_of(edit, assignments or [], places or [])
    order = order_of(session, kafka, pipeline, places or [], where=where, limit=limit, rate=rate, cap=cap, edit=change)
    plan, job = redriven(session, kafka, pipeline, order, dry_run=dry_run, detach=detach)
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
    if plan.sent_before:
        session.out.note(f"sent again already, and not once more: {', '.join(plan.sent_before)}")
    say_unjudged(session, plan.unjudged, plan.first_unjudged)
    left_out = {"unjudged": plan.unjudged, "sent_before": plan.sent_before}
    data = {"pipeline": pipeline, **counts, **left_out, "sent": sent, "dry_run": dry_run}
    session.out.fields(shown, {**data, "job": job.id if job is not None else None, "state": state})
    if plan.unjudged and not plan.total:
        raise typer.Exit(1)  # nothing was chosen, and it is not known whether that was meant


def _text(value: object) -> object:
    import json

    return json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, (dict, list)) else value
