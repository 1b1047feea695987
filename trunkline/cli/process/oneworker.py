"""One worker in this process: started, announced in `endpoint.json`, and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from trunkline.bus.embedded import measure, trouble_of
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.cli.endpoint import Endpoint, remove_endpoint, write_endpoint
from trunkline.cli.output import Format
from trunkline.cli.process.serveoptions import ServeOptions
from trunkline.cli.process.workers import SLOT
from trunkline.cli.session import Session
from trunkline.control.api.worker import extend
from trunkline.control.finish import Finish, reported_by_worker
from trunkline.core.log import get_logger
from trunkline.core.manifests import Project, load_files
from trunkline.core.serving.doors import Doors

log = get_logger(__name__)
LOOK_SECONDS = 0.5
HINT_SECONDS = 20.0


async def one_worker(session: Session, options: ServeOptions, kafka: KafkaSettings, stop: asyncio.Event) -> None:
    """Runs a worker until `stop`, or until the work is done where that was asked, and says where it can be reached."""
    names, home, slot = session.names(), session.home, os.environ.get(SLOT)
    home.mkdir(parents=True, exist_ok=True)
    settings = WorkerSettings(
        kafka=kafka,
        names=names,
        home=home,
        registry_url=session.registry_url,
        registry_options=session.registry_options(),
        api=options.api,
        ingress=options.ingress,
        doors=Doors.from_environment(os.environ),
        memory=options.memory,
        explain=partial(trouble_of, home, kafka.bootstrap),
    )
    if slot is not None:
        _stop_with_parent(stop)
    project: Project | None = load_files(options.files) if options.files else None
    files = tuple(str(file.resolve()) for file in options.files)
    worker = Worker(settings, extend_api=partial(extend, measure=partial(measure, home, kafka.bootstrap)))
    announced: Endpoint | None = None
    written: Endpoint | None = None
    hinted, begun = False, time.monotonic()
    try:
        if not await _unless(stop, worker.start(project)):
            return
        finish: Finish | None = None
        if options.until_finished:
            finish = Finish(session.cluster(kafka), worker.project, reported_by_worker(worker))
        while not stop.is_set():
            endpoint = Endpoint(
                os.getpid(),
                kafka.bootstrap,
                names.namespace,
                worker.url,
                worker.registry_url,
                worker.ingress.url,
                files,
                worker.local_url,
                worker.own_key.reveal(),
            )
            if slot in {None, "0"} and endpoint != written and _written(home, endpoint):
                written = endpoint
            if endpoint != announced:
                _announce(session, endpoint, announced, slot)
                announced = endpoint
            if finish is not None and await asyncio.to_thread(finish.reached):
                return
            if finish is not None and finish.unfinished and not hinted and time.monotonic() - begun > HINT_SECONDS:
                hinted = True
                session.out.note(
                    f"still waiting for the end of {', '.join(finish.unfinished)} (a source that watches has none)"
                )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
    finally:
        await worker.close()
        remove_endpoint(home)


def _written(home: Path, endpoint: Endpoint) -> bool:
    """Whether the worker could be announced. On a full disk it can't, and works on; it is tried again."""
    try:
        write_endpoint(home, endpoint)
    except OSError as error:
        log.debug("the worker can't be announced in its folder", home=str(home), reason=str(error))
        return False
    return True


async def _unless(stop: asyncio.Event, work: Any) -> bool:
    """Awaits `work` unless a stop comes first. True when it was done."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not doing.done():
        doing.cancel()
        await asyncio.wait({doing})
        return False
    doing.result()
    return True


def _stop_with_parent(stop: asyncio.Event) -> None:
    """A worker process ends when its supervisor is gone: the pipe on its standard input ends then."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 1024):
            loop.remove_reader(0)
            stop.set()

    loop.add_reader(0, readable)


def _announce(session: Session, now: Endpoint, before: Endpoint | None, slot: str | None) -> None:
    """Says where everything can be reached; later only what is new. One of several workers says which it is."""
    out = session.out
    addresses = _addresses(now)
    if not out.for_people:
        if out.form is Format.JSON or before is None:
            told = {name.lower(): url for name, url in addresses.items() if url}
            out.data(told if slot is None else {"worker": int(slot), "pid": now.pid, **told})
        return
    if slot is not None:
        del addresses["Kafka"]  # their supervisor has said it
    known = {} if before is None else _addresses(before)
    for name, url in addresses.items():
        if url and known.get(name) != url:
            out.line(f"{name:<9} {url}" if slot is None else f"Worker {slot}  {name:<9} {url}")
    if before is None:
        out.line("Ready. Ctrl-C ends it gracefully." if slot is None else f"Worker {slot}  is ready, process {now.pid}")


def _addresses(of: Endpoint) -> dict[str, str]:
    """What is told of a worker: its registry as others reach it."""
    registry = of.registry.replace(of.local, of.api, 1) if of.local else of.registry
    return {"Kafka": of.bootstrap, "API": of.api, "Registry": registry, "Webhooks": of.ingress}
