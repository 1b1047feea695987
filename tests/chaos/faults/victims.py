"""Workers that die at points of their transactions which a row chooses, again and again, each with the data folder of its last life."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.faults.warm import WarmProcess
from trunkline.bus.names import Names
from trunkline.bus.threads import in_own_thread

LIFE_SECONDS = 180.0
STARTS = 5
END_SECONDS = 30.0
SHORTEST, LONGEST = 0.0005, 0.02
"""Seconds from the beginning of a commit within which a worker dies that is to die in the middle of it."""


@dataclass
class Victim:
    """One worker of a project. `fired` counts deaths by point; one for another reason raises."""

    bootstrap: str
    names: Names
    home: Path
    project: Path
    registry: str
    read_at_once: int = 2000
    fired: Counter[str] = field(default_factory=Counter)
    _process: WarmProcess | None = None
    _keeper: asyncio.Task[None] | None = None

    async def dies(self, point: str, passing: int, chance: float) -> None:
        """Lets it live until it has passed a point so often. `chance` (0 to 1) says when in the course of a commit.

        Who ends by himself, because the cluster does not answer for a while, is started again, as a supervisor does.
        """
        async with asyncio.timeout(LIFE_SECONDS):
            for _ in range(STARTS):
                process = await self._start(point, passing, SHORTEST + chance * (LONGEST - SHORTEST))
                code = await in_own_thread(process.wait, "victim")
                if code <= 0:
                    break
        if code != -signal.SIGKILL:
            raise AssertionError(f"the worker ended with {code} instead of dying at {point!r}\n{self.log[-4000:]}")
        self.fired[f"killed at {point}"] += 1

    async def lives(self) -> None:
        """Starts it for good, and again where it ends by itself."""

        async def live() -> None:
            for _ in range(STARTS):
                process = await self._start("", 0, 0.0)
                await in_own_thread(process.wait, "victim")

        self._keeper = asyncio.create_task(live())

    async def end(self) -> None:
        """SIGTERM; who does not end by that is killed."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            await asyncio.to_thread(process.wait)

    @property
    def log(self) -> str:
        """What it wrote in all its lives."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.home.with_suffix(".log")

    async def _start(self, point: str, passing: int, delay: float) -> WarmProcess:
        orders = {
            "bootstrap": self.bootstrap,
            "namespace": self.names.namespace,
            "positions": self.names.positions,
            "home": str(self.home),
            "project": str(self.project),
            "registry": self.registry,
            "read_at_once": self.read_at_once,
            "point": point,
            "passing": passing,
            "delay": delay,
        }
        self._process = await asyncio.to_thread(
            WarmProcess,
            "tests.chaos.faults.victim",
            [json.dumps(orders)],
            log=self._log,
            environment=os.environ,
        )
        return self._process
