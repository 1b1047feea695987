"""Several worker processes on one machine: started, started again with a growing wait when they crash, ended together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.states import reconnect_delay
from trunkline.cli.process.forked import told
from trunkline.core.errors import ConfigurationError
from trunkline.core.log import get_logger
from trunkline.core.manifests import load_files

if TYPE_CHECKING:
    from trunkline.cli.process.serveoptions import ServeOptions
    from trunkline.cli.session import Session

log = get_logger(__name__)
SLOT = "TRUNKLINE_WORKER_SLOT"
"""Which worker of its supervisor a process is, from 0; not set in a worker that runs alone."""
TOLD = "TRUNKLINE_WORKER_TOLD"
"""Set where a supervisor tells a worker on its standard input how to reach Kafka and the registry."""
GRACE_SECONDS = 60.0
PROVEN_SECONDS = 60.0
WRONG_INPUT = 2


class WorkerProcess(Protocol):
    """A worker's process: a fork, or one of its own."""

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs, as far as was waited."""

    async def wait(self) -> int:
        """Waits for the exit code."""

    def send_signal(self, number: int, /) -> None:
        """Raises ProcessLookupError where it has ended."""

    def kill(self) -> None:
        """Raises ProcessLookupError where it has ended."""


async def supervise(
    session: Session,
    options: ServeOptions,
    kafka: KafkaSettings,
    stop: asyncio.Event,
    running: set[WorkerProcess],
    born: Sequence[WorkerProcess] = (),
) -> None:
    """Keeps `options.workers` processes running until `stop`, or until the work is done where that was asked.

    `born` has those that run already. `running` has all of them at any time, for who can't wait for their graceful end.
    Raises `ConfigurationError` when a worker says that its input is wrong: no restart would mend that.
    """
    session.home.mkdir(parents=True, exist_ok=True)
    workers = [
        asyncio.create_task(
            _keep(slot, session, options, kafka, stop, running, born[slot] if slot < len(born) else None)
        )
        for slot in range(options.workers)
    ]
    waits: list[asyncio.Task[None]] = [asyncio.create_task(_stopped(stop))]
    if options.until_finished:
        waits.append(asyncio.create_task(_finished(session, options, kafka)))
    session.out.line(f"{options.workers} workers on {kafka.bootstrap}. Ctrl-C ends them gracefully.")
    try:
        done, _ = await asyncio.wait([*waits, *workers], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        stop.set()
        for task in waits:
            task.cancel()
        results = await asyncio.gather(*workers, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                log.error("a worker ended", reason=str(result))


async def _stopped(stop: asyncio.Event) -> None:
    await stop.wait()


async def _finished(session: Session, options: ServeOptions, kafka: KafkaSettings) -> None:
    from trunkline.control.finish import Finish, reported_by_workers

    cluster = session.cluster(kafka)
    finish = Finish(cluster, load_files(options.files), reported_by_workers(cluster))
    while not await asyncio.to_thread(finish.reached):  # noqa: ASYNC110 (what is waited for happens in other processes)
        await asyncio.sleep(1)


async def _keep(
    slot: int,
    session: Session,
    options: ServeOptions,
    kafka: KafkaSettings,
    stop: asyncio.Event,
    running: set[WorkerProcess],
    process: WorkerProcess | None,
) -> None:
    failures = 0
    while process is not None or not stop.is_set():
        begun = time.monotonic()
        code: int | str
        try:
            process = process or await _started(slot, session, options, kafka)
        except OSError as error:  # no memory, no process left: what runs already goes on
            code = str(error)
        else:
            running.add(process)
            code = await _wait(process, stop)
            running.discard(process)
        process = None
        if stop.is_set():
            return
        if code == WRONG_INPUT and (options.files or failures == 0):
            raise ConfigurationError(
                f"worker {slot} ended: its input is wrong", hint="its message is above", code="worker.refused"
            )
        failures = 1 if time.monotonic() - begun > PROVEN_SECONDS else failures + 1
        wait = reconnect_delay(failures - 1)
        log.error("a worker ended and is started again", worker=slot, code=code, wait=wait)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), wait)


async def _started(slot: int, session: Session, options: ServeOptions, kafka: KafkaSettings) -> WorkerProcess:
    process = await asyncio.create_subprocess_exec(
        *_command(of_one(slot, options), session, kafka),
        env={**os.environ, SLOT: str(slot), TOLD: "1", "TRUNKLINE_NAMESPACE": session.names().namespace},
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the supervisor, which then asks its workers once
    )
    assert process.stdin is not None
    process.stdin.write(told(kafka, session.registry_url))
    return process


async def _wait(process: WorkerProcess, stop: asyncio.Event) -> int:
    ended = asyncio.ensure_future(process.wait())
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ended.done():
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(asyncio.shield(ended), GRACE_SECONDS)
        except TimeoutError:
            process.kill()
    return await ended


def of_one(slot: int, options: ServeOptions) -> ServeOptions:
    """The options of one worker. Ports that were given are counted up, free ones stay free ones."""

    def counted(host: str, port: int) -> tuple[str, int]:
        return host, port + slot if port else 0

    return replace(
        options, workers=1, until_finished=False, api=counted(*options.api), ingress=counted(*options.ingress)
    )


def _command(options: ServeOptions, session: Session, kafka: KafkaSettings) -> list[str]:
    """The command line of one worker."""
    command = [sys.executable, "-m", "trunkline.cli.main", "run" if options.files else "up"]
    for path in options.files:
        command += ["--file", str(path)]
    for option, (host, port) in (("--api", options.api), ("--ingress", options.ingress)):
        command += [option, f"{host}:{port}"]
    command += ["--bootstrap", kafka.bootstrap, "--home", str(session.home)]
    command += ["--log-level", options.log_level, "--log-style", options.log_style]
    command += ["--memory", str(options.memory)]
    return command
