"""`trunkline manifest`."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "manifest", "Applied manifests: which there are, and what each says.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "get")(get)


def ls(
    session: Session,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind, such as Sink.")] = None,
) -> None:
    """List the applied manifests with who applied each, and when."""
    from trunkline.control.applied import manifests

    found = manifests(session.cluster(), kind)
    columns = ["KIND", "NAME", "OWNER", "VERSION", "APPLIED", "BY"]
    rows = [(one.kind, one.name, one.owner, one.version, one.at, one.by) for one in found]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="nothing is applied")


def get(
    session: Session,
    name: Annotated[str, typer.Argument(help="KIND/NAME, or the name alone.", metavar="NAME")],
) -> None:
    """Show an applied manifest as YAML, as it could be applied again. References to secrets stay references."""
    from trunkline.control.applied import manifest

    session.out.data(manifest(session.cluster(), name).manifest)
