"""`trunkline broker`: what other programs need to use the broker, and who they are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trunkline.bus.kafka.rights import Right

NameArgument = Annotated[str, typer.Argument(help="The user's name: letters, digits and hyphens.", metavar="NAME")]
FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        help="Write a properties file of librdkafka, as `kcat -F` takes it, which only this user can read. It holds a password.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "broker", "The broker: what other programs need to use it, and who they are.")
    command(noun, "client")(client)
    users = group(noun, "user", "Programs that use the broker with clients of their own, and what each may do there.")
    command(users, "create")(create)
    command(users, "rm")(remove)
    command(users, "ls")(list_)
    command(users, "list", hidden=True)(list_)


def client(session: Session, file: FileOption = None) -> None:
    """Show what a client needs to use the broker as Trunkline itself does, who may do everything."""
    from trunkline.core.secret import revealed

    kafka = session.kafka_settings()
    _show(session, kafka.bootstrap, revealed(kafka.options), file, {})


def create(
    session: Session,
    name: NameArgument,
    produce: Annotated[
        list[str] | None, typer.Option("--produce", help="A topic to write to; may be given more than once.")
    ] = None,
    consume: Annotated[
        list[str] | None, typer.Option("--consume", help="A topic to read; may be given more than once.")
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option("--group", help="What the names of its consumer groups begin with; by default NAME_."),
    ] = None,
    transactions: Annotated[
        str | None,
        typer.Option(
            "--transactions", help="What its transactional ids begin with; without it, it has no transactions."
        ),
    ] = None,
    file: FileOption = None,
) -> None:
    """Make a user that may produce to topics or consume them, and nothing else. Its password is shown once."""
    from trunkline.control.brokerusers import Wanted
    from trunkline.control.brokerusers import create as create_user

    if file is not None:
        _require_new(file)
    made = create_user(session.cluster(), name, Wanted(produce or (), consume or (), groups, transactions))
    _show(session, made.bootstrap, made.options, file, {"name": name, "rights": _as_data(made.rights)})


def remove(session: Session, name: NameArgument) -> None:
    """Remove a user: its rights at once, and its password, so that its connections end too."""
    from trunkline.control.brokerusers import remove as remove_user

    had = remove_user(session.cluster(), name)
    session.out.fields({"removed": name, "rights": _as_text(had)}, {"removed": name, "rights": _as_data(had)})


def list_(session: Session) -> None:
    """List the users that have rights on the broker."""
    from trunkline.control.brokerusers import users

    found = users(session.cluster())
    rows = [(name, _as_text(found[name])) for name in sorted(found)]
    data = [{"name": name, "rights": _as_data(found[name])} for name in sorted(found)]
    session.out.table(["USER", "MAY"], rows, data, empty="nobody but Trunkline itself has rights here")


def _show(
    session: Session, bootstrap: str, options: Mapping[str, str], file: Path | None, more: Mapping[str, object]
) -> None:
    from trunkline.control.brokerusers import properties

    if file is None:
        shown = {"bootstrap.servers": bootstrap, **options}
        session.out.fields(shown, {**more, "bootstrap": bootstrap, "options": dict(options)})
        return
    from trunkline.bus.embedded.running import write_private

    write_private(file, properties(bootstrap, options))
    session.out.fields({"written": str(file)}, {**more, "bootstrap": bootstrap, "file": str(file)})


def _require_new(file: Path) -> None:
    """Before the user is made: its password can't be had again. Raises `ConfigurationError`."""
    from trunkline.core.errors import ConfigurationError

    if file.exists() or not file.parent.is_dir():
        raise ConfigurationError(
            "there is such a file" if file.exists() else f"there is no folder {file.parent}",
            where="--file",
            hint="name a new file, in a folder that is there",
            code="option.file",
        )


def _as_data(rights: Sequence[Right]) -> list[dict[str, object]]:
    return [asdict(one) for one in rights]


def _as_text(rights: Sequence[Right]) -> str:
    return ", ".join(f"{one.operation} {one.resource} {one.name}{'*' if one.prefixed else ''}" for one in rights)
