"""`trunkline budget`."""

from __future__ import annotations

from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "budget", "Budgets: what the accounts of connections allow, and who has how much of it.")
    command(noun, "list")(list_)
    command(noun, "show")(show)


def list_(session: Session) -> None:
    """List the accounts that are limited: what is left, and whether they are held or waited for."""
    from trunkline.control.budgets import accounts

    data = accounts(session.cluster())
    columns = ["ACCOUNT", "PER SECOND", "CONCURRENT", "MINUTE LEFT", "DAY LEFT", "WAITING", "HELD FOR s"]
    rows = [
        (
            one["account"],
            one["limits"]["per_second"],
            one["limits"]["concurrent"],
            one["left"].get("minute"),
            one["left"].get("day"),
            one["waiting"],
            one["held_seconds"],
        )
        for one in data
    ]
    session.out.table(columns, rows, data, empty="no account is limited, or no worker has used one yet")


def show(
    session: Session, account: Annotated[str, typer.Argument(help="The connection's name.", metavar="CONNECTION")]
) -> None:
    """Show the slices of one account: which worker has how much."""
    from trunkline.control.budgets import account_named

    data = account_named(session.cluster(), account)
    workers = data["workers"]
    columns = ["WORKER", "LIVE", "PER SECOND", "CONCURRENT", "SPENT", "RESERVED", "WAITING"]
    session.out.table(columns, [tuple(one.values()) for one in workers], [data])
