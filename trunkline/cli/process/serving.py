"""Running a broker and workers in the foreground until a signal, or until the work is done."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import uvloop

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.memory import LEAST_MEMORY, few_arenas
from trunkline.bus.states import reconnect_delay
from trunkline.cli.process import forked
from trunkline.cli.process.serveoptions import ServeOptions
from trunkline.cli.process.workers import PROVEN_SECONDS, SLOT, TOLD, WorkerProcess, of_one, supervise
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError, TrunklineError, did_you_mean
from trunkline.core.log import LEVELS, configure_logging, get_logger
from trunkline.core.manifests import load_files
from trunkline.core.manifests.check import check
from trunkline.core.serving.doors import Doors
from trunkline.registry.schema import Schema

if TYPE_CHECKING:
    from trunkline.bus.embedded import EmbeddedKafka, Progress

log = get_logger(__name__)
_OWN_FAULTS = (
    "option.",
    "address.",
    "worker.",
    "tls.",
    "kafka.denied",
    "kafka.options",
    "registry.denied",
    "registry.options",
    "registry.authentication",
    "registry.unexpected",
)
"""Codes of what is wrong with how a process was started."""
INTERRUPTED = 130
"""What a shell returns for a command that Ctrl-C ended: 128 + SIGINT."""


def serve(session: Session, options: ServeOptions) -> int:
    """Serves until a signal or the end of the work. The exit code: 130 after Ctrl-C, else 0.

    Raises `ManifestError` before anything starts, `UnavailableError` where the broker is away.
    """
    if options.log_level.lower() not in LEVELS:
        raise ConfigurationError(
            f"unknown level {options.log_level!r}", where="--log-level", hint=did_you_mean(options.log_level, LEVELS)
        )
    if options.log_style not in {"json", "text", "auto"}:
        raise ConfigurationError(f"unknown style {options.log_style!r}", where="--log-style", hint="json, text or auto")
    configure_logging(options.log_level, style=options.log_style, slot=os.environ.get(SLOT))
    if os.environ.pop(TOLD, None) is not None:
        heard = forked.hear(0)
        if heard is None:
            return 0  # its supervisor is gone
        session.told, session.registry_option = heard
    if options.memory < LEAST_MEMORY:
        raise ConfigurationError(
            f"{options.memory} bytes are too little",
            where="--memory",
            hint="a worker needs 256 MiB",
            code="option.memory",
        )
    Doors.from_environment(os.environ)
    if options.files:
        check(load_files(options.files), schema_check=Schema)
    few_arenas()
    with _ended_by_sigterm():
        if options.workers > 1:
            return _serve_several(session, options)
        with _broker(session, options) as (kafka, broker):
            return _serve_one(session, options, kafka, broker)


def _serve_one(session: Session, options: ServeOptions, kafka: KafkaSettings, broker: EmbeddedKafka | None) -> int:
    # Here, because a supervisor that can't fork its workers needs nothing of what they need.
    from trunkline.cli.process.oneworker import one_worker

    async def work(stop: asyncio.Event) -> None:
        await one_worker(session, options, kafka, stop)

    return _run(work if options.files else lambda stop: stay_up(work, stop), broker)


async def stay_up(work: Callable[[asyncio.Event], Awaitable[None]], stop: asyncio.Event) -> None:
    """Works until `stop`, and begins again where that fails: `up` follows what is applied, and what it can't run today may be mended by
    what is applied next, to a broker that is there. What is wrong with how it was started ends it, unless it worked before.
    """
    failures = 0
    while not stop.is_set():
        begun = time.monotonic()
        try:
            await work(stop)
        except TrunklineError as error:
            if failures == 0 and error.code.startswith(_OWN_FAULTS):
                raise
            log.error("the worker could not go on, and begins again", reason=str(error), code=error.code)
        except Exception:
            log.exception("the worker broke, and begins again")
        else:
            return
        failures = 1 if time.monotonic() - begun > PROVEN_SECONDS else failures + 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), reconnect_delay(failures - 1))


def _serve_several(session: Session, options: ServeOptions) -> int:
    def work(slot: int, kafka: KafkaSettings) -> int:
        os.environ[SLOT] = str(slot)
        configure_logging(options.log_level, style=options.log_style, slot=str(slot))
        try:
            return _serve_one(session, of_one(slot, options), kafka, None)
        except Exception as error:  # noqa: BLE001
            return session.out.error(error)

    born: list[forked.ForkedWorker] = []
    if forked.possible():
        import trunkline.cli.process.oneworker  # noqa: F401 (what workers need, once for all of them)

        # Before the broker: starting it leaves clients and their threads here, and no fork may have a thread's locks.
        born = forked.fork_workers(options.workers, work)
    with _broker(session, options) as (kafka, broker):
        for one in born:
            one.begin(kafka)
        running: set[WorkerProcess] = set(born)
        return _run(lambda stop: supervise(session, options, kafka, stop, running, born), broker, running)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Until the event loop handles signals itself, SIGTERM unwinds the stack, so that no broker is left behind."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _broker(session: Session, options: ServeOptions) -> Iterator[tuple[KafkaSettings, EmbeddedKafka | None]]:
    if session.bootstrap is not None:
        yield session.kafka(), None
        return
    from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions

    with _download_progress() as report:
        broker = EmbeddedKafka(session.home, EmbeddedOptions.from_environment(is_open=options.open), on_progress=report)
        running = broker.start()
    try:
        yield KafkaSettings(running.bootstrap, running.client_options), broker
    finally:
        broker.stop()


@contextlib.contextmanager
def _download_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar in a terminal, else a line at the beginning and at the end: the first start downloads 45 MB."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from trunkline.cli.output import console

    screen = console(sys.stderr)
    bar = Bar(
        TextColumn("Downloading Apache Kafka"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=screen
    )
    task: Any = None

    def report(progress: Progress) -> None:
        nonlocal task
        if task is None:
            if screen.is_terminal:
                bar.start()
            else:
                sys.stderr.write(f"Downloading Apache Kafka, {progress.bytes_total / 1e6:.0f} MB, once\n")
            task = bar.add_task("", total=progress.bytes_total)
        bar.update(task, completed=progress.bytes_done)

    try:
        yield report
    finally:
        if task is not None and screen.is_terminal:
            bar.stop()


def _run(
    serve_until: Callable[[asyncio.Event], Awaitable[None]],
    broker: EmbeddedKafka | None,
    workers: Collection[WorkerProcess] = (),
) -> int:
    """Runs to the end with a stop event that the signals set. A second signal is for who can't wait."""
    asked: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def ask(number: int) -> None:
            if asked:
                _end_at_once(number, broker, workers)
            asked.append(number)
            log.info("ending gracefully; a second signal ends at once", signal=signal.Signals(number).name)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ask, number)
        watching = asyncio.create_task(_kept(broker, stop)) if broker is not None else None
        try:
            await serve_until(stop)
        finally:
            stop.set()
            if watching is not None:
                await watching

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return INTERRUPTED if signal.SIGINT in asked else 0


def _end_at_once(number: int, broker: EmbeddedKafka | None, workers: Collection[WorkerProcess]) -> NoReturn:
    """Ends this process and those that it started. All of them survive that: what was under way is done again."""
    log.warning("ended at once by a second signal; the next start goes on", signal=signal.Signals(number).name)
    for worker in workers:
        with contextlib.suppress(ProcessLookupError):
            worker.kill()
    if broker is not None:
        broker.kill()
    os._exit(128 + number)


async def _kept(broker: EmbeddedKafka, stop: asyncio.Event) -> None:
    from trunkline.bus.embedded import BrokerKeeper

    await BrokerKeeper(broker).keep(stop)
