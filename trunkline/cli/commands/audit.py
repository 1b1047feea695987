"""`trunkline audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.bus.accounting.audit import Entry
    from trunkline.control.audit import Verdict

LimitOption = Annotated[int, typer.Option("--limit", "-n", min=0, help="Show so many of the last entries; 0 for all.")]
_COLUMNS = ["TIME", "WHO", "ACTION", "SUBJECT", "CHANGE"]
_KEPT_OUT = {"before", "after", "fields", "reason", "outcome", "cause"}


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "audit", "The audit trail: who changed what, when, and what it was before.")
    command(noun, "ls")(ls)
    command(noun, "list", hidden=True)(ls)
    command(noun, "search")(search)
    command(noun, "verify")(verify)
    command(noun, "export")(export)


def ls(
    session: Session,
    pipeline: Annotated[
        str | None, typer.Option("--pipeline", "-p", help="Only what was decided about this pipeline.")
    ] = None,
    limit: LimitOption = 50,
) -> None:
    """List the last changes of manifests, wishes, parked records, redrives, offsets, topics and schemas, with who made them."""
    from trunkline.control.audit import entries

    _show(
        session, entries(session.cluster(), pipeline=pipeline, limit=limit or None), "nobody has changed anything yet"
    )


def search(
    session: Session,
    text: Annotated[
        str | None, typer.Argument(help="Words that the entry has anywhere, in any case.", metavar="TEXT")
    ] = None,
    who: Annotated[str | None, typer.Option("--who", help="Who made the change.")] = None,
    action: Annotated[
        str | None, typer.Option("--action", help="What was done, such as pipeline.stop; `*` stands for anything.")
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject", "-p", help="A pipeline, or what else was changed: orders, Topic/orders, Subject/orders-value."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", help="From this time on: 2026-12-01T08:00:00Z, or 2h for the last two hours."),
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Up to this time, written likewise.")] = None,
    limit: LimitOption = 50,
) -> None:
    """Look for changes by who, what, about what, when, and any text. Entries fit all that is given."""
    from trunkline.cli.values import moment
    from trunkline.control import audit

    criteria = audit.Criteria(
        who,
        action,
        subject,
        moment(since, "--since") if since is not None else None,
        moment(until, "--until") if until is not None else None,
        text,
    )
    _show(session, audit.search(session.cluster(), criteria, limit=limit or None), "no entry fits")


def verify(
    session: Session,
    head: Annotated[
        str | None, typer.Option("--head", help="A head that was noted earlier, which must be part of the trail.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Judge this export, without a cluster.", dir_okay=False)
    ] = None,
) -> None:
    """Check that nothing in the trail was changed, removed, added or reordered since it was sealed. Exit code 1 where it was.

    The cluster's trail is compared with the head that workers have noted in the home folder, too.
    """
    from trunkline.control import audit
    from trunkline.core.errors import CheckFailedError

    found = (
        audit.verify_file(file, head=head)
        if file is not None
        else audit.verify(session.cluster(), head=head, home=session.home)
    )
    _show_verdict(session, found)
    if not found.intact:
        raise CheckFailedError(
            f"{found.trail} is not what was written: {found.found} findings",
            hint="compare it with an export or a mirror from before; what was done after the last seal that fits is uncertain",
            code="audit.broken",
        )


def export(
    session: Session,
    to: Annotated[
        Path | None, typer.Option("--to", help="Write to this file instead of standard output.", dir_okay=False)
    ] = None,
) -> None:
    """Write the trail as lines of JSON with all that proves it: `trunkline audit verify --file` judges it anywhere."""
    from trunkline.control import audit
    from trunkline.core.errors import ConfigurationError

    lines = audit.export(session.cluster())
    if to is None:
        for line in lines:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        return
    try:
        with to.open("wb") as file:
            for line in lines:
                file.write(line)
    except OSError as error:
        raise ConfigurationError(
            f"it can't be written: {error.strerror or error}", where=str(to), code="audit.file"
        ) from error
    session.out.note(f"written to {to}")


def _show(session: Session, found: list[Entry], empty: str) -> None:
    from trunkline.control.timestamps import utc

    rows = [(utc(int(one.at * 1000)), one.who, one.action, one.subject or one.pipeline, _told(one)) for one in found]
    session.out.table(_COLUMNS, rows, [one.as_dict() for one in found], empty=empty)


def _show_verdict(session: Session, found: Verdict) -> None:
    from trunkline.control.timestamps import utc

    out = session.out
    if not out.for_people:
        out.data(found.as_dict())
        return
    if found.findings:
        rows = [(one.place, one.kind, _entry_line(one.entry), one.what) for one in found.findings]
        out.table(["PLACE", "FOUND", "ENTRY", "WHAT IS WRONG"], rows, None)
        if found.found > len(found.findings):
            out.note(f"and {found.found - len(found.findings)} more")
    sealed = f", the last one of {utc(int(found.sealed_at * 1000))}" if found.sealed_at is not None else ""
    out.line(f"{found.trail}: {found.entries} entries of {found.writers} writers under {found.seals} seals{sealed}")
    if found.head:
        out.line(f"head: {found.head}")
    if found.unsealed:
        out.line(f"not sealed yet: {found.unsealed} entries, of which little is certain")
    if found.unchained:
        out.line(
            f"without a chain, since an earlier version wrote them: {found.unchained} entries, which only seals cover"
        )
    if found.intact:
        out.line("nothing that is sealed was changed, removed, added or reordered")
    if not found.compared:
        out.line("no head noted earlier was compared: whether the end was cut, or all of it rewritten, does not show")


def _entry_line(entry: Any) -> str:
    return f"{entry['action']} {entry['subject'] or entry['pipeline']} by {entry['who']}" if entry else ""


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
