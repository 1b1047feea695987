"""`trunkline audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.bus.accounting.audit import Entry

_KEPT_OUT = {"before", "after", "fields", "reason", "outcome", "cause"}


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "audit", "The audit trail: who changed what, when, and what it was before.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)


def ls(
    session: Session,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Only what was decided about this pipeline.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="Show so many of the last entries; 0 for all.")
    ] = 50,
) -> None:
    """List the last changes of manifests, wishes, parked records, redrives, offsets and topics, with who made them."""
    from trunkline.control.audit import entries
    from trunkline.control.timestamps import utc

    found = entries(session.cluster(), pipeline=pipeline, limit=limit or None)
    rows = [(utc(int(one.at * 1000)), one.who, one.action, one.subject or one.pipeline, _told(one)) for one in found]
    columns = ["TIME", "WHO", "ACTION", "SUBJECT", "CHANGE"]
    session.out.table(columns, rows, [one.as_dict() for one in found], empty="nobody has changed anything yet")


def _told(entry: Entry) -> str:
    """What changed, in one line: fields, or what was and is, then what came of it and why."""
    from trunkline.bus.accounting.audit import brief

    details = entry.details
    parts = [f"{one['field']}: {brief(one['before'])} → {brief(one['after'])}" for one in details.get("fields", ())]
    if not parts and ("before" in details or "after" in details):
        before, after = details.get("before"), details.get("after")
        parts = list(_changed(before, after)) if _plain(before) and _plain(after) else []
    parts += [f"{name}: {brief(value)}" for name, value in details.items() if name not in _KEPT_OUT and value]
    parts += [f"{name}: {brief(details[name])}" for name in ("outcome", "cause", "reason") if details.get(name)]
    return "; ".join(parts)


def _plain(value: Any) -> bool:
    """Whether it fits into a line: no manifest."""
    return not isinstance(value, dict) or not any(isinstance(one, (dict, list)) for one in value.values())


def _changed(before: Any, after: Any) -> list[str]:
    from trunkline.bus.accounting.audit import brief

    if isinstance(before, dict) and isinstance(after, dict):
        names = [name for name in after if before.get(name) != after[name]]
        return [f"{name}: {brief(before.get(name))} → {brief(after[name])}" for name in names]
    return [f"{brief(before)} → {brief(after)}"]
