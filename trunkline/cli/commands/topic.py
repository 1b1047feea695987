"""`trunkline topic`."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

TopicArgument = Annotated[str, typer.Argument(help="The topic's name.", metavar="TOPIC")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "topic", "Topics: what is in them and how they are set up.")
    command(noun, "ls")(ls)
    command(noun, "describe")(describe)
    command(noun, "tail")(tail)


def ls(
    session: Session,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Internal, dead-letter and retry topics too.")
    ] = False,
) -> None:
    """List topics with their sizes."""
    from trunkline.cli.topics import list_topics

    found = list_topics(session.kafka(), session.names(), everything=everything)
    columns = ["TOPIC", "PARTITIONS", "OFFSETS", "CLEANUP", "RETENTION"]
    rows = [(one.name, one.partitions, one.offsets, one.cleanup, one.retention) for one in found]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="there are no topics")


def describe(session: Session, topic: TopicArgument) -> None:
    """Show a topic's partitions, settings, schema, and who writes and reads it."""
    from trunkline.cli.topics import describe_topic

    kafka = session.kafka()
    with session.registry(kafka) as registry:
        found = describe_topic(kafka, session.names(), registry, topic)
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
    from trunkline.cli.tailing import tail as show

    kafka = session.kafka()
    with session.registry(kafka) as registry:
        show(session.out, kafka, registry, topic, follow=follow, count=count, where=where, form=form)


def _joined(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value
