"""What a worker serves over HTTP: whether it is alive and ready, a schema registry where there is no other, and what extends that."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from trunkline.bus.source.listen import Ports, listen
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import registry_app


class Services:
    """The HTTP listener of a worker. `waiting` gives the pipelines that are not ready."""

    def __init__(self, settings: WorkerSettings, ports: Ports, worker: str, waiting: Callable[[], list[str]]) -> None:
        self._settings = settings
        self._ports = ports
        self._worker = worker
        self._waiting = waiting
        self._store: KafkaStore | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.registry_url = settings.registry_url or ""

    async def start(self, extend: Callable[[web.Application], None]) -> None:
        """Serves. Raises `UnavailableError` (`address.taken`) when the port is taken."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
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
        """Ready when every pipeline runs or was told not to, and the broker answers."""
        waiting = self._waiting()
        return web.json_response(
            {"status": "waiting" if waiting else "ready", "waiting": waiting}, status=503 if waiting else 200
        )
