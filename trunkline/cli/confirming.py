"""Asking before something is changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.core.errors import ConfigurationError

if TYPE_CHECKING:
    from trunkline.cli.session import Session

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")]


def confirmed(session: Session, question: str, *, yes: bool) -> None:
    """Asks, unless `yes` is given. Raises `ConfigurationError` where nobody can be asked, `typer.Abort` on a no."""
    if yes:
        return
    if not session.out.for_people:
        raise ConfigurationError(
            "data output and a question don't go together", hint="pass --yes", code="option.missing"
        )
    if not sys.stdin.isatty():
        raise ConfigurationError("nobody is there to be asked", hint="pass --yes", code="apply.unconfirmed")
    typer.confirm(question, abort=True)
