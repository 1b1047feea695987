"""`trunkline trace`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.command import command
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from trunkline.bus.accounting.trace import Hop
    from trunkline.control.cluster import Cluster
    from trunkline.control.traces import Ways

_COLUMNS = ("TIME", "PIPELINE", "KIND", "OUTCOME", "INPUT", "DETAIL", "WORKER")
_MOST = 200_000


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "trace")(trace)


def trace(
    session: Session,
    correlation_id: Annotated[
        str | None, typer.Argument(help="The correlation id.", metavar="[CORRELATION_ID]")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", "-t", help="Find the event in this topic.")] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help="Events for which this CEL expression is true, such as `event.order == 4711`."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", "-k", help="Events with this key.")] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="The event with this id; without --topic in all topics of the namespace and of its applied manifests.",
            metavar="EVENT_ID",
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Read topic and trace of this last time only, such as 2h.")
    ] = None,
    most: Annotated[
        int, typer.Option("--most", min=1, help="Look at so many records of the topic, the last ones.")
    ] = _MOST,
) -> None:
    """Show every hop of one event: who did what with it, when, and what other systems called it.

    By its correlation id; or by its id, its key or what is true of it, whose last ten events are shown with what was looked at.
    """
    from trunkline.cli.values import duration
    from trunkline.control import traces

    _check(correlation_id, topic, where, key, identity, since)
    seconds = None if since is None else duration(since, "--since")
    cluster = session.cluster()
    if correlation_id is not None:
        found = traces.hops(cluster, correlation_id, seconds=seconds)
        session.out.table(_COLUMNS, _rows(found), [hop.as_dict() for hop in found])
        return
    _show(session, _found(cluster, topic, where, key, identity, seconds, most))


def _check(
    correlation_id: str | None,
    topic: str | None,
    where: str | None,
    key: str | None,
    identity: str | None,
    since: str | None,
) -> None:
    """Raises `ConfigurationError` where the event is named in no way or in several."""
    ways = {"CORRELATION_ID": correlation_id, "--where": where, "--key": key, "--id": identity}
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        raise ConfigurationError(
            f"{' and '.join(given)} name the event in several ways" if given else "nothing says which event is meant",
            where="trace",
            hint="give one: a correlation id, --id, or --topic with --key or --where",
            code="option.conflict" if given else "option.missing",
        )
    if topic is None and given[0] in {"--where", "--key"}:
        raise ConfigurationError(
            f"{given[0]} needs the topic to look in",
            where=given[0],
            hint="add --topic TOPIC; `trunkline topic ls` lists them",
            code="option.missing",
        )
    if correlation_id is not None and topic is not None:
        raise ConfigurationError(
            "a correlation id is looked for in the trace, not in a topic",
            where="--topic",
            hint="leave it out; or give an event's own id by --id",
            code="option.conflict",
        )
    if identity is not None and since is not None:
        raise ConfigurationError(
            "an id is looked for from when it was made on", where="--since", hint="leave it out", code="option.conflict"
        )


def _found(
    cluster: Cluster,
    topic: str | None,
    where: str | None,
    key: str | None,
    identity: str | None,
    seconds: float | None,
    most: int,
) -> Ways:
    from trunkline.control import traces

    if identity is not None:
        return traces.ways_of_id(cluster, topic, identity, most=most)
    assert topic is not None
    if where is not None:
        return traces.ways_where(cluster, topic, where, seconds=seconds, most=most)
    assert key is not None
    return traces.ways_of_key(cluster, topic, key, seconds=seconds, most=most)


def _show(session: Session, found: Ways) -> None:
    from trunkline.control.timestamps import utc

    out = session.out
    if not out.for_people:
        out.data(found.as_dict())
        return
    for number, way in enumerate(found.ways):
        event = way.event
        out.line(("\n" if number else "") + f"{event.place} of {utc(event.at) if event.at > 0 else 'an unknown time'}")
        out.line(f"id {event.id}\ncorrelation id {event.correlation_id}")
        out.table(_COLUMNS, _rows(way.hops), None, empty="no hop of it is in the trace, which keeps seven days")
    if found.more:
        out.note(f"{found.more:,} more were found; these are the last")
    out.note(str(found.looked))


def _rows(hops: Iterable[Hop]) -> list[tuple[Any, ...]]:
    from trunkline.control.timestamps import utc

    return [
        (
            utc(hop.at),
            hop.pipeline,
            hop.kind,
            hop.outcome,
            f"{hop.topic}[{hop.partition}]@{hop.offset}" if hop.topic else "",
            hop.detail,
            hop.worker,
        )
        for hop in hops
    ]
