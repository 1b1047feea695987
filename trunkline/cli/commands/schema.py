"""`trunkline schema`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session

if TYPE_CHECKING:
    from trunkline.registry.compatibility import Level


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "schema", "Avro schemas: those of the registry, and files to become one.")
    command(noun, "ls")(ls)
    command(noun, "show")(show)
    command(noun, "check")(check)
    command(noun, "infer")(infer)


def ls(session: Session) -> None:
    """List the registry's subjects."""
    from trunkline.control.schemas import subjects

    with session.registry() as registry:
        data = [one.as_dict() for one in subjects(registry)]
    columns = ["SUBJECT", "VERSIONS", "LATEST", "ID", "NAME", "COMPATIBILITY"]
    session.out.table(columns, [tuple(one.values()) for one in data], data, empty="the registry has no subjects")


def show(
    session: Session,
    subject: Annotated[
        str, typer.Argument(help="The subject, or the topic whose values it describes.", metavar="SUBJECT")
    ],
    version: Annotated[int | None, typer.Option("--version", "-v", help="A version; the latest without it.")] = None,
) -> None:
    """Show a schema."""
    import json

    from trunkline.control.schemas import find_subject

    with session.registry() as registry:
        chosen = find_subject(registry, subject)
        found = registry.version(chosen, version if version is not None else "latest")
    if session.out.for_people:
        session.out.line(json.dumps(found.json, indent=2, ensure_ascii=False))
    else:
        session.out.data({"subject": chosen, "id": found.id, "schema": found.json})


def check(
    session: Session,
    file: Annotated[Path, typer.Argument(help="The new schema, an .avsc file.", metavar="FILE")],
    subject: Annotated[
        str | None, typer.Option("--subject", "-s", help="Compare with this subject of the registry.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="Compare with this file instead, the old schema.")
    ] = None,
    level: Annotated[
        str | None,
        typer.Option("--level", help="The compatibility level; the subject's own, or BACKWARD between files."),
    ] = None,
) -> None:
    """Say whether a schema may follow those before it. Exit code 1 with the places where it breaks them."""
    from trunkline.control.schemas import breaks_of_files, breaks_of_subject
    from trunkline.core.errors import CheckFailedError, ConfigurationError
    from trunkline.registry.contracts import load_file

    if (subject is None) == (against is None):
        raise ConfigurationError(
            "name what to compare with", hint="--subject SUBJECT or --against FILE", code="option.missing"
        )
    new = load_file(file)
    if against is not None:
        found = breaks_of_files(new, load_file(against), _checked_level(level or "BACKWARD"))
        other = str(against)
    else:
        assert subject is not None
        with session.registry() as registry:
            found = breaks_of_subject(registry, subject, new, _checked_level(level) if level is not None else None)
        other = subject
    if not session.out.for_people:
        session.out.data({"compatible": not found, "breaks": found})
    for one in found:
        place = f"version {one['version']}: " if one["version"] is not None else ""
        session.out.line(f"{place}{one['kind']} at {one['path']}: {one['message']}")
    if found:
        raise CheckFailedError(
            f"the schema breaks {other} in {len(found)} place" + ("s" if len(found) > 1 else ""),
            where=str(file),
            hint="give new fields a default, and keep what is read",
            code="schema.incompatible",
        )
    session.out.line(f"{file} may follow {other}")


def _checked_level(text: str) -> Level:
    """A compatibility level. Raises `ConfigurationError` with the nearest one."""
    from typing import cast

    from trunkline.core.errors import ConfigurationError, did_you_mean
    from trunkline.registry.compatibility import LEVELS

    if text.upper() not in LEVELS:
        raise ConfigurationError(
            f"no compatibility level is called {text!r}",
            where="--level",
            hint=did_you_mean(text.upper(), LEVELS),
            code="option.level",
        )
    return cast("Level", text.upper())


def infer(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A sample: .csv, .json or .jsonl, gzip or not.", metavar="FILE")],
    name: Annotated[
        str | None, typer.Option("--name", help="The record's full name; from the file's name without it.")
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many records are looked at.")] = 10_000,
    delimiter: Annotated[str, typer.Option("--delimiter", help="What stands between CSV cells.")] = ",",
    timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Propose timestamps for text that always is an ISO 8601 time.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the .avsc file here instead of printing it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Propose a schema that a sample fits: to be read, and kept as an .avsc file."""
    import json

    from trunkline.control.schemas import propose_schema
    from trunkline.core.errors import ConfigurationError

    schema = propose_schema(file, name, rows=rows, delimiter=delimiter, timestamps=timestamps)
    if out is None:
        if session.out.for_people:
            session.out.line(json.dumps(schema, indent=2, ensure_ascii=False))
        else:
            session.out.data(schema)
        return
    if out.exists() and not force:
        raise ConfigurationError(
            "the file is there already", where=str(out), hint="--force replaces it", code="schema.exists"
        )
    try:
        out.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"it can't be written: {error.strerror}", where=str(out), code="schema.file"
        ) from error
    session.out.note(f"wrote {out}: read it, and name it in a Topic manifest with `schema: {out.name}`")
