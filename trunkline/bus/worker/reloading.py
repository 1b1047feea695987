"""Following what is applied: a change of the manifests makes the worker run what they say now."""

from __future__ import annotations

import asyncio

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker.applied import project_of, read_applied
from trunkline.bus.worker.projectrunner import ProjectRunner
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.manifests import Project

log = get_logger(__name__)


class Reloading:
    """Has the runner run the applied project. A bad state leaves the last good one running."""

    def __init__(self, kafka: KafkaSettings, names: Names, runner: ProjectRunner) -> None:
        self._kafka = kafka
        self._names = names
        self._runner = runner
        self._reloads: set[asyncio.Task[None]] = set()

    async def applied(self) -> Project:
        """What is applied now. Raises `ManifestError`, and what the broker says."""
        found = await asyncio.get_running_loop().run_in_executor(None, read_applied, self._kafka, self._names)
        return project_of(found)

    def noticed(self, _key: str, _value: bytes | None, _offset: int) -> None:
        """A manifest changed."""
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def stop(self) -> None:
        """Reloads no more."""
        for task in self._reloads:
            task.cancel()

    async def _reload(self) -> None:
        try:
            await self._runner.run_project(await self.applied())
        except TrunklineError as error:
            log.error("the applied manifests can't be run; the last good ones run on", reason=str(error))
