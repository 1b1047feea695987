"""`trunkline offsets`: where pipelines stand in their inputs, and setting that while they are stopped."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError

PipelineArgument = Annotated[str, typer.Argument(help="The stream or sink.", metavar="PIPELINE")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "offsets", "Offsets: where streams and sinks stand in their inputs.")
    command(noun, "show")(show)
    command(noun, "set")(set_)


def show(session: Session, pipeline: PipelineArgument) -> None:
    """Show the committed offset of every partition, and the second copy that workers reported."""
    from trunkline.control.offsets import of_pipeline

    data = [one.as_dict() for one in of_pipeline(session.cluster(), pipeline)]
    columns = ["TOPIC", "PARTITION", "COMMITTED", "SAVED", "EPOCH"]
    session.out.table(columns, [tuple(one.values()) for one in data], data, empty="nothing is committed yet")


def set_(
    session: Session,
    pipeline: PipelineArgument,
    to: Annotated[
        str, typer.Option("--to", help="earliest, latest, saved (what workers reported last), or a time with zone.")
    ],
    topic: Annotated[str | None, typer.Option("--topic", help="Only this input topic.")] = None,
) -> None:
    """Set the offsets of a stopped pipeline; its ledger begins a new epoch."""
    from trunkline.control.offsets import set_ as set_offsets

    moment = _position(to)
    wanted = set_offsets(session.cluster(), pipeline, moment, topic=topic)
    data = [{"topic": place[0], "partition": place[1], "offset": offset} for place, offset in wanted.items()]
    session.out.table(["TOPIC", "PARTITION", "OFFSET"], [tuple(one.values()) for one in data], data)


def _position(text: str) -> str | datetime:
    """What `--to` means. Raises `ConfigurationError`."""
    if text in {"earliest", "latest", "saved"}:
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no position", where="--to", hint="earliest, latest, saved, or 2026-01-31T00:00:00Z"
        ) from error
    if moment.tzinfo is None:
        raise ConfigurationError(f"the time {text!r} has no zone", where="--to", hint="write 2026-01-31T00:00:00Z")
    return moment
