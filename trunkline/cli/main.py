"""The entry point: every command by its name."""

from __future__ import annotations

import codecs
import io
import os
import sys
import threading
import time
from typing import Annotated

import typer

from trunkline.cli.command import (
    BootstrapOption,
    DebugOption,
    HomeOption,
    NamespaceOption,
    OutputOption,
    RegistryOption,
    shared_options,
)
from trunkline.cli.commands import (
    applied,
    audit,
    broker,
    budget,
    connector,
    delete,
    demo,
    dlq,
    doctor,
    job,
    key,
    manifest,
    mock,
    offsets,
    parked,
    pipeline,
    run,
    schema,
    topic,
    trace,
    worker,
)
from trunkline.core.uncaught import redact_what_nobody_catches

app = typer.Typer(
    name="trunkline",
    help="Trunkline: an event-streaming integration bus on Apache Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"trunkline {version('trunkline')}")
        raise typer.Exit


@app.callback()
def _before(
    ctx: typer.Context,
    output: OutputOption = None,
    debug: DebugOption = False,
    home: HomeOption = None,
    bootstrap: BootstrapOption = None,
    registry: RegistryOption = None,
    namespace: NamespaceOption = None,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    shared_options(ctx, output, debug, home, bootstrap, registry, namespace)


for noun in (
    demo,
    run,
    manifest,
    applied,
    delete,
    pipeline,
    trace,
    offsets,
    topic,
    schema,
    connector,
    dlq,
    parked,
    job,
    budget,
    broker,
    worker,
    audit,
    key,
    mock,
    doctor,
):
    noun.register(app)


LEAVE_SECONDS = 5.0


def main() -> None:
    """Runs the command line. Exit codes: 0 fine, 1 a check found something, 2 wrong input, 3 the environment failed."""
    _open_standard_streams()
    _write_anything()
    redact_what_nobody_catches()
    code: str | int | None = 1
    try:
        app()
    except SystemExit as ended:
        code = ended.code
        raise
    finally:
        threading.Thread(target=_end_late, args=(code if isinstance(code, int) else bool(code),), daemon=True).start()


def _end_late(code: int) -> None:
    """Ends a process that has nothing more to do: Python waits for every thread, and a plug-in may have left one that never ends."""
    time.sleep(LEAVE_SECONDS)
    names = ", ".join(
        one.name for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()
    )
    sys.stderr.write(f"ended without waiting any longer for threads that were left: {names}\n")
    sys.stderr.flush()
    os._exit(code)


def _write_anything() -> None:
    """A sign that standard output has no bytes for is written as its escape: a name of a file or a value ends no command.

    A locale without an encoding, such as `LC_ALL=C`, is taken for UTF-8, as Python does unless it is told not to.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def _open_standard_streams() -> None:
    """Who was started without a standard stream has one that leads nowhere: else the next connection would get its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            handle = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
