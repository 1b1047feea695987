"""`trunkline offsets`: where pipelines stand in their inputs, and changing that while they are stopped."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from trunkline.bus.accounting.moves import Target
    from trunkline.control.offsets import OffsetsPlan
    from trunkline.control.splits import SplitsPlan

PipelineArgument = Annotated[str, typer.Argument(help="The pipeline's name.", metavar="PIPELINE")]
TopicsOption = Annotated[
    list[str] | None,
    typer.Option("--topic", help="Only this input; repeatable. The retry topic is left alone unless it is named."),
]
PartitionsOption = Annotated[
    list[int] | None, typer.Option("--partition", help="Only this partition of the topic; repeatable.")
]
SplitsOption = Annotated[list[str] | None, typer.Option("--split", help="Of a source: only this split; repeatable.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show what would be read again or skipped.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MOVES = ["TOPIC", "PARTITION", "COMMITTED", "OFFSET", "AGAIN", "SKIPPED", "LOST"]
SPLITS = ["SPLIT", "POSITION", "READ", "DELIVERED", "DEAD", "FINISHED"]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "offsets", "Offsets: where streams and sinks stand in their inputs, and sources in theirs.")
    command(noun, "show")(show)
    command(noun, "set")(set_)
    command(noun, "adopt")(adopt)


def show(session: Session, pipeline: PipelineArgument) -> None:
    """Show the committed offset of every partition, what workers reported, and what is wrong; of a source where its splits stand."""
    from trunkline.control import offsets, pipelines, splits

    cluster = session.cluster()
    if pipelines.known(cluster, pipeline)[pipeline] == "Source":
        found = splits.of_source(cluster, pipeline)
        rows = [(one.split, one.shown, one.read, one.delivered, one.dead, one.finished) for one in found]
        session.out.table(SPLITS, rows, [one.as_dict() for one in found], empty="it has read nothing yet")
        return
    partitions = offsets.of_pipeline(cluster, pipeline)
    columns = ["TOPIC", "PARTITION", "COMMITTED", "SAVED", "EPOCH", "FAULT"]
    data = [one.as_dict() for one in partitions]
    session.out.table(columns, [tuple(one.values()) for one in data], data, empty="nothing is committed yet")


def set_(
    session: Session,
    pipeline: PipelineArgument,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="earliest, latest, a time with zone, or an offset of one partition; saved: where a commit is gone, what workers"
            " reported last; after-gap: where records were deleted unread, behind them; of a source: start, or forget.",
        ),
    ],
    topic: TopicsOption = None,
    partition: PartitionsOption = None,
    split: SplitsOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Set where a stopped or failed pipeline goes on. Shows first what will be read again or skipped; its ledger begins a new epoch."""
    from trunkline.control import offsets, pipelines, splits

    cluster = session.cluster()
    if pipelines.known(cluster, pipeline)[pipeline] == "Source":
        if topic or partition:
            raise ConfigurationError(f"{pipeline} is a source: it has splits", hint="name them with --split")
        rewound = splits.plan(cluster, pipeline, to, splits=split or ())
        _show_splits(session, rewound)
        if _agreed(session, dry_run=dry_run, yes=yes):
            splits.carry_out(cluster, rewound)
            _say_done(session, pipeline)
        return
    if split:
        raise ConfigurationError(
            f"{pipeline} has partitions, and no splits", hint="name them with --topic and --partition"
        )
    planned = offsets.plan(cluster, pipeline, _target(to), topics=topic or (), partitions=partition or ())
    _show_moves(session, planned)
    if _agreed(session, dry_run=dry_run, yes=yes):
        offsets.carry_out(cluster, planned)
        _say_done(session, pipeline)


def adopt(
    session: Session,
    pipeline: PipelineArgument,
    topic: TopicsOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Go on at the old offsets in topics that were made anew as exact copies, as by mirroring to another cluster."""
    from trunkline.control import offsets

    cluster = session.cluster()
    planned = offsets.plan(cluster, pipeline, "adopt", topics=topic or ())
    _show_moves(session, planned)
    if _agreed(session, dry_run=dry_run, yes=yes):
        offsets.carry_out(cluster, planned)
        _say_done(session, pipeline)


def _show_moves(session: Session, planned: OffsetsPlan) -> None:
    out = session.out
    rows = [
        (one.topic, one.partition, one.committed, one.offset, one.again, one.skipped, one.lost) for one in planned.moves
    ]
    out.table(MOVES, rows, planned.as_dict())
    about = "" if planned.exact else "about "
    out.note(f"{about}{planned.again} records will be read again, {about}{planned.skipped} will be skipped")
    if planned.redriven:
        out.note("the retry topic is among them: what a redrive sent there is read again, or skipped")
    if planned.left:
        out.note(f"the retry topic {planned.left[0][0]} stays as it is")


def _show_splits(session: Session, planned: SplitsPlan) -> None:
    rows = [(one.split, one.shown, one.read, one.delivered, one.dead, one.finished) for one in planned.splits]
    session.out.table(SPLITS, rows, planned.as_dict())
    session.out.note(planned.text)


def _agreed(session: Session, *, dry_run: bool, yes: bool) -> bool:
    """Whether it is to be done. Raises `ConfigurationError` where nobody can be asked."""
    if dry_run or yes:
        return not dry_run
    if not session.out.for_people:
        raise ConfigurationError("data output and a question don't go together", hint="pass --yes or --dry-run")
    if not sys.stdin.isatty():
        raise ConfigurationError(
            "nobody is there to be asked whether to do this", hint="pass --yes or --dry-run", code="offsets.unconfirmed"
        )
    typer.confirm("Do it?", abort=True)
    return True


def _say_done(session: Session, pipeline: str) -> None:
    session.out.note(
        f"done; `trunkline status {pipeline}` shows it going on, `trunkline start {pipeline}` starts it where it was stopped"
    )


def _target(text: str) -> Target:
    """What `--to` means. Raises `ConfigurationError`."""
    from trunkline.bus.accounting.moves import Word

    for word in get_args(Word):
        if text == word and word != "adopt":
            return text  # type: ignore[return-value]
    if text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no position",
            where="--to",
            hint="earliest, latest, saved, after-gap, an offset, or a time such as 2026-01-31T00:00:00Z",
        ) from error
    if moment.tzinfo is None:
        raise ConfigurationError(f"the time {text!r} has no zone", where="--to", hint="write 2026-01-31T00:00:00Z")
    return moment
