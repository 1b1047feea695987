"""A pipeline on a worker: its state, what it should be, and its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from trunkline.bus.accounting.pace import Pace
from trunkline.bus.intake import Partition
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.ledger import OUTCOMES, total
from trunkline.bus.parking.decisions import Decision
from trunkline.bus.sink.runtime import SinkRuntime
from trunkline.bus.source.ingress import Ingress
from trunkline.bus.source.poll import SourceRuntime
from trunkline.bus.source.push import PushRuntime
from trunkline.bus.states import Desired, State, reconnect_delay, restart_delay
from trunkline.bus.stream.runtime import StreamRuntime
from trunkline.bus.threads import in_own_thread
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.build import Builder, Built
from trunkline.bus.worker.reported import ReportedOffsets
from trunkline.bus.worker.wishes import Wish
from trunkline.core.errors import FatalError, HaltError, RetriableError, TrunklineError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.core.manifests import Pipeline
from trunkline.core.metrics import counter, gauge
from trunkline.core.secret import redact

log = get_logger(__name__)
PROVEN_SECONDS = 60.0
"""A run that lasted this long was a success: the next failure is the first one again."""


class PipelineHost:
    """Keeps one pipeline as it is wished to be. All on the event loop."""

    def __init__(
        self,
        manifest: Pipeline,
        builder: Builder,
        worker: str,
        ingress: Ingress,
        *,
        started_at: float | None,
        known: KnownOffsets,
        changed: Callable[[PipelineHost], None],
    ) -> None:
        self.manifest = manifest
        self.name = manifest.metadata.name
        self.state = State.UNASSIGNED
        self.since = time.time()
        self._builder = builder
        self._worker = worker
        self._ingress = ingress
        self._started_at = started_at
        self._known = known
        self._changed = changed
        self._wish = Wish()
        self._error: TrunklineError | None = None
        self._failures = 0
        self._restart_at: float | None = None
        self._built: Built | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._counts: dict[str, int] = {}
        self._pace = Pace()
        # What was reported last is reported on until there is something newer: it is the second copy of the offsets.
        self._places: Collection[Partition] = list(known.copy)
        self._noted: Mapping[Partition, int] = {}
        """Where the runtime stood when its ledgers were counted."""
        self._finished = False

    # --- what people and workers ask ---

    def wish(self, wish: Wish) -> None:
        """Someone wants it running, paused, stopped or restarted."""
        before, self._wish = self._wish, wish
        runtime = self._built.runtime if self._built is not None else None
        if wish.restart > before.restart and not self._closing.is_set():
            self._failures = 0
            if runtime is not None:
                runtime.stop()
        elif wish.desired is Desired.STOPPED:
            if runtime is not None:
                runtime.stop()
        elif runtime is not None and self.state in {State.RUNNING, State.PAUSED}:
            self._apply_pause(runtime)
        self._wake.set()

    def decide(self, decision: Decision) -> None:
        """Someone decided on a parked key. While the pipeline does not run the decision waits in Kafka."""
        runtime = self._built.runtime if self._built is not None else None
        if isinstance(runtime, SinkRuntime):
            runtime.decide(decision)

    def close(self) -> None:
        """The worker ends: stop and stay stopped."""
        self._closing.set()
        if self._built is not None:
            self._built.runtime.stop()
        self._wake.set()

    @property
    def ready(self) -> bool:
        """Whether it does its work, or was told not to."""
        if self.state is State.RUNNING and self._built is not None and isinstance(self._built.runtime, PushRuntime):
            return self._built.runtime.ready
        return self.state in {State.RUNNING, State.PAUSED, State.STOPPED}

    @property
    def positions(self) -> dict[str, int]:
        """How far it has committed each partition that is its own now."""
        self._note_counts()
        return self._offsets().positions

    def report(self) -> Report:
        """How it stands now."""
        self._note_counts()
        error, offsets = self._error, self._offsets()
        runtime = self._built.runtime if self._built is not None else None
        parked_records, parked_keys = runtime.parked if isinstance(runtime, SinkRuntime) else (0, 0)
        return Report(
            pipeline=self.name,
            kind=self.manifest.kind,
            worker=self._worker,
            state=self.state,
            since=self.since,
            at=time.time(),
            reason=redact(str(error.message)) if error is not None else None,
            code=error.code if error is not None else None,
            hint=error.hint if error is not None else None,
            failures=self._failures,
            finished=self._finished,
            counts=dict(self._counts),
            positions=offsets.positions,
            topic_ids=offsets.topic_ids,
            epochs=offsets.epochs,
            restart_at=self._restart_at,
            restart=self._wish.restart,
            breaker=self._breaker(),
            parked_records=parked_records,
            parked_keys=parked_keys,
            waiting=self._waiting(),
            per_second=round(self._pace.per_second, 1),
            progress=self._progress(),
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
            self._become(State.RESTARTING)
            log.warning("the pipeline restarts soon", pipeline=self.name, wait=wait, reason=str(error), code=error.code)
        elif isinstance(error, HaltError):
            wait = None
            self._become(State.FAILED)
            log.error(
                "the pipeline failed, and waits for a person", pipeline=self.name, reason=str(error), code=error.code
            )
        else:
            wait = restart_delay(self._failures)
            self._become(State.FAILED)
            log.error("the pipeline failed", pipeline=self.name, restart_in=wait, reason=str(error), code=error.code)
        self._restart_at = time.time() + wait if wait is not None else None
        self._changed(self)
        await self._wait(wait)
        self._restart_at = None

    async def _run_once(self) -> None:
        loop = asyncio.get_running_loop()
        built = await loop.run_in_executor(
            None, lambda: self._builder.build(self.manifest, started_at=self._started_at, known=self._known)
        )
        plugin, runtime = built.plugin, built.runtime
        # A restart is not the first run again: what appears after this moment is read whole, also with `start: latest`.
        self._started_at = self._started_at if self._started_at is not None else time.time()
        try:
            if plugin is not None:
                await plugin.open(self._builder.context(self.manifest))
            if self._closing.is_set() or self._wish.desired is Desired.STOPPED:
                return
            self._built = built
            if isinstance(runtime, PushRuntime):
                await self._ingress.start()
                self._ingress.add(runtime)
            self._error = None
            running = asyncio.ensure_future(self._runtime(runtime))
            await asyncio.sleep(0)
            self._apply_pause(runtime)
            await running
        finally:
            self._note_counts()
            self._built = None
            if isinstance(runtime, PushRuntime):
                self._ingress.remove(runtime)
            if plugin is not None:
                with contextlib.suppress(TrunklineError):
                    await plugin.close()

    @staticmethod
    async def _runtime(runtime: Any) -> None:
        if isinstance(runtime, StreamRuntime):
            await in_own_thread(runtime.run, f"stream-{runtime.pipeline}")
        else:
            await runtime.run()

    def _apply_pause(self, runtime: Any) -> None:
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

    def _breaker(self) -> str:
        runtime = self._built.runtime if self._built is not None else None
        state = runtime.breaker if isinstance(runtime, SinkRuntime) else None
        return state.word if state is not None else ""

    def _waiting(self) -> str:
        runtime = self._built.runtime if self._built is not None else None
        return runtime.waiting if isinstance(runtime, SinkRuntime) else ""

    def _offsets(self) -> ReportedOffsets:
        return ReportedOffsets.of(self._known, self._places)

    def _note_counts(self) -> None:
        runtime = self._built.runtime if self._built is not None else None
        if isinstance(runtime, (StreamRuntime, SinkRuntime)):
            positions = runtime.positions
            ledgers = runtime.ledgers if positions != self._noted else None  # nothing is counted where nothing moves
            if ledgers:
                self._noted = positions
                summed = total(ledgers.values())
                self._counts = {name: getattr(summed, name) for name in ("read", *OUTCOMES, "outputs")}
                self._places = list(positions)
                self._known.advance(positions)
                gauge("trunkline_ledger_open").labels(self.name).set(summed.open)
        elif isinstance(runtime, (SourceRuntime, PushRuntime)):
            splits = list(runtime.splits.values())
            fields = ("read", "delivered", "filtered", "dead", "outputs", "duplicates")
            self._counts = {name: sum(getattr(split, name) for split in splits) for name in fields}
            self._finished = runtime.finished
        if self._counts:
            self._pace.note(self._counts.get("read", 0))

    def _progress(self) -> list[dict[str, Any]]:
        runtime = self._built.runtime if self._built is not None else None
        if not isinstance(runtime, SourceRuntime):
            return []
        return [
            {"done": known.done, "total": known.total, "what": known.what, "seconds_left": left}
            for known, left in runtime.progress
        ]
