"""`trunkline demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import OpenOption, command
from trunkline.cli.session import Session


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "demo")(demo)


def demo(
    session: Session,
    stay: Annotated[bool, typer.Option("--stay", help="Keep everything up until Ctrl-C.")] = False,
    open_: OpenOption = False,
) -> None:
    """Show the bus at work: flights of 2013 from sources through Kafka to five sinks."""
    import importlib

    raise typer.Exit(
        importlib.import_module("trunkline.cli.demo").run_demo(stay, home=session.home / "demo", is_open=open_)
    )
