"""`trunkline offsets`: where pipelines stand in their inputs, and setting that while they are stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

PipelineArgument = Annotated[str, typer.Argument(help="The stream or sink.", metavar="PIPELINE")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "offsets", "Offsets: where streams and sinks stand in their inputs.")
    command(noun, "show")(show)
    command(noun, "set")(set_)


def show(session: Session, pipeline: PipelineArgument) -> None:
    """Show the committed offset of every partition, and the second copy that workers reported."""
    from trunkline.bus.accounting.commits import committed
    from trunkline.bus.worker.offsetadmin import saved_positions
    from trunkline.cli.standing import known_pipelines

    kafka, names = session.kafka(), session.names()
    known_pipelines(session, kafka, names, pipeline)
    found = committed(kafka, names, pipeline)
    saved = saved_positions(session.board().reports()).get(pipeline, {})
    data = [
        {
            "topic": topic,
            "partition": partition,
            "committed": found[topic, partition][0] if (topic, partition) in found else None,
            "saved": saved.get((topic, partition)),
            "epoch": found[topic, partition][1].epoch if (topic, partition) in found else None,
        }
        for topic, partition in sorted({*found, *saved})
    ]
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
    from datetime import datetime

    from trunkline.bus.accounting.commits import committed
    from trunkline.bus.worker.offsetadmin import saved_positions, set_offsets, wanted_offsets
    from trunkline.cli.standing import known_pipelines
    from trunkline.core.errors import ConfigurationError

    moment: str | datetime = to
    if to not in {"earliest", "latest", "saved"}:
        try:
            moment = datetime.fromisoformat(to)
        except ValueError as error:
            raise ConfigurationError(
                f"{to!r} is no position", where="--to", hint="earliest, latest, saved, or 2026-01-31T00:00:00Z"
            ) from error
        if moment.tzinfo is None:
            raise ConfigurationError(f"the time {to!r} has no zone", where="--to", hint="write 2026-01-31T00:00:00Z")
    kafka, names = session.kafka(), session.names()
    known_pipelines(session, kafka, names, pipeline)
    saved = saved_positions(session.board().reports()).get(pipeline, {})
    partitions = [
        place for place in sorted({*committed(kafka, names, pipeline), *saved}) if topic is None or place[0] == topic
    ]
    if not partitions:
        raise ConfigurationError(
            f"{pipeline} has read nothing" + (f" of {topic}" if topic else ""),
            hint="its manifest's `start` says where it begins",
            code="offsets.none",
        )
    mine = {place: offset for place, offset in saved.items() if place in partitions}
    wanted = wanted_offsets(kafka, partitions, moment, mine)
    set_offsets(kafka, names, pipeline, wanted)
    data = [{"topic": place[0], "partition": place[1], "offset": offset} for place, offset in sorted(wanted.items())]
    session.out.table(["TOPIC", "PARTITION", "OFFSET"], [tuple(one.values()) for one in data], data)
