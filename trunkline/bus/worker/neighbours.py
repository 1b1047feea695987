"""What other workers say of the pipelines that this one can't run."""

from __future__ import annotations

import asyncio
import time

from trunkline.bus.states import State
from trunkline.bus.worker.board import Board, Report
from trunkline.core.errors import TrunklineError

KNOWN_SECONDS = 3.0
_ABLE = frozenset({State.RUNNING, State.PAUSED, State.RESTARTING})


class Neighbours:
    """Asks the status topic, and only while somebody needs to know. On the event loop."""

    def __init__(self, board: Board, worker: str) -> None:
        self._board = board
        self._worker = worker
        self._turn = asyncio.Lock()
        self._reports: list[Report] = []
        self._asked = 0.0

    async def run(self, pipeline: str) -> bool:
        """Whether another worker runs the pipeline; False where nobody can tell, so that a failure is not hidden."""
        async with self._turn:
            if time.monotonic() - self._asked > KNOWN_SECONDS:
                try:
                    found = await asyncio.get_running_loop().run_in_executor(None, self._board.reports)
                except TrunklineError:
                    return False
                self._reports, self._asked = found, time.monotonic()
        return any(
            report.pipeline == pipeline and report.worker != self._worker and not report.stale and report.state in _ABLE
            for report in self._reports
        )
