"""`trunkline key`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session
from trunkline.cli.values import duration

if TYPE_CHECKING:
    from trunkline.control.keys import Made

NameArgument = Annotated[str, typer.Argument(help="The principal: a program or a person.", metavar="NAME")]
ExpiresOption = Annotated[str | None, typer.Option("--expires", help="How long the key lasts, such as 90d or 12h.")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "key", "Keys with which programs and people sign in to the API and the registry.")
    command(noun, "create")(create)
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "rotate")(rotate)
    command(noun, "revoke")(revoke)


def create(
    session: Session,
    name: NameArgument,
    role: Annotated[
        list[str],
        typer.Option(
            "--role", help="viewer, producer, consumer, engineer, operator or admin; may be given more than once."
        ),
    ],
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="Only these topics and pipelines: names with *, or `own` for those of the team."),
    ] = None,
    team: Annotated[str | None, typer.Option("--team", help="The team, as manifests name it in `owner`.")] = None,
    source: Annotated[
        list[str] | None, typer.Option("--from", help="Only from these addresses or networks, such as 10.0.0.0/8.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="At most so many requests a second, to each worker.")
    ] = None,
    expires: ExpiresOption = None,
) -> None:
    """Make a principal and its key, which is shown once."""
    from trunkline.control import keys

    made = keys.create(
        session.cluster(),
        name,
        roles=role,
        on=on or (),
        team=team,
        addresses=source or (),
        rate=rate,
        lasts=_seconds(expires, "--expires"),
    )
    _show(session, made)


def ls(session: Session) -> None:
    """List principals and their keys: what they may do, until when, and when they were last used."""
    from trunkline.control import keys
    from trunkline.control.timestamps import utc

    found = keys.listed(session.cluster())
    rows = [
        (
            one.principal.name,
            one.key.id,
            ", ".join(str(grant.role) for grant in one.principal.grants),
            ", ".join(dict.fromkeys(pattern for grant in one.principal.grants for pattern in grant.on)),
            one.principal.team or "",
            "never" if one.key.expires is None else utc(int(one.key.expires * 1000)) + ("" if one.lasts else " (over)"),
            "never" if one.used is None else utc(int(one.used * 1000)),
        )
        for one in found
    ]
    columns = ["PRINCIPAL", "KEY", "ROLES", "ON", "TEAM", "EXPIRES", "LAST USED"]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="there are no keys")


def rotate(
    session: Session,
    name: NameArgument,
    overlap: Annotated[
        str,
        typer.Option("--overlap", help="How long the keys that it has are still taken, such as 1h; 0 ends them now."),
    ] = "24h",
    expires: ExpiresOption = None,
) -> None:
    """Give a principal another key. The old ones end after the overlap."""
    from trunkline.control import keys

    _show(
        session,
        keys.rotate(
            session.cluster(), name, overlap=duration(overlap, "--overlap"), lasts=_seconds(expires, "--expires")
        ),
    )


def revoke(
    session: Session,
    wanted: Annotated[
        str, typer.Argument(help="A principal, with all its keys, or the id of one key.", metavar="NAME_OR_KEY")
    ],
) -> None:
    """End a principal, or one key, at once."""
    from trunkline.control import keys

    done = keys.revoke(session.cluster(), wanted)
    if session.out.for_people:
        session.out.line(f"revoked {done}")
    else:
        session.out.data({"revoked": wanted})


def _show(session: Session, made: Made) -> None:
    data = {"principal": made.principal.name, "key": made.key.id, "secret": made.whole, "expires": made.key.expires}
    if session.out.for_people:
        session.out.note(f"the key of {made.principal.name}, which is shown this once:")
        session.out.line(made.whole)
    else:
        session.out.data(data)


def _seconds(text: str | None, option: str) -> float | None:
    return duration(text, option) if text is not None else None
