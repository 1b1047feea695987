"""The versions of a pipeline on a worker: the one that is wanted, the one that runs, and how the first takes the other's place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from trunkline.bus.states import restart_delay
from trunkline.bus.worker.building.bench import Beginning
from trunkline.bus.worker.opening import Opened, Version
from trunkline.bus.worker.retrying import next_try
from trunkline.bus.worker.standing import refused
from trunkline.core.cause import Cause
from trunkline.core.errors import TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.secret import marks_of, stores_trouble

log = get_logger(__name__)


class Versions:
    """Opens the versions of one pipeline. All on the event loop.

    A new version takes the place of the one that runs once it is open; while it can't be opened, the one before runs on. So it is with
    the values of secrets, for which the same version is opened anew.

    `runs` tells whether a version is at work, `make_room` ends that one for the next, and `cautious` tells whether what is opened now
    is to call the other system once at first. `changed` hears that a version was refused.
    """

    def __init__(
        self,
        pipeline: str,
        wanted: Version,
        beginning: Beginning,
        *,
        runs: Callable[[], bool],
        make_room: Callable[[], None],
        cautious: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.wanted = wanted
        self.good: Version | None = None
        """The version that opened last: what runs, or ran."""
        self.beginning = beginning
        self._pipeline = pipeline
        self._runs = runs
        self._make_room = make_room
        self._cautious = cautious
        self._changed = changed
        self._ready: Opened | None = None
        """The wanted version, opened while the one before it ran."""
        self._refused: TrunklineError | None = None
        """Why the wanted version can't take the place of the one before."""
        self._refused_at = 0.0
        self._marks: dict[str, str] = {}
        """What its secrets held when it was opened last, or could not be."""
        self._turn = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self._opening: asyncio.Task[Opened] | None = None

    @property
    def cause(self) -> Cause | None:
        """Why the wanted version can't take the place of the one that runs, where it can't."""
        if self._refused is None:
            return None
        anew = self.good is not None and self.good.identity == self.wanted.identity
        return refused(self._refused, self._refused_at, "secret" if anew else "manifest")

    def outdated(self, marks: Mapping[str, str]) -> list[str]:
        """Which of its secrets hold something else than when it was opened; none while it is being opened."""
        if self._opening is not None:
            return []
        watched = self.wanted.secrets & marks.keys()
        return [one for one in watched if self._marks.get(one, marks[one]) != marks[one]]

    def renew(self, version: Version) -> None:
        """Another version is wanted from now on."""
        self.wanted = version
        self._refused = None
        self.give_up_opening()
        self._renew_soon(version, 0.0)

    def give_up_opening(self) -> None:
        """Something else is wanted than what is being opened, where anything is."""
        if self._opening is not None:
            self._opening.cancel()

    async def next(self) -> Opened | None:
        """The version to run now: the wanted one, and where that can't be opened, the one before. None when it was told to end."""
        async with self._turn:
            if self._ready is not None and self.good is self.wanted:
                opened, self._ready = self._ready, None
                return opened
            await self.drop_ready()
            before = self.good
            try:
                return await self._open(self.wanted)
            except TrunklineError as error:
                if before is None or before is self.wanted:
                    raise
                self._refuse(error)
                self._renew_soon(self.wanted, self._next_opening(error, 2))
            return await self._open(before)

    async def drop_ready(self) -> None:
        """Closes what was opened and has not run."""
        if self._ready is not None:
            opened, self._ready = self._ready, None
            await opened.close()

    async def close(self) -> None:
        """Opens nothing any more."""
        if self._renewal is not None:
            self._renewal.cancel()
        await self.drop_ready()

    async def _open(self, version: Version) -> Opened | None:
        """Opens a version. None when that was given up, because something else is wanted now."""
        self._opening = asyncio.ensure_future(self._attempt(version))
        try:
            opened = await self._opening
        except asyncio.CancelledError:
            host = asyncio.current_task()
            if host is None or host.cancelling():
                raise
            return None
        finally:
            self._opening = None
        self.good = version
        if version is self.wanted:
            self._refused = None
        # A restart is not the first run again: what appears after this moment is read whole, also with `start: latest`.
        if self.beginning.started_at is None:
            self.beginning = replace(self.beginning, started_at=time.time())
        return opened

    async def _attempt(self, version: Version) -> Opened:
        """Opens a version with what its secrets hold now."""
        if version.secrets:
            # Before they are read for use: what changes meanwhile is noticed, at worst without need.
            self._marks |= await asyncio.get_running_loop().run_in_executor(None, marks_of, version.secrets)
            trouble = stores_trouble(version.secrets)
            if trouble is not None:
                raise trouble  # as it is: what a plug-in says of it would be a fault of its manifest
        return await version.open(replace(self.beginning, cautious=self._cautious()))

    def _renew_soon(self, version: Version, after: float) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        self._renewal = asyncio.create_task(self._renew(version, after), name=f"renew {self._pipeline}")

    async def _renew(self, version: Version, after: float) -> None:
        """Opens a version beside the one that runs; when it is ready, that one ends and makes room."""
        failures = 0
        await asyncio.sleep(after)
        while self._runs():
            async with self._turn:
                if self.good is version:
                    break
                await self.drop_ready()  # one that was wanted before this one
                try:
                    opened = await self._attempt(version)
                except TrunklineError as error:
                    self._refuse(error)
                    failures += 1
                    wait = self._next_opening(error, failures)
                else:
                    self._ready, self.good, self._refused = opened, version, None
                    break
            await asyncio.sleep(wait)
        if self._ready is not None:
            self._make_room()

    def _next_opening(self, error: TrunklineError, failures: int) -> float:
        """Seconds until a version that could not take the place of the one before is tried again."""
        _, wait = next_try(error, failures, lasting=time.time() - self._refused_at)
        return max(restart_delay(failures) if wait is None else wait, 1.0)

    def _refuse(self, error: TrunklineError) -> None:
        last, self._refused = self._refused, error
        if last is None:
            self._refused_at = time.time()
        if last is None or last.code != error.code:
            log.error(
                "the new version can't run; the one before runs on",
                pipeline=self._pipeline,
                reason=str(error),
                code=error.code,
            )
            self._changed()
