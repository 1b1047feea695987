"""`trunkline delete`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command
from trunkline.cli.confirming import DryRunOption, YesOption, confirmed
from trunkline.cli.session import Session
from trunkline.core.errors import CheckFailedError

if TYPE_CHECKING:
    from trunkline.control.deletion import Deletion


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "delete")(delete)


def delete(
    session: Session,
    target: Annotated[
        list[str], typer.Argument(help="What to delete: `sink/to-api`, or `sink to-api`.", metavar="KIND/NAME")
    ],
    forget: Annotated[
        bool,
        typer.Option(
            "--forget",
            help="Forget how far pipelines had come: one of the name that is applied later begins where its `start` says.",
        ),
    ] = False,
    yes: YesOption = False,
    dry_run: DryRunOption = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait for workers to end pipelines.")
    ] = 60.0,
) -> None:
    """Delete applied manifests; topics, dead letters and offsets stay. Refused where others that stay need one of them."""
    from trunkline.control import deletion

    cluster = session.cluster()
    proposal = deletion.propose(cluster, targets(target))
    _show(session, proposal, forget=forget)
    if dry_run:
        _data(session, proposal, deleted=False, forgotten=False, running=[])
        return
    confirmed(session, "Delete?", yes=yes)
    cluster.ensure_internal_topics()
    deleted = deletion.carry_out(cluster, proposal)
    for key in proposal.applied:
        if key not in deleted:
            session.out.note(f"{key} was deleted by somebody else meanwhile")
    session.out.line("deleted")
    running = deletion.await_ends(cluster, proposal, timeout)
    forgotten = forget and not running
    if forgotten:
        deletion.forget_progress(cluster, proposal)
        session.out.line("forgotten")
    _data(session, proposal, deleted=True, forgotten=forgotten, running=running)
    if running:
        session.out.note(f"workers are still ending {', '.join(running)}")
    if forget and running:
        raise CheckFailedError(
            "how far they had come is not forgotten yet", hint="ask again when they have ended", code="delete.running"
        )


def targets(written: list[str]) -> list[str]:
    """`KIND/NAME` of each: `kubectl` also takes the kind once, before names."""
    if len(written) > 1 and "/" not in written[0]:
        return [f"{written[0]}/{name}" for name in written[1:]]
    return written


def _data(session: Session, proposal: Deletion, *, deleted: bool, forgotten: bool, running: list[str]) -> None:
    if not session.out.for_people:
        session.out.data({**proposal.as_dict(), "deleted": deleted, "forgotten": forgotten, "running": running})


def _show(session: Session, proposal: Deletion, *, forget: bool) -> None:
    from trunkline.cli.recordcounts import counted, leaving_lines

    out = session.out
    for key in [*proposal.applied, *proposal.ended]:
        kind, _, name = key.partition("/")
        out.line(f"- {kind} {name}" + ("" if key in proposal.applied else " (not applied any more)"))
    for line in leaving_lines(proposal.leaves):
        out.line(line)
    for one in proposal.leaves:
        if one.partitions or one.splits:
            stays = "is forgotten" if forget else "stays known: one of this name that is applied later goes on there"
            out.line(f"{one.pipeline}: how far it had come {stays}")
    for name, count in proposal.topics.items():
        out.line(f"{name}: the topic stays, with {counted(count.records, 'record', exact=count.exact)}")
    left = [*(topic for one in proposal.leaves for topic in one.topics), *proposal.topics]
    if left:
        out.line("topics that stay are deleted by: " + "; ".join(f"trunkline topic delete {topic}" for topic in left))
    for topic, readers in proposal.unwritten.items():
        out.note(f"warning: nobody will write {topic} any more, which {', '.join(readers)} reads")
    for topic, writers in proposal.unread.items():
        out.note(f"warning: nobody will read {topic} any more, which {', '.join(writers)} writes")
