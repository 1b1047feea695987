"""`trunkline validate`, `plan` and `apply`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command
from trunkline.cli.confirming import YesOption, confirmed
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.control.cluster import Cluster
    from trunkline.control.manifests import Proposal
    from trunkline.core.manifests import Project

FilesOption = Annotated[
    list[Path], typer.Option("--file", "-f", help="A manifest file or a folder of them; may be given more than once.")
]
PruneOption = Annotated[bool, typer.Option("--prune", help="Delete applied manifests that the files do not have.")]

WaitOption = Annotated[
    bool | None,
    typer.Option("--wait/--no-wait", help="Wait until workers run what changed. The default in a terminal."),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds to wait for each pipeline to run.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    command(app, "validate")(validate)
    command(app, "plan")(plan)
    command(app, "apply")(apply)


def validate(session: Session, file: FilesOption) -> None:
    """Check manifests without a broker: fields, plug-ins, topics, expressions, schemas. Lists every problem; exit code 2."""
    from trunkline.core.manifests import load_files
    from trunkline.core.manifests.check import check

    project = load_files(file)
    check(project)
    counts = _counts(project)
    session.out.fields(
        {"valid": ", ".join(f"{count} {kind}" for kind, count in counts.items())}, {"valid": True, **counts}
    )


def plan(session: Session, file: FilesOption, prune: PruneOption = False) -> None:
    """Show what `apply` would change: manifests, topics, schemas. Changes nothing."""
    from trunkline.control.manifests import propose
    from trunkline.core.manifests import load_files

    cluster = session.cluster()
    with cluster.registry() as registry:
        proposal = propose(cluster, registry, load_files(file), prune=prune)
    _show(session, proposal)


def apply(
    session: Session,
    file: FilesOption,
    prune: PruneOption = False,
    yes: YesOption = False,
    wait: WaitOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Make these manifests the applied ones: all of them, or none where there is any problem.

    Waited for, it says what became of each pipeline, and ends with 1 where one does not run.
    """
    from trunkline.control.manifests import carry_out, propose
    from trunkline.core.errors import ConfigurationError
    from trunkline.core.manifests import load_files

    cluster = session.cluster()
    with cluster.registry() as registry:
        proposal = propose(cluster, registry, load_files(file), prune=prune)
        if not (session.out.for_people or yes):
            raise ConfigurationError("data output and a question don't go together", hint="pass --yes")
        waits = wait if wait is not None else sys.stdout.isatty()
        if session.out.for_people or not waits:
            _show(session, proposal)
        if not proposal.empty:
            confirmed(session, "Apply?", yes=yes)
            carry_out(cluster, registry, proposal)
            if session.out.for_people:
                session.out.line("applied")
    if waits:
        _show_rollout(session, cluster, proposal, timeout, asked=bool(wait))


def _show(session: Session, proposal: Proposal) -> None:
    out = session.out
    if not out.for_people:
        out.data(proposal.as_dict())
        return
    from trunkline.bus.accounting.audit import brief
    from trunkline.cli.recordcounts import leaving_lines, reading_lines

    signs = {"create": "+", "change": "~", "delete": "-"}
    for change in proposal.changes:
        out.line(f"{signs[change.action]} {change.kind} {change.name}")
        for field, old, new in change.fields:
            out.line(f"    {field}: {brief(old)} → {brief(new)}")
    for name in proposal.new_topics:
        out.line(f"+ topic {name}")
    for subject in proposal.new_schemas:
        out.line(f"+ schema {subject}")
    for line in [*reading_lines(proposal.reads), *leaving_lines(proposal.leaves)]:
        out.line(line)
    for difference in proposal.differences:
        out.note(f"warning: topic {difference}; it is not changed")
    if proposal.empty:
        out.line("nothing to change")


def _show_rollout(session: Session, cluster: Cluster, proposal: Proposal, timeout: float, *, asked: bool) -> None:
    from trunkline.control.rollout import GOOD, Fate
    from trunkline.core.errors import CheckFailedError

    out, found = session.out, []
    for outcome in proposal.rollout().wait(cluster, timeout):
        found.append(outcome)
        if out.for_people:
            cause = outcome.cause
            out.line(f"{outcome.pipeline}: {outcome.fate}" + (f": {cause.reason}" if cause is not None else ""))
            if cause is not None and cause.hint:
                out.note(f"  hint: {cause.hint}")
    if not out.for_people:
        out.data({**proposal.as_dict(), "pipelines": [one.as_dict() for one in found]})
    if any(one.fate is Fate.UNATTENDED for one in found):
        out.note("no worker runs now: what was applied is kept for when one comes")
    bad = [one.pipeline for one in found if one.fate not in GOOD and (asked or one.fate is not Fate.UNATTENDED)]
    if bad:
        raise CheckFailedError(
            f"applied, and {', '.join(sorted(bad))} {'does' if len(bad) == 1 else 'do'} not run",
            hint="see `trunkline status`",
            code="apply.not_running",
        )


def _counts(project: Project) -> dict[str, int]:
    kinds = ("topics", "connections", "sources", "streams", "sinks")
    return {kind: len(getattr(project, kind)) for kind in kinds}
