"""What a worker says of its pipelines, written to `_trunkline.status`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from trunkline.bus.worker.board import Board, Report
from trunkline.bus.worker.host import PipelineHost
from trunkline.core.log import get_logger

log = get_logger(__name__)
REPORT_SECONDS = 5.0
REPEAT_SECONDS = 15.0
"""Unchanged reports are repeated at this interval: idle pipelines are most of what a large worker has, and a report costs the broker
too."""


class Reporting:
    """Writes the reports of hosts that changed, and repeats those of the others."""

    def __init__(self, board: Board, hosts: Callable[[], Mapping[str, PipelineHost]]) -> None:
        self._board = board
        self._hosts = hosts
        self._said: dict[str, Report] = {}
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
        self._say(host.name, host.report())

    def left(self, host: PipelineHost, removed: bool) -> None:
        """A pipeline does not run here any more: its last word. `removed` says that it is not to be run any more at all."""
        self._board.report(replace(host.report(), removed=removed))
        self._said.pop(host.name, None)

    async def _report_on(self) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            for name, host in list(self._hosts().items()):
                try:
                    self._say_news(name, host)
                except Exception:
                    log.exception("a pipeline can't be reported", pipeline=name)  # the others are

    def _say_news(self, name: str, host: PipelineHost) -> None:
        report, last = host.report(), self._said.get(name)
        if last is None or report.at - last.at >= REPEAT_SECONDS or not report.says_as(last):
            self._say(name, report)

    def _say(self, name: str, report: Report) -> None:
        self._said[name] = report
        self._board.report(report)
