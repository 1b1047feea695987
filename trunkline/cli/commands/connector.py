"""`trunkline connector`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from trunkline.cli.command import command, group
from trunkline.cli.session import Session


class Kind(StrEnum):
    """The kinds of plug-in."""

    SOURCE = "source"
    STEP = "step"
    SINK = "sink"


class Form(StrEnum):
    """How a plug-in is described."""

    TABLE = "table"
    MARKDOWN = "markdown"
    SCHEMA = "schema"


NameArgument = Annotated[str, typer.Argument(help="The plug-in's name.", metavar="NAME")]


def register(app: typer.Typer) -> None:
    """Adds the noun."""
    noun = group(app, "connector", "Plug-ins: sources, steps and sinks.")
    command(noun, "ls")(ls)
    command(noun, "describe")(describe)
    command(noun, "new")(new)
    command(noun, "test")(try_connection)


def ls(
    session: Session,
    kind: Annotated[Kind | None, typer.Option("--kind", "-k", help="Only this kind.")] = None,
) -> None:
    """List the installed plug-ins."""
    from trunkline.core.docs import listing

    data = [one for one in listing() if kind is None or one["kind"] == kind]
    rows = [(one["name"], one["kind"], one["summary"]) for one in data]
    session.out.table(["NAME", "KIND", "SUMMARY"], rows, data, empty="no plug-in is installed")


def describe(
    session: Session,
    name: NameArgument,
    kind: Annotated[
        Kind | None, typer.Option("--kind", "-k", help="Which, where a name is used by several kinds.")
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="A table, Markdown, or JSON Schema.")] = Form.TABLE,
) -> None:
    """Show what a plug-in does and every setting it has."""
    from trunkline.core.docs import describe_plugin, markdown, schema_of, with_name

    plugins = with_name(name, kind.value if kind is not None else None)
    out = session.out
    if form is Form.SCHEMA:
        from trunkline.cli.output import Format, rendered

        found = [schema_of(one, plugin) for one, plugin in plugins]
        text = rendered(found[0] if len(found) == 1 else found, Format.YAML if out.form is Format.YAML else Format.JSON)
        typer.echo(text)
        return
    if form is Form.MARKDOWN:
        typer.echo("\n".join(markdown(one, name, plugin) for one, plugin in plugins))
        return
    data = [describe_plugin(one, name, plugin) for one, plugin in plugins]
    if not out.for_people:
        out.data(data[0] if len(data) == 1 else data)
        return
    for one in data:
        out.line(f"{one['kind']} {name}: {one['summary']}")
        for title, part in (("config", one["settings"]), ("connection config", one["connection"])):
            if part is None:
                continue
            out.line("")
            rows = [(row["name"], row["type"], row["default"], row["description"]) for row in part]
            out.table([title.upper(), "TYPE", "DEFAULT", "MEANING"], rows, part, empty=f"{title}: nothing to set")
        out.line("")


def new(
    session: Session,
    name: Annotated[
        str, typer.Argument(help="The new plug-in's name: lower case letters, digits, underscores.", metavar="NAME")
    ],
    kind: Annotated[Kind, typer.Option("--kind", "-k", help="What it is.")] = Kind.SINK,
    folder: Annotated[Path, typer.Option("--folder", help="Where its folder is made.")] = Path(),
) -> None:
    """Make the folder of a new plug-in, with a test that passes at once."""
    from trunkline.cli.scaffold import scaffold_plugin

    made = scaffold_plugin(kind.value, name, folder)
    if not session.out.for_people:
        session.out.data([str(path) for path in made])
    for path in made:
        session.out.line(f"wrote {path}")


def try_connection(
    session: Session,
    pipeline: Annotated[str, typer.Argument(help="The source or sink to try.", metavar="PIPELINE")],
    file: Annotated[list[Path], typer.Option("--file", "-f", help="A manifest file or a folder of them.")],
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, help="Seconds the other system has to answer.")
    ] = 30.0,
) -> None:
    """Open a pipeline's connection as a worker would: settings, secrets, and, where it has a probe, network and credentials.
    Sends no record."""
    from trunkline.control.probe import probe
    from trunkline.core.manifests import load_files

    opened = probe(load_files(file), pipeline, session.names().namespace, timeout)
    said = f"opened in {opened.seconds:.1f} s"
    if not opened.asked:
        said += (
            "; nothing was asked over the network, because the connector has no probe or none is set:"
            " only settings, secrets and what is on this machine were checked"
        )
    data = {"pipeline": pipeline, "opened": True, "seconds": round(opened.seconds, 3), "probed": opened.asked}
    session.out.fields({pipeline: said}, data)
