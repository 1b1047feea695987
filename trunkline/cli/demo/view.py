"""What one sees while the demo runs: in a terminal a table that lives under the story, elsewhere plain lines."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY
from rich.console import Group
from rich.live import Live
from rich.text import Text

from trunkline.bus.embedded import Progress
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.worker import Worker
from trunkline.cli.output import STYLES, console
from trunkline.cli.tables import laid_out

LIVE_SECONDS = 0.25
PLAIN_SECONDS = 3.0
COLUMNS = ("PIPELINE", "STATE", "READ", "DELIVERED", "FILTERED", "DEAD", "RETRIES")


class View:
    """Tells the story. `say` may be called from any thread. `begun` is a moment of the monotonic clock."""

    def __init__(self, begun: float) -> None:
        self._screen = console(sys.stdout)
        self._begun = begun
        self._worker: Worker | None = None
        self._live: Live | None = None
        self._downloading = False

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def say(self, text: str) -> None:
        """One line of the story."""
        line = Text.assemble((f"{self.seconds:6.1f} s  ", "dim"), text)
        self._screen.print(line, soft_wrap=True)

    def download(self, progress: Progress) -> None:
        """The first start downloads Kafka."""
        if not self._downloading:
            self._downloading = True
            self.say(f"downloading Apache Kafka, {progress.bytes_total / 1e6:.0f} MB: only the first time")
        if progress.bytes_done >= progress.bytes_total:
            self.say("downloaded")

    def watch(self, worker: Worker) -> None:
        """From now on the pipelines of this worker are shown."""
        self._worker = worker

    @asynccontextmanager
    async def showing(self) -> AsyncIterator[None]:
        """Shows how the pipelines stand until it is left."""
        showing = asyncio.create_task(self._show())
        try:
            yield
        finally:
            showing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await showing

    async def _show(self) -> None:
        if not self._screen.is_terminal:
            while True:
                await asyncio.sleep(PLAIN_SECONDS)
                self._plain()
        with Live(console=self._screen, auto_refresh=False, transient=True) as live:
            while True:
                if self._worker is not None:
                    live.update(table_of(self._worker.reports, self._screen.width), refresh=True)
                await asyncio.sleep(LIVE_SECONDS)

    def _plain(self) -> None:
        reports = self._worker.reports if self._worker is not None else []
        shown = [_settled(one) for one in reports]
        if shown:
            self.say("settled: " + ", ".join(shown))


def _settled(report: Report) -> str:
    count = sum(report.counts.get(part, 0) for part in ("delivered", "filtered", "dead"))
    return f"{report.pipeline} {count}" + (" (breaker open)" if _held_back(report) else "")


def _held_back(report: Report) -> bool:
    return report.breaker in {"open", "half-open"}


def table_of(reports: list[Report], width: int) -> Group:
    """The pipelines and their counts, for a terminal of this width."""
    rows = []
    for one in reports:
        counts = [str(one.counts.get(name, 0)) for name in ("read", "delivered", "filtered", "dead")]
        state = "BREAKER OPEN" if _held_back(one) else one.state.value
        rows.append([one.pipeline, state, *counts, str(retries(one.pipeline) or "")])
    return Group(*laid_out(COLUMNS, rows, width, STYLES))


def retries(pipeline: str) -> int:
    """How many calls of a sink had to be made again, since this process began."""
    found = (
        REGISTRY.get_sample_value("trunkline_delivery_attempts_total", {"pipeline": pipeline, "verdict": verdict})
        for verdict in ("retry", "unknown")
    )
    return int(sum(value or 0 for value in found))
