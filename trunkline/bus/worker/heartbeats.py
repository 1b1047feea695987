"""A worker's heartbeat: a record of `_trunkline.status` every two seconds. Its age is judged by who reads it."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from importlib.metadata import version

from trunkline.bus.worker.board import Board, Heartbeat
from trunkline.core.log import current_level, get_logger

log = get_logger(__name__)
BEAT_SECONDS = 2.0


class Heartbeats:
    """Written on the event loop on purpose: a worker whose loop hangs does not do its work, and falls silent."""

    def __init__(self, board: Board, worker: str, *, url: Callable[[], str], pipelines: Callable[[], int]) -> None:
        self._board = board
        self._worker = worker
        self._url = url
        self._pipelines = pipelines
        self._started_at = time.time()
        self._host = socket.gethostname()
        self._version = version("trunkline")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, at once."""
        self._task = asyncio.create_task(self._beat_on())

    def stop(self) -> None:
        """Ends: readers are told that the worker is gone."""
        if self._task is not None:
            self._task.cancel()
            self._board.leave(self._worker)

    async def _beat_on(self) -> None:
        while True:
            try:
                self._beat()
            except Exception:
                log.exception("the heartbeat can't be written")  # the next one may be
            await asyncio.sleep(BEAT_SECONDS)

    def _beat(self) -> None:
        self._board.beat(
            Heartbeat(
                self._worker,
                time.time(),
                self._started_at,
                self._host,
                os.getpid(),
                self._url(),
                self._pipelines(),
                self._version,
                current_level(),
            )
        )
