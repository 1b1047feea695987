"""Following what is applied: a change of the manifests makes the worker run what they say now."""

from __future__ import annotations

import asyncio

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import reconnect_delay
from trunkline.bus.worker.admission import Admission
from trunkline.bus.worker.applied import gather_applied, read_applied
from trunkline.bus.worker.projectrunner import ProjectRunner
from trunkline.bus.worker.wanted import Wanted, judged
from trunkline.core.errors import RetriableError, TrunklineError, UnavailableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
GATHER_SECONDS = 0.05
"""Records of one transaction come within this, and are one change."""


class Reloading:
    """Has the runner run what is applied, however many records say that it changed."""

    def __init__(self, kafka: KafkaSettings, names: Names, runner: ProjectRunner) -> None:
        self._kafka = kafka
        self._names = names
        self._runner = runner
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stray: tuple[object, ...] = ()
        self.admission = Admission(runner.trials, self._changed.set)

    async def run_applied(self) -> None:
        """Runs what is applied now. Raises what the broker says."""
        self.admission.begin()
        wanted = await asyncio.get_running_loop().run_in_executor(None, self._wanted)
        if wanted.stray != self._stray:
            for problem in wanted.stray:
                log.error("a manifest has a problem", problem=str(problem))
            self._stray = wanted.stray
        await self._runner.run(wanted)

    def start(self) -> None:
        """Follows from now on."""
        self._task = asyncio.create_task(self._follow())

    def noticed(self, _key: str, _value: bytes | None, _offset: int) -> None:
        """A manifest changed."""
        self._changed.set()

    def stop(self) -> None:
        """Reloads no more."""
        self.admission.close()
        if self._task is not None:
            self._task.cancel()

    def _wanted(self) -> Wanted:
        return judged(gather_applied(read_applied(self._kafka, self._names)), self.admission.admit)

    async def _follow(self) -> None:
        failures = 0
        while True:
            await self._changed.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._changed.clear()
            try:
                await self.run_applied()
                failures = 0
            except (RetriableError, UnavailableError) as error:
                log.warning("what is applied can't be read or begun; it is tried again", reason=str(error))
                self._changed.set()
                await asyncio.sleep(reconnect_delay(failures))
                failures += 1
            except TrunklineError as error:
                log.error("what is applied can't be run; what ran before runs on", reason=str(error))
            except Exception:
                log.exception("what is applied can't be run; what ran before runs on")
