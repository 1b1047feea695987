"""What a worker serves over HTTP: whether it is alive and ready, a schema registry where there is no other, and what extends that.

Where the API is for others, behind TLS or off loopback, the same is served on loopback as well, for the programs of this machine: the
worker's own registry client, and the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from aiohttp import web

from trunkline.bus.accounting.registrytrail import RegistryTrail
from trunkline.bus.worker.readiness import Ready
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.core.access.directory import Directory
from trunkline.core.access.principals import NOBODY, OWN_NAME, Caller, local
from trunkline.core.access.roles import Permission
from trunkline.core.access.rules import PUBLIC, Rule
from trunkline.core.secret import Secret
from trunkline.core.secret import guarded as guarded_options
from trunkline.core.serving.doors import Doors
from trunkline.core.serving.guarding import CALLER, Access, add_route, guarded
from trunkline.core.serving.listener import Listener
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import registry_app


class Services:
    """The HTTP listener of a worker."""

    def __init__(
        self,
        settings: WorkerSettings,
        listener: Listener,
        worker: str,
        ready: Ready,
        directory: Directory,
        owner_of: Callable[[str], str | None],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._owner_of = owner_of
        self._listener = listener
        self._worker = worker
        self._ready = ready
        self._store: KafkaStore | None = None
        self._local: Listener | None = None
        self.registry_url = settings.registry_url or ""
        """The schema registry as this machine reaches it."""
        self.registry_options = settings.registry_options
        self.own_key = Secret.of(directory.own_key())
        """With which the worker's own clients and the programs of its user sign in."""

    @property
    def url(self) -> str:
        """Where it serves; empty before `start`."""
        return self._listener.url

    @property
    def local_url(self) -> str:
        """Where it serves programs of this machine."""
        return self._local.url if self._local is not None else self._listener.url

    async def start(self, extend: Callable[[web.Application], None]) -> None:
        """Serves. Raises `UnavailableError` (`address.taken`) when the port is taken."""
        settings, names = self._settings, self._settings.names
        if not settings.registry_url:
            self._store = KafkaStore(settings.kafka.for_others(), names.schemas, auditor=RegistryTrail(names))
            await self._store.start()
        doors, on_this_machine = settings.doors, local(settings.doors.local_role)
        if doors.is_local(settings.api):
            await self._listener.start(self._runner(extend, on_this_machine))
        else:
            await self._listener.start(self._runner(extend, NOBODY))
            self._local = Doors().api(("127.0.0.1", 0), None)
            await self._local.start(self._runner(extend, on_this_machine))
        if self._store is not None:
            self.registry_url = f"{self.local_url}/registry"
            self.registry_options = guarded_options({"basic.auth.user.info": f"{OWN_NAME}:{self.own_key.reveal()}"})

    def _runner(self, extend: Callable[[web.Application], None], anonymous: Caller) -> web.AppRunner:
        app = guarded(self._app(extend), Access(self._directory, anonymous), self._owner_of)
        return web.AppRunner(app, shutdown_timeout=5)

    def _app(self, extend: Callable[[web.Application], None]) -> web.Application:
        app = web.Application()
        add_route(app, "GET", "/healthz", self._healthz, PUBLIC)
        add_route(app, "GET", "/readyz", self._readyz, PUBLIC)
        add_route(app, "GET", "/status", self._status, Rule(Permission.STATUS_READ))
        if self._store is not None:
            app.add_subapp("/registry", registry_app(self._store))
        extend(app)
        return app

    async def close(self) -> None:
        """Serves no more."""
        await self._listener.stop()
        if self._local is not None:
            await self._local.stop()
        if self._store is not None:
            await self._store.close()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "worker": self._worker})

    async def _readyz(self, request: web.Request) -> web.Response:
        """Whether the worker takes requests. Who may see the status is told why not, and which pipelines don't do their work."""
        found = await self._ready.look()
        said = found.as_dict() if request[CALLER].principal.may(Permission.STATUS_READ) else found.in_short()
        return web.json_response({"worker": self._worker, **said}, status=200 if found.ready else 503)

    async def _status(self, _request: web.Request) -> web.Response:
        """Every report as data, with its cause: the worker is asked itself where the broker can't be."""
        found = {"worker": self._worker, **await self._ready.status()}
        body = await asyncio.to_thread(orjson.dumps, found)
        return web.Response(body=body, content_type="application/json")
