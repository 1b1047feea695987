"""`trunkline doctor`."""

from __future__ import annotations

import typer

from trunkline.cli.command import command
from trunkline.cli.session import Session


def register(app: typer.Typer) -> None:
    """Adds the command."""
    command(app, "doctor")(doctor)


def doctor(session: Session) -> None:
    """Check what Trunkline needs of this machine. Exit code 1 where something fails."""
    import os

    from trunkline.control.checkup import Level, Machine, examine
    from trunkline.core.errors import CheckFailedError

    machine = Machine(
        home=session.home,
        embedded=session.bootstrap is None,
        connect=session.kafka,
        registry=session.known_registry,
        registry_options=session.registry_options(),
        addresses={"--ingress": os.environ.get("TRUNKLINE_INGRESS"), "--api": os.environ.get("TRUNKLINE_API")},
    )
    found = list(examine(machine))
    rows = [(str(one.level), one.what, one.found, one.hint) for one in found]
    session.out.table(["", "CHECK", "FOUND", "HINT"], rows, [one.as_dict() for one in found])
    failed = [one.what for one in found if one.level is Level.FAIL]
    if failed:
        raise CheckFailedError(f"failed: {', '.join(failed)}", code="doctor.failed")
