"""`trunkline mock`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.command import command
from trunkline.cli.session import Session


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "mock")(mock)


def mock(
    session: Session,
    names: Annotated[list[str] | None, typer.Argument(help="Which systems.", metavar="[NAME]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every one that is installed.")] = False,
    port: Annotated[
        int,
        typer.Option(
            "--port", min=0, max=65000, help="The first one's port, the others count up; free ones without it."
        ),
    ] = 0,
    state: Annotated[
        Path | None, typer.Option("--state", help="A folder that keeps what arrived over a restart.")
    ] = None,
    env_file: Annotated[
        Path | None, typer.Option("--env-file", help="Write the variables here, as NAME='value' lines.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of a stand-in, such as slack.per_second=2.")
    ] = None,
) -> None:
    """Run local stand-ins of other systems that speak the vendors' protocols, until Ctrl-C. Without names: list them."""
    from trunkline.cli.process.standins import available, run_mocks

    if not names and not everything:
        found = available()
        data = [{"name": name, "summary": kind.summary} for name, kind in found.items()]
        session.out.table(["NAME", "SUMMARY"], [tuple(one.values()) for one in data], data, empty="none is installed")
        return
    chosen = list(available()) if everything else list(dict.fromkeys(names or []))
    raise typer.Exit(run_mocks(session.out, chosen, port=port, state=state, env_file=env_file, options=option or []))
