"""`trunkline worker` and `trunkline loglevel`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.bus.worker.board import Heartbeat

WorkerArgument = Annotated[str, typer.Argument(help="The worker's id, as `worker ls` shows it.", metavar="WORKER")]


def register(app: typer.Typer) -> None:
    """Adds the noun, and the command that changes what workers log."""
    noun = group(app, "worker", "Workers: where they run, what they have, and what they run.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "get")(get)
    command(app, "loglevel")(loglevel)


def ls(session: Session) -> None:
    """List the workers: those that run, and those that fell silent without an end."""
    from trunkline.cli.values import elapsed
    from trunkline.control.timestamps import utc
    from trunkline.control.workers import workers

    found = workers(session.cluster())
    columns = [
        "WORKER",
        "STATE",
        "HEARD",
        "HOST",
        "PID",
        "VERSION",
        "STARTED",
        "PIPELINES",
        "INCOMPLETE",
        "LEVEL",
        "URL",
    ]
    rows = [
        (
            one.beat.worker,
            one.state,
            f"{elapsed(one.beat.age)} ago",
            one.beat.host,
            one.beat.pid,
            one.beat.version,
            utc(int(one.beat.started_at * 1000)),
            one.beat.pipelines,
            sum(bool(lacks) for plugins in one.plugins.values() for lacks in plugins.values()) or None,
            one.beat.level,
            one.beat.url,
        )
        for one in found
    ]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="no worker runs")


def get(session: Session, worker: WorkerArgument) -> None:
    """Show one worker with its pipelines and its plug-ins, and what these lack."""
    from trunkline.control.workers import worker as find

    found = find(session.cluster(), worker)
    data = found.as_dict()
    session.out.fields({name: value for name, value in data.items() if name not in {"pipelines", "plugins"}}, data)
    if not session.out.for_people:
        return
    session.out.line("")
    rows = [(one.pipeline, one.kind, str(one.state), one.reason) for one in found.reports]
    session.out.table(["PIPELINE", "KIND", "STATE", "REASON"], rows, None, empty="it runs no pipeline")
    session.out.line("")
    plugins = [
        (name, kind, ", ".join(lacks) or None)
        for kind, of_kind in found.plugins.items()
        for name, lacks in sorted(of_kind.items())
    ]
    session.out.table(["PLUG-IN", "KIND", "LACKS"], plugins, None, empty="it has not said yet what it has")


def loglevel(
    session: Session,
    level: Annotated[
        str | None,
        typer.Argument(
            help="debug, info, warning, error or critical; without it the present levels.", metavar="[LEVEL]"
        ),
    ] = None,
    worker: Annotated[str | None, typer.Option("--worker", help="Only this worker; every one without it.")] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0, help="Seconds to wait until every worker has followed.")
    ] = 10.0,
) -> None:
    """Show what the workers log, or change it on all of them at once, wherever they run. It lasts until a worker ends."""
    from trunkline.control.workers import live, set_level

    cluster = session.cluster()
    found: list[Heartbeat] = []
    if level is None:
        found = live(cluster, worker)
    else:
        for beat in set_level(cluster, level.lower(), worker, timeout):
            found.append(beat)
            session.out.note(f"{beat.worker}: {beat.level}")
    columns = ["WORKER", "HOST", "LEVEL"]
    rows = [(beat.worker, beat.host, beat.level) for beat in sorted(found, key=lambda one: one.worker)]
    data = [{"worker": beat.worker, "host": beat.host, "level": beat.level} for beat in found]
    if level is None or not session.out.for_people:
        session.out.table(columns, rows, data, empty="no worker runs")
    elif not found:
        session.out.note("no worker runs: there is nothing to change")
