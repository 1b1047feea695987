"""A pipeline on a worker: its state, what it should be, and its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, replace

from trunkline.bus.accounting.pace import Pace
from trunkline.bus.intake import Partition
from trunkline.bus.runtime import Runtime, RuntimeReport
from trunkline.bus.states import Desired, State, reconnect_delay, restart_delay
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.building.bench import Beginning
from trunkline.bus.worker.building.builder import Builder
from trunkline.bus.worker.reported import ReportedOffsets
from trunkline.bus.worker.wishes import Wish
from trunkline.core.cause import Cause
from trunkline.core.errors import FatalError, HaltError, RetriableError, TrunklineError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline
from trunkline.core.metrics import counter, gauge

log = get_logger(__name__)
PROVEN_SECONDS = 60.0
"""A run that lasted this long was a success: the next failure is the first one again."""
_AT_WORK = frozenset({State.RUNNING, State.PAUSED})


class PipelineHost:
    """Keeps one pipeline as it is wished to be. All on the event loop."""

    def __init__(
        self,
        manifest: Pipeline,
        builder: Builder,
        worker: str,
        beginning: Beginning,
        *,
        changed: Callable[[PipelineHost], None],
    ) -> None:
        self.manifest = manifest
        self.name = manifest.metadata.name
        self.state = State.UNASSIGNED
        self.since = time.time()
        self._builder = builder
        self._worker = worker
        self._beginning = beginning
        self._changed = changed
        self._wish = Wish()
        self._error: TrunklineError | None = None
        self._failures = 0
        self._failed_at = 0.0
        """When the first of the failures in a row was."""
        self._restart_at: float | None = None
        self._runtime: Runtime | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._pace = Pace()
        self._seen = RuntimeReport()
        """What the runtime said last."""
        # What was reported last is reported on until there is something newer: it is the second copy of the offsets.
        self._places: Collection[Partition] = list(beginning.known.copy)

    # --- what people and workers ask ---

    def wish(self, wish: Wish) -> None:
        """Someone wants it running, paused, stopped or restarted."""
        before, self._wish = self._wish, wish
        runtime = self._runtime
        if wish.restart > before.restart and not self._closing.is_set():
            self._failures = 0
            if runtime is not None:
                runtime.stop()
        elif wish.desired is Desired.STOPPED:
            if runtime is not None:
                runtime.stop()
        elif runtime is not None:
            self._apply_pause(runtime)
        self._wake.set()

    def close(self) -> None:
        """The worker ends: stop and stay stopped."""
        self._closing.set()
        if self._runtime is not None:
            self._runtime.stop()
        self._wake.set()

    @property
    def at_work(self) -> bool:
        """Whether it has its partitions here, and what it reports of them is what is committed."""
        return self.state in _AT_WORK

    @property
    def ready(self) -> bool:
        """Whether it does its work, or was told not to."""
        if self.state is State.RUNNING and self._runtime is not None:
            return self._runtime.report().ready
        return self.state in {State.RUNNING, State.PAUSED, State.STOPPED}

    @property
    def positions(self) -> dict[str, int]:
        """How far it has committed each partition that is its own now."""
        self._look()
        return self._offsets().positions

    def report(self) -> Report:
        """How it stands now."""
        found, offsets = self._look(), self._offsets()
        return Report(
            pipeline=self.name,
            kind=self.manifest.kind,
            worker=self._worker,
            state=self.state,
            since=self.since,
            at=time.time(),
            cause=self._cause(found),
            failures=self._failures,
            finished=found.finished,
            counts=dict(found.counts),
            positions=offsets.positions,
            topic_ids=offsets.topic_ids,
            epochs=offsets.epochs,
            restart_at=self._restart_at,
            restart=self._wish.restart,
            breaker=found.breaker,
            parked_records=found.parked_records,
            parked_keys=found.parked_keys,
            per_second=round(self._pace.per_second, 1),
            progress=[asdict(one) for one in found.progress],
        )

    # --- running ---

    async def run(self) -> None:
        """Runs, restarts and waits until `close`."""
        while not self._closing.is_set():
            if self._wish.desired is Desired.STOPPED:
                self._become(State.STOPPED)
                await self._wait(None)
                continue
            begun = time.monotonic()
            try:
                await self._run_once()
                self._error = None
                self._failures = 0
                continue
            except asyncio.CancelledError:
                raise
            except TrunklineError as error:
                self._error = error
            except Exception as error:
                log.exception("the pipeline broke", pipeline=self.name)
                self._error = FatalError(f"{type(error).__name__}: {error}", code="pipeline.broken")
            if self._closing.is_set():
                break
            if time.monotonic() - begun > PROVEN_SECONDS:
                self._failures = 0
            if not self._failures:
                self._failed_at = time.time()
            self._failures += 1
            await self._recover(self._error)
        self._become(State.STOPPED if self._wish.desired is Desired.STOPPED else State.UNASSIGNED)

    async def _recover(self, error: TrunklineError) -> None:
        """What may pass is tried again soon; what a person must mend after n² + n minutes, or when someone says so;
        what a person must look at only then."""
        counter("trunkline_pipeline_restarts_total").labels(self.name).inc()
        wait: float | None
        if isinstance(error, (RetriableError, UnavailableError)):
            wait = max(getattr(error, "after", None) or 0.0, reconnect_delay(self._failures - 1))
            state = State.RESTARTING
            log.warning("the pipeline restarts soon", pipeline=self.name, wait=wait, reason=str(error), code=error.code)
        elif isinstance(error, HaltError):
            wait, state = None, State.FAILED
            log.error(
                "the pipeline failed, and waits for a person", pipeline=self.name, reason=str(error), code=error.code
            )
        else:
            wait, state = restart_delay(self._failures), State.FAILED
            log.error("the pipeline failed", pipeline=self.name, restart_in=wait, reason=str(error), code=error.code)
        self._restart_at = time.time() + wait if wait is not None else None
        if state is self.state:
            self._changed(self)  # it failed again: that is news too
        self._become(state)
        await self._wait(wait)
        self._restart_at = None

    async def _run_once(self) -> None:
        loop = asyncio.get_running_loop()
        built = await loop.run_in_executor(None, self._builder.build, self.manifest, self._beginning)
        plugin, runtime = built.plugin, built.runtime
        # A restart is not the first run again: what appears after this moment is read whole, also with `start: latest`.
        if self._beginning.started_at is None:
            self._beginning = replace(self._beginning, started_at=time.time())
        try:
            if plugin is not None:
                await plugin.open(self._builder.context(self.manifest))
            if self._closing.is_set() or self._wish.desired is Desired.STOPPED:
                return
            self._error = None
            self._runtime = runtime
            self._apply_pause(runtime)
            await runtime.run()
        finally:
            self._look()
            self._runtime = None
            if plugin is not None:
                with contextlib.suppress(TrunklineError):
                    await plugin.close()

    def _apply_pause(self, runtime: Runtime) -> None:
        if self._wish.desired is Desired.PAUSED:
            runtime.pause()
            self._become(State.PAUSED)
        else:
            runtime.resume()
            self._become(State.RUNNING)

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        log.info("state", pipeline=self.name, state=state, before=self.state)
        self.state, self.since = state, time.time()
        for one in State:
            gauge("trunkline_pipeline_state").labels(self.name, one).set(1 if one is state else 0)
        self._changed(self)

    async def _wait(self, seconds: float | None) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    # --- how it stands ---

    def _look(self) -> RuntimeReport:
        """What the runtime says now; of its counts and offsets, while there is none, what was said last."""
        seen = self._seen
        if self._runtime is None:
            self._seen = RuntimeReport(seen.counts, seen.open, seen.positions, finished=seen.finished)
            return self._seen
        found = self._runtime.report()
        if found.positions and found.positions != seen.positions:
            self._places = list(found.positions)
            self._beginning.known.advance(found.positions)
        if found.counts:
            self._pace.note(found.counts.get("read", 0))
            gauge("trunkline_ledger_open").labels(self.name).set(found.open)
        else:
            found = replace(found, counts=seen.counts, open=seen.open)
        self._seen = found if found.positions else replace(found, positions=seen.positions)
        return self._seen

    def _offsets(self) -> ReportedOffsets:
        return ReportedOffsets.of(self._beginning.known, self._places)

    def _cause(self, found: RuntimeReport) -> Cause | None:
        """Why it does not do its work now: it failed, a person wanted it so, or what its runtime says."""
        if self._error is not None:
            return Cause.of(
                self._error, since=self._failed_at, attempt=self._failures or None, next_try=self._restart_at
            )
        return found.cause
