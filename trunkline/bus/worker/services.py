"""What a worker serves over HTTP: whether it is alive and ready, a schema registry where there is no other, and what extends that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson
from aiohttp import web

from trunkline.bus.source.listen import Ports, listen
from trunkline.bus.worker.readiness import Ready
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import registry_app


class Services:
    """The HTTP listener of a worker."""

    def __init__(self, settings: WorkerSettings, ports: Ports, worker: str, ready: Ready) -> None:
        self._settings = settings
        self._ports = ports
        self._worker = worker
        self._ready = ready
        self._store: KafkaStore | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.registry_url = settings.registry_url or ""

    async def start(self, extend: Callable[[web.Application], None]) -> None:
        """Serves. Raises `UnavailableError` (`address.taken`) when the port is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/status", self._status)
        if not self.registry_url:
            self._store = KafkaStore(self._settings.kafka.for_others(), self._settings.names.schemas)
            await self._store.start()
            app.add_subapp("/registry", registry_app(self._store))
        extend(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        self.url = await listen(
            self._runner, self._settings.api, self._ports, "api", "choose another with --api or TRUNKLINE_API"
        )
        if self._store is not None:
            self.registry_url = f"{self.url}/registry"

    async def close(self) -> None:
        """Serves no more."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._store is not None:
            await self._store.close()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "worker": self._worker})

    async def _readyz(self, _request: web.Request) -> web.Response:
        """Whether the worker takes requests; pipelines that don't do their work are listed, and do not count."""
        found = await self._ready.look()
        return web.json_response({"worker": self._worker, **found.as_dict()}, status=200 if found.ready else 503)

    async def _status(self, _request: web.Request) -> web.Response:
        """Every report as data, with its cause: the worker is asked itself where the broker can't be."""
        found = {"worker": self._worker, **await self._ready.status()}
        body = await asyncio.to_thread(orjson.dumps, found)
        return web.Response(body=body, content_type="application/json")
