"""`trunkline parked`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError

PipelineArgument = Annotated[str, typer.Argument(help="The pipeline's name.", metavar="PIPELINE")]
KeyOption = Annotated[str, typer.Option("--key", "-k", help="The parked key, as `parked ls` shows it.")]
PartitionOption = Annotated[
    int | None, typer.Option("--partition", min=0, help="Its partition, where the key is parked in several.")
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the audit trail.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0, help="Seconds to wait for the worker that has the key.")
]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "parked", "Parked keys: what waits behind a record that can't be settled, and deciding on it.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "show")(show)
    command(noun, "retry")(retry)
    command(noun, "drop")(drop)
    command(noun, "edit")(edit)


def ls(
    session: Session,
    pipeline: PipelineArgument,
    key: Annotated[str | None, typer.Option("--key", "-k", help="Only this key, record by record.")] = None,
) -> None:
    """List the keys that are held back, the longest first; of one key every record, in the order they will go."""
    from trunkline.cli.parkedkeys import listed, records_of

    if key is not None:
        records = [one.as_dict() for one in records_of(session, pipeline, key)]
        columns = ["PARTITION", "SEQUENCE", "PARKED", "ORIGIN", "ATTEMPTS", "CODE", "REASON"]
        rows = [tuple(one[column.lower()] for column in columns) for one in records]
        session.out.table(columns, rows, records, empty=f"nothing of {key} is parked")
        return
    found = [one.as_dict() for one in listed(session, pipeline)]
    columns = ["KEY", "PARTITION", "RECORDS", "SINCE", "HEAD", "ATTEMPTS", "REASON"]
    session.out.table(
        columns, [tuple(one[column.lower()] for column in columns) for one in found], found, empty="nothing is parked"
    )


def show(
    session: Session,
    pipeline: PipelineArgument,
    key: KeyOption,
    partition: PartitionOption = None,
    sequence: Annotated[
        int | None, typer.Option("--sequence", min=1, help="One record of the key; its first without this.")
    ] = None,
) -> None:
    """Show a parked record with its headers and its value."""
    import json

    from trunkline.cli.parkedkeys import chosen, whole

    record = chosen(session, pipeline, key, partition, sequence)
    with session.registry() as registry:
        found = whole(record, registry)
    shown = {
        name: json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, (dict, list)) else value
        for name, value in found.items()
    }
    session.out.fields(shown, found)


def retry(
    session: Session,
    pipeline: PipelineArgument,
    key: KeyOption,
    partition: PartitionOption = None,
    reason: ReasonOption = "",
    timeout: TimeoutOption = 10.0,
) -> None:
    """Try a key's first record again now, instead of at its next turn."""
    from trunkline.cli.parkedkeys import chosen, decided

    record = chosen(session, pipeline, key, partition, None)
    decided(session, pipeline, record, "retry", reason=reason, timeout=timeout)


def drop(
    session: Session,
    pipeline: PipelineArgument,
    key: KeyOption,
    reason: ReasonOption,
    partition: PartitionOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every record of the key that is parked now.")] = False,
    timeout: TimeoutOption = 10.0,
) -> None:
    """Give up a key's first record, so that the next one goes. It is not delivered and not dead-lettered; the audit trail has why."""
    from trunkline.cli.parkedkeys import chosen, decided

    if not reason.strip():
        raise ConfigurationError(
            "a record is not given up without a reason",
            where="--reason",
            hint="say why: the audit trail keeps it",
            code="option.reason",
        )
    record = chosen(session, pipeline, key, partition, None, last=every)
    decided(session, pipeline, record, "drop", reason=reason, timeout=timeout)


def edit(
    session: Session,
    pipeline: PipelineArgument,
    key: KeyOption,
    file: Annotated[Path, typer.Option("--file", "-f", help="The new value, as JSON.", exists=True, dir_okay=False)],
    reason: ReasonOption = "",
    partition: PartitionOption = None,
    sequence: Annotated[
        int | None, typer.Option("--sequence", min=1, help="One record of the key; its first without this.")
    ] = None,
    timeout: TimeoutOption = 10.0,
) -> None:
    """Give a parked record another value, checked against its schema, and try the key again."""
    from trunkline.cli.parkedkeys import chosen, decided, encoded

    record = chosen(session, pipeline, key, partition, sequence)
    with session.registry() as registry:
        value = encoded(file, record, registry)
    decided(session, pipeline, record, "edit", reason=reason, value=value, timeout=timeout)
