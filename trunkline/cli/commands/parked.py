"""`trunkline parked`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from trunkline.bus.parking.decisions import Decision
    from trunkline.control.cluster import Cluster
    from trunkline.control.parked import Parked

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
    from trunkline.control.parked import held_keys, records_of

    cluster = session.cluster()
    if key is not None:
        records = [one.as_dict() for one in records_of(cluster, pipeline, key)]
        columns = ["PARTITION", "SEQUENCE", "PARKED", "ORIGIN", "ATTEMPTS", "CODE", "REASON"]
        rows = [tuple(one[column.lower()] for column in columns) for one in records]
        session.out.table(columns, rows, records, empty=f"nothing of {key} is parked")
        return
    found = [one.as_dict() for one in held_keys(cluster, pipeline)]
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

    from trunkline.control.parked import chosen, whole

    cluster = session.cluster()
    record = chosen(cluster, pipeline, key, partition, sequence)
    with cluster.registry() as registry:
        found = whole(cluster, record, registry)
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
    from trunkline.control.parked import chosen, decided

    cluster = session.cluster()
    record = chosen(cluster, pipeline, key, partition, None)
    _await(session, cluster, record, decided(cluster, pipeline, record, "retry", reason=reason), timeout)


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
    from trunkline.control.parked import chosen, decided

    if not reason.strip():
        raise ConfigurationError(
            "a record is not given up without a reason",
            where="--reason",
            hint="say why: the audit trail keeps it",
            code="option.reason",
        )
    cluster = session.cluster()
    record = chosen(cluster, pipeline, key, partition, None, last=every)
    _await(session, cluster, record, decided(cluster, pipeline, record, "drop", reason=reason), timeout)


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
    from trunkline.control.parked import chosen, decided, encoded

    cluster = session.cluster()
    record = chosen(cluster, pipeline, key, partition, sequence)
    with cluster.registry() as registry:
        value = encoded(cluster, file.read_bytes(), record, registry, where=str(file))
    decision = decided(cluster, pipeline, record, "edit", reason=reason, value=value)
    _await(session, cluster, record, decision, timeout)


def _await(session: Session, cluster: Cluster, record: Parked, decision: Decision, timeout: float) -> None:
    """Waits until the worker that has the key carried a decision out, and says whether it did."""
    from trunkline.control.parked import carried_out

    done = carried_out(cluster, decision, timeout)
    if not done:
        session.out.note("no worker has carried it out yet: it waits for the one that has the key")
    data = {"decision": decision.id, "pipeline": decision.pipeline, "key": record.key, "action": decision.action}
    session.out.fields(
        {"decision": decision.id, "key": record.key, "state": "carried out" if done else "waiting"},
        {**data, "carried_out": done},
    )
