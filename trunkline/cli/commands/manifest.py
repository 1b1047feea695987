"""`trunkline validate`, `plan` and `apply`."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command
from trunkline.cli.confirming import YesOption, confirmed
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.control.cluster import Cluster
    from trunkline.control.manifests import Proposal
    from trunkline.core.manifests import Problem, Project

FilesOption = Annotated[
    list[Path], typer.Option("--file", "-f", help="A manifest file or a folder of them; may be given more than once.")
]


class Against(enum.StrEnum):
    """What manifests are judged against besides themselves."""

    CLUSTER = "cluster"
    NONE = "none"


AgainstOption = Annotated[
    Against | None,
    typer.Option(
        "--against",
        help="`cluster`: the files may build upon what is applied there. `none`: they must be complete. By default the cluster, "
        "where one was named or runs in the home folder and answers.",
    ),
]
TrustOption = Annotated[
    bool,
    typer.Option("--trust-code", help="Run the code of `python` steps, here and now. Without it, it is only read."),
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


def validate(
    session: Session, file: FilesOption, against: AgainstOption = None, trust_code: TrustOption = False
) -> None:
    """Check manifests: fields, plug-ins, topics, expressions, schemas. Lists every problem; exit code 2.

    Needs no values of secrets and of the environment. Beside a cluster, the files may build upon what is applied there.
    """
    from trunkline.control.judging import judge_against, judge_alone
    from trunkline.core.manifests.load import gather_files

    own = gather_files(file)
    counts = _counts(own.project)
    cluster = _cluster_beside(session, against)
    judged = (
        judge_alone(own, run_code=trust_code) if cluster is None else judge_against(cluster, own, run_code=trust_code)
    )
    judged.raise_for_problems()
    notes = [one.as_dict() for one in judged.not_run]
    session.out.fields(
        {"valid": ", ".join(f"{count} {kind}" for kind, count in counts.items())},
        {"valid": True, **counts, "against": "none" if cluster is None else "cluster", "not_run": notes},
    )
    if cluster is not None and session.out.for_people:
        session.out.note("judged beside what is applied; --against none judges the files alone")
    _show_not_run(session, judged.not_run)


def _cluster_beside(session: Session, against: Against | None) -> Cluster | None:
    """The cluster to judge against; None for none. One that was not asked for may be away."""
    from trunkline.core.errors import UnavailableError

    if against is Against.NONE:
        return None
    try:
        return session.cluster()
    except UnavailableError as error:
        if against is Against.CLUSTER:
            raise
        if session.bootstrap is not None:
            session.out.note(f"judged without the cluster: {error.message}")
        return None


def _complete(files: list[Path], against: Against | None, *, trust_code: bool) -> None:
    """With `--against none`, files that are going to be applied must be complete without what is applied."""
    from trunkline.control.judging import judge_alone
    from trunkline.core.manifests.load import gather_files

    if against is Against.NONE:
        judge_alone(gather_files(files), run_code=trust_code).raise_for_problems()


def _show_not_run(session: Session, notes: Sequence[Problem]) -> None:
    for one in notes:
        session.out.note(f"{one.file}:{one.line}: {one.message}; --trust-code runs it")


def plan(
    session: Session,
    file: FilesOption,
    prune: PruneOption = False,
    against: AgainstOption = Against.CLUSTER,
    trust_code: TrustOption = False,
) -> None:
    """Show what `apply` would change: manifests, topics, schemas. Changes nothing."""
    from trunkline.control.manifests import propose
    from trunkline.core.manifests import load_files

    _complete(file, against, trust_code=trust_code)
    cluster = session.cluster()
    with cluster.registry() as registry:
        proposal = propose(cluster, registry, load_files(file), prune=prune, run_code=trust_code)
    _show(session, proposal)


def apply(
    session: Session,
    file: FilesOption,
    prune: PruneOption = False,
    yes: YesOption = False,
    wait: WaitOption = None,
    timeout: TimeoutOption = 60.0,
    against: AgainstOption = Against.CLUSTER,
    trust_code: TrustOption = False,
) -> None:
    """Make these manifests the applied ones: all of them, or none where there is any problem.

    Waited for, it says what became of each pipeline, and ends with 1 where one does not run.
    """
    from trunkline.control.manifests import carry_out, propose
    from trunkline.core.errors import ConfigurationError
    from trunkline.core.manifests import load_files

    _complete(file, against, trust_code=trust_code)
    cluster = session.cluster()
    with cluster.registry() as registry:
        proposal = propose(cluster, registry, load_files(file), prune=prune, run_code=trust_code)
        if not (session.out.for_people or yes):
            raise ConfigurationError("data output and a question don't go together", hint="pass --yes")
        waits = wait if wait is not None else sys.stdout.isatty()
        if session.out.for_people or not waits:
            _show(session, proposal)
        if not proposal.empty:
            confirmed(session, "Apply?", yes=yes)
            made = carry_out(cluster, registry, proposal)
            for change in [one for one in proposal.changes if one not in made]:
                session.out.note(f"{change.key} is so already: somebody else did it meanwhile")
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
    _show_not_run(session, proposal.not_run)
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
