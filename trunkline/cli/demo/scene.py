"""The demo from its first line to its last: stage, play, checks, report, and how Ctrl-C ends it."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import uvloop

from trunkline.bus.embedded import EmbeddedOptions
from trunkline.cli.demo.checks import run_checks
from trunkline.cli.demo.flights import read_flights
from trunkline.cli.demo.play import play
from trunkline.cli.demo.report import show
from trunkline.cli.demo.stage import Stage, announce, set_stage
from trunkline.cli.demo.view import View
from trunkline.cli.output import Output

LOOK_AROUND = (
    "status",
    "dlq ls",
    "topic tail flights.critical",
    "trace --topic flights.critical --where 'event.minutes >= 180'",
    "worker ls",
)
"""Commands that show something of what stays up."""
INTERRUPTED = 130
"""What a shell returns for a command that Ctrl-C ended: 128 + SIGINT."""


def run_scene(begun: float, stay: bool, home: Path | None, options: EmbeddedOptions) -> int:
    """As `run_demo`, with the moment of its beginning on the monotonic clock."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_demo(Output(), begun, stay, home, options))


async def _demo(out: Output, begun: float, stay: bool, home: Path | None, options: EmbeddedOptions) -> int:
    loop = asyncio.get_running_loop()
    stop, reported = asyncio.Event(), asyncio.Event()
    playing = asyncio.create_task(_play(out, View(begun), stay, home, options, stop, reported))

    def end() -> None:
        # Once: what is ending gracefully is not broken off. After the report there is nothing to break off.
        if not stop.is_set() and not reported.is_set():
            playing.cancel()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        return await playing
    except asyncio.CancelledError:
        out.note("stopped before the end")
        return INTERRUPTED


async def _play(
    out: Output,
    view: View,
    stay: bool,
    home: Path | None,
    options: EmbeddedOptions,
    stop: asyncio.Event,
    reported: asyncio.Event,
) -> int:
    flights = read_flights()
    async with set_stage(flights, view, home=home, options=options) as stage:
        view.watch(stage.worker)
        async with view.showing():
            played = await play(stage, flights, view)
        checks = run_checks(stage, flights, played)
        reported.set()
        show(out, stage, played, checks)
        broken = [check for check in checks if not check.holds]
        seconds = view.seconds
        for check in broken:
            out.note(f"does not hold: {check.promise} ({check.found})")
        if not broken:
            out.line(f"\nAll {len(checks)} checks hold, after {seconds:.0f} s.")
        if stay:
            await _stay(out, stage, stop)
        else:
            out.line("To keep everything up and look around:")
            out.line(f"  {stay_command(stage.home)}")
    return 1 if broken else 0


async def _stay(out: Output, stage: Stage, stop: asyncio.Event) -> None:
    announce(stage)
    out.line("\nEverything stays up until Ctrl-C:")
    for name, address in stage.addresses.items():
        out.line(f"  {name:<14} {address}")
    home = shlex.quote(os.path.relpath(stage.home))
    out.line("Ask it, in another terminal in this folder:")
    for command in LOOK_AROUND:
        out.line(f"  {called()} {command} --home {home}")
    await stop.wait()
    out.note("ending")


def called() -> str:
    """How this program was called, so that what is printed can be called again: by its name where that is found, else by its path."""
    program = Path(sys.argv[0])
    found = shutil.which(program.name)
    if found is not None and Path(found).resolve() == program.resolve():
        return program.name
    own = shlex.quote(os.path.relpath(program))
    return f"{shlex.quote(_near(sys.executable))} {own}" if program.suffix == ".py" else own


def _near(path: str) -> str:
    """A path from here on where it lies below, else as it is."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def stay_command(home: Path) -> str:
    """What keeps a demo in this folder up; the folder is named where it is not the usual one."""
    parent = os.path.relpath(home.parent)
    return f"{called()} demo --stay" + ("" if parent == ".trunkline" else f" --home {shlex.quote(parent)}")
