"""What a worker says of its pipelines: to `_trunkline.status`, to the metrics and to the log, all of it from the same reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from trunkline.bus.worker.board import REPEAT_SECONDS, REPORT_SECONDS, Board, Report
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.telling import Telling
from trunkline.core.log import get_logger
from trunkline.core.metrics import end_series

log = get_logger(__name__)
LOOK_SECONDS = 2.0
"""A cause that begins or ends is told within this time, and a new state at once."""

AT_ONCE = 5
"""How many hosts are asked before the event loop gets a turn."""


class Reporting:
    """Writes the reports of hosts that changed, and repeats those of the others."""

    def __init__(self, board: Board, hosts: Callable[[], Mapping[str, PipelineHost]]) -> None:
        self._board = board
        self._hosts = hosts
        self._said: dict[str, Report] = {}
        self._told: dict[str, Telling] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._report_on())

    def stop(self) -> None:
        """Reports no more by itself."""
        if self._task is not None:
            self._task.cancel()

    def changed(self, host: PipelineHost) -> None:
        """A pipeline's state changed: that is said at once."""
        report = host.report()
        self._tell(report)
        self._say(report)

    def left(self, host: PipelineHost, removed: bool) -> None:
        """A pipeline does not run here any more: its last word. `removed` says that it is not to be run any more at all."""
        self._board.report(replace(host.report(), removed=removed))
        self._said.pop(host.name, None)
        self._told.pop(host.name, None)
        # The one place where a pipeline's series end, whoever set them.
        end_series(pipeline=host.name)

    async def _report_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for number, (name, host) in enumerate(list(self._hosts().items()), start=1):
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
                try:
                    self._look_at(host)
                except Exception:
                    log.exception("a pipeline can't be reported", pipeline=name)  # the others are

    def _look_at(self, host: PipelineHost) -> None:
        report = host.report()
        self._tell(report)
        if _is_due(report, self._said.get(host.name)):
            self._say(report)

    def _tell(self, report: Report) -> None:
        self._told.setdefault(report.pipeline, Telling(report.pipeline)).tell(report)

    def _say(self, report: Report) -> None:
        self._said[report.pipeline] = report
        self._board.report(report)


def _is_due(report: Report, last: Report | None) -> bool:
    """Whether a report is written, after the one that was written last."""
    if last is None or not report.stands_as(last):
        return True
    age = report.at - last.at
    return age >= REPEAT_SECONDS or (age >= REPORT_SECONDS and not report.says_as(last))
