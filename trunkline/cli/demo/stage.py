"""The stage of the demo: an embedded broker, stand-ins for the vendors, the partner's server, and a worker. All on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import logging
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions, OnProgress
from trunkline.bus.embedded.processes import end_broker, find_brokers
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.cli.demo.airline import new_secret
from trunkline.cli.demo.flights import EXAMPLE, Flights
from trunkline.cli.demo.partner import Partner
from trunkline.cli.demo.view import View
from trunkline.cli.endpoint import Endpoint, remove_endpoint, write_endpoint
from trunkline.cli.process.standins import available
from trunkline.control.api.worker import extend
from trunkline.core.errors import ConfigurationError, UnavailableError
from trunkline.core.log import configure_logging
from trunkline.core.manifests import load_files
from trunkline.core.mock import Mock

HOME = Path(".trunkline") / "demo"
_STAND_INS: Mapping[str, Mapping[str, Any]] = {
    "salesforce": {},
    "sftp": {"root": "sftp"},
    "slack": {},
    "google_sheets": {"worksheets": ["Delayed"]},
}


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that plays. `sftp_root` is the folder that the SFTP stand-in serves."""

    home: Path
    kafka: KafkaSettings
    names: Names
    worker: Worker
    mocks: Mapping[str, Mock]
    partner: Partner
    secret: str
    sftp_root: Path

    @property
    def addresses(self) -> dict[str, str]:
        """Where everything listens."""
        own = {
            "Kafka": self.kafka.bootstrap,
            "API": self.worker.url,
            "Registry": self.worker.registry_url,
            "Webhooks": f"{self.worker.ingress.url}/hooks/departures",
        }
        return {**own, **{name: mock.url for name, mock in self.mocks.items()}, "partner": self.partner.url}


@asynccontextmanager
async def set_stage(
    flights: Flights, view: View, *, home: Path | None = None, options: EmbeddedOptions | None = None
) -> AsyncIterator[Stage]:
    """Clears what an earlier demo left, starts everything, and ends all of it. `options` are the broker's.

    Raises `UnavailableError` where another demo runs in the folder, and what broker, stand-ins and worker say.
    """
    home = (home or HOME).resolve()
    async with AsyncExitStack() as stack:
        stack.enter_context(_own_folder(home))
        stack.enter_context(_log_file(home / "demo.log"))
        secret, partner_secret = new_secret(), new_secret()
        partner = Partner(partner_secret, view.say)
        await partner.start()
        stack.push_async_callback(partner.stop)
        mocks = {name: _stand_in(name, settings, home) for name, settings in _STAND_INS.items()}
        for mock in mocks.values():
            await mock.start()
            stack.push_async_callback(mock.stop)
        variables = {name: value for mock in mocks.values() for name, value in mock.environment.items()}
        variables |= {
            "FLIGHTS_FILE": str(flights.file),
            "AIRLINE_WEBHOOK_SECRET": secret,
            "PARTNER_URL": partner.url,
            "PARTNER_SIGNING_SECRET": partner_secret,
            "TRUNKLINE_MASK_KEY": secrets.token_urlsafe(24),
            "SLACK_INTERVAL": "100ms",
        }
        stack.enter_context(_environment(variables))
        kafka = await stack.enter_async_context(_broker(home, options, view.download))
        view.say(f"Apache Kafka runs at {kafka.bootstrap}" + ("" if kafka.options else ", open to everybody here"))
        names = Names()
        worker = Worker(WorkerSettings(kafka, names, home), extend_api=extend)
        stack.push_async_callback(worker.close)
        await worker.start(load_files([EXAMPLE]))
        stack.callback(remove_endpoint, home)
        yield Stage(home, kafka, names, worker, mocks, partner, secret, home / "sftp")


def announce(stage: Stage) -> None:
    """Tells other commands with `--home` where this worker is."""
    worker = stage.worker
    write_endpoint(
        stage.home,
        Endpoint(
            os.getpid(),
            stage.kafka.bootstrap,
            stage.names.namespace,
            worker.url,
            worker.registry_url,
            worker.ingress.url,
        ),
    )


@contextmanager
def _own_folder(home: Path) -> Iterator[None]:
    """Takes the folder for this process and empties it. A broker that a killed demo left is ended first.

    The lock file beside it tells that a demo made it: a folder of somebody else's is never emptied.
    """
    mark = home.parent / f"{home.name}.lock"
    if home.exists() and not mark.exists():
        raise ConfigurationError(
            "the demo empties its folder at the start, and this one was not made by a demo",
            where=str(home),
            hint="choose another --home, or move that folder away",
            code="demo.folder",
        )
    home.parent.mkdir(parents=True, exist_ok=True)
    with mark.open("a", encoding="utf-8") as own:
        _lock(own, home)
        if home.exists():
            # `trunkline up --home` of somebody may run here too.
            with (home / "lock").open("a", encoding="utf-8") as other:
                _lock(other, home)
                for pid in find_brokers(home):
                    end_broker(pid, home, 15.0)
                shutil.rmtree(home)
        home.mkdir(mode=0o700)
        yield


def _lock(file: io.TextIOWrapper, home: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UnavailableError(
            "another demo runs in this folder",
            where=str(home),
            hint="end it with Ctrl-C, or run this one in another folder",
            code="demo.in_use",
        ) from error


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Log lines go to a file: the screen belongs to the view."""
    configure_logging("info", style="json")
    root = logging.getLogger()
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    with path.open("w", encoding="utf-8") as file:
        before = handler.setStream(file)
        try:
            yield
        finally:
            handler.setStream(before)
            root.setLevel(logging.ERROR)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@asynccontextmanager
async def _broker(home: Path, options: EmbeddedOptions | None, progress: OnProgress) -> AsyncIterator[KafkaSettings]:
    broker = EmbeddedKafka(home, options, on_progress=progress)
    starting = asyncio.ensure_future(asyncio.to_thread(broker.start))
    try:
        running = await asyncio.shield(starting)
        yield KafkaSettings(running.bootstrap, running.client_options)
    finally:
        # A thread can't be cancelled: what it starts is waited for, and ended.
        with contextlib.suppress(UnavailableError):
            await starting
        await asyncio.to_thread(broker.stop)


def _stand_in(name: str, settings: Mapping[str, Any], home: Path) -> Mock:
    kind = available().get(name)
    if kind is None:
        raise ConfigurationError(
            f"the stand-in {name!r} is not installed", hint="install trunkline[all]", code="plugin.missing_extra"
        )
    given = {**settings, **({"root": str(home / "sftp")} if "root" in settings else {})}
    return kind(kind.settings_type.model_validate(given))
