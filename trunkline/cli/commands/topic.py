"""`trunkline topic`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.confirming import DryRunOption, YesOption, confirmed
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.cli.output import Output
    from trunkline.control.tail import TopicRecord

TopicArgument = Annotated[str, typer.Argument(help="The topic's name.", metavar="TOPIC")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "topic", "Topics: what is in them and how they are set up.")
    command(noun, "ls")(ls)
    command(noun, "describe")(describe)
    command(noun, "tail")(tail)
    command(noun, "delete")(delete)


def ls(
    session: Session,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Internal, dead-letter and retry topics too.")
    ] = False,
) -> None:
    """List topics with their sizes."""
    from trunkline.control.topics import list_topics

    found = list_topics(session.cluster(), everything=everything)
    columns = ["TOPIC", "PARTITIONS", "OFFSETS", "CLEANUP", "RETENTION"]
    rows = [
        (one.name, one.partitions, "unknown" if one.offsets is None else one.offsets, one.cleanup, one.retention)
        for one in found
    ]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="there are no topics")


def describe(session: Session, topic: TopicArgument) -> None:
    """Show a topic's partitions, settings, schema, and who writes and reads it."""
    from trunkline.control.topics import describe_topic

    cluster = session.cluster()
    with cluster.registry() as registry:
        found = describe_topic(cluster, registry, topic).as_dict()
    out = session.out
    if not out.for_people:
        out.data(found)
        return
    heads = ("topic", "id", "schema", "written_by", "read_by")
    out.fields({name: _joined(found[name]) for name in heads}, found)
    out.line("")
    rows = [tuple(one.values()) for one in found["partitions"]]
    out.table(["PARTITION", "FIRST", "END", "LEADER", "REPLICAS", "IN SYNC"], rows, found)
    out.line("")
    out.table(["SETTING", "VALUE"], list(found["config"].items()), found)


def tail(
    session: Session,
    topic: TopicArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what arrives, until Ctrl-C.")] = False,
    count: Annotated[int, typer.Option("--count", "-n", min=0, help="Show so many of the last records.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", help="Show records for which this CEL expression is true, such as `event.minutes > 60`."
        ),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="As kcat's: %t topic, %p partition, %o offset, %k key, %s value, %h headers, %T time in Unix milliseconds; \\n, \\t.",
        ),
    ] = None,
) -> None:
    """Show the last records of a topic, decoded; `-o json` prints one JSON object a line."""
    from trunkline.cli.kcat import formatted
    from trunkline.control.filters import record_filter
    from trunkline.control.tail import tail as records
    from trunkline.control.topics import require_topic

    cluster, shown = session.cluster(), 0
    require_topic(cluster, topic)
    with cluster.registry() as registry:
        if form is not None:
            formatted({}, form)  # a wrong one is said before anything is read
        holds = record_filter(registry, topic, where, "--filter") if where is not None else None
        for record in records(cluster, registry, topic, count=count, follow=follow, holds=holds):
            _print(session.out, record, form)
            shown += 1
    if holds is not None:
        holds.judge(shown)


def _print(out: Output, record: TopicRecord, form: str | None) -> None:
    import json
    import sys

    from trunkline.cli.kcat import formatted
    from trunkline.cli.printable import printable

    if form is not None:
        line = formatted(record.as_dict(), form)
        sys.stdout.write(line if line.endswith("\n") else line + "\n")
    elif out.for_people:
        value = json.dumps(record.value, ensure_ascii=False)
        key = f" {record.key}" if record.key is not None else ""
        broken = f"  ({record.undecodable})" if record.undecodable is not None else ""
        place = f"{record.topic}[{record.partition}]@{record.offset}"
        sys.stdout.write(printable(f"{record.time or '-'} {place}{key} {value}{broken}") + "\n")
    else:
        out.record(record.as_dict())
    sys.stdout.flush()


def delete(session: Session, topic: TopicArgument, yes: YesOption = False, dry_run: DryRunOption = False) -> None:
    """Delete a topic that no applied pipeline uses, with all its records: what a deleted pipeline left, or a topic without a manifest."""
    from trunkline.cli.recordcounts import counted
    from trunkline.control import topics

    cluster = session.cluster()
    proposal = topics.propose_deletion(cluster, topic)
    records = counted(proposal.records, "record", exact=proposal.exact)
    session.out.line(f"- topic {topic}: {records} in {counted(proposal.partitions, 'partition')}")
    for reader in proposal.read_by:
        session.out.note(f"warning: the consumer group {reader} reads it now")
    if not dry_run:
        confirmed(session, f"Delete {topic} with {records}?", yes=yes)
        topics.delete_topic(cluster, proposal)
        session.out.line("deleted")
    if not session.out.for_people:
        session.out.data({**proposal.as_dict(), "deleted": not dry_run})


def _joined(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
