"""Runs a file source by hand, as the engine would: poll, keep the position, tell that it is committed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import structlog

from connectors.file.settings import FileSettings
from connectors.file.source import FileSource
from trunkline.core.contracts import PluginContext, RejectedInput, SourceBatch, SourceEvent


async def opened(path: Path, *, later: float = 0.0, pipeline: str = "orders", **config: Any) -> FileSource:
    """A source on a clock that is `later` seconds ahead, so that files are as old as a test wants."""
    config.setdefault("format", "csv")
    source = FileSource(FileSettings.model_validate({"path": str(path), **config}))
    source.clock = lambda: time.time() + later
    await source.open(PluginContext("test", pipeline, path.parent, structlog.get_logger()))
    return source


class Run:
    """A source and where it stands. Positions go through JSON, as they do in Kafka."""

    def __init__(self, source: FileSource, position: Any = None) -> None:
        self.source = source
        self.position = position
        self.events: list[SourceEvent] = []
        self.rejected: list[RejectedInput] = []

    async def poll(self) -> SourceBatch:
        """One poll, committed."""
        batch = await self.source.poll("0", self.position)
        self.events += batch.events
        self.rejected += batch.rejected
        self.position = json.loads(json.dumps(batch.position))
        if self.position is not None:
            await self.source.committed("0", self.position)
        return batch

    async def drain(self) -> list[SourceEvent]:
        """Polls until nothing more is there at once, and gives the events of these polls."""
        before = len(self.events)
        for _ in range(2000):
            batch = await self.poll()
            if batch.pause:
                return self.events[before:]
        raise AssertionError("the source never comes to rest")

    async def drain_finite(self) -> None:
        """Polls a source that does not watch until it says that it is finished."""
        for _ in range(2000):
            if (await self.poll()).finished:
                return
        raise AssertionError("the source never finishes")

    @property
    def values(self) -> list[Any]:
        """The values of all events so far."""
        return [event.value for event in self.events]


async def started(path: Path, **config: Any) -> Run:
    """A run from the beginning."""
    return Run(await opened(path, **config))
