"""A pipeline on a worker: its state, what it should be, and its restarts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace

from trunkline.bus.accounting.commits import Commits
from trunkline.bus.kafka import KafkaUnusableError
from trunkline.bus.knownoffsets import Copy
from trunkline.bus.runtime import Runtime, RuntimeReport, SplitProgress
from trunkline.bus.states import Desired, State
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.building.bench import Beginning
from trunkline.bus.worker.opening import Version
from trunkline.bus.worker.proving import proven
from trunkline.bus.worker.retrying import LACKING, MISSING, may_fail_again, mended_outside, next_try, state_after
from trunkline.bus.worker.said import Said
from trunkline.bus.worker.standing import WANTED_SO, wanted_so
from trunkline.bus.worker.topicwatch import TopicNews
from trunkline.bus.worker.versions import Versions
from trunkline.bus.worker.wishes import Wish
from trunkline.core.cause import Cause
from trunkline.core.errors import DefectError, HaltError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.metrics import counter

log = get_logger(__name__)
PROVEN_SECONDS = 60.0
"""A run that lasted this long was a success: the next failure is the first one again."""
SAY_SECONDS = 60.0
"""A failure that lasts is in the log again after so long."""
STAND_BY_SECONDS = 5.0
"""How often a worker that lacks what a pipeline needs looks whether another one has it."""
_AT_WORK = frozenset({State.RUNNING, State.PAUSED})


class PipelineHost:
    """Keeps one pipeline as it is wished to be. All on the event loop.

    `elsewhere` tells whether another worker runs the pipeline. Which version of it runs is a matter of its `Versions`.

    `failed` tells how many pipelines of the worker failed, and `mended` hears the code of a failure that is over.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        inputs: Sequence[str],
        version: Version,
        worker: str,
        beginning: Beginning,
        *,
        changed: Callable[[PipelineHost], None],
        elsewhere: Callable[[str], Awaitable[bool]],
        failed: Callable[[], int],
        mended: Callable[[str], None],
        trouble: Callable[[], KafkaUnusableError | None] = lambda: None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.inputs = inputs
        self.state = State.UNASSIGNED
        self.since = time.time()
        self._worker = worker
        self._changed = changed
        self._elsewhere = elsewhere
        self._failed = failed
        self._mended = mended
        self._trouble = trouble
        self._wish = Wish()
        self._versions = Versions(
            name,
            version,
            beginning,
            runs=lambda: self._runtime is not None and not self._closing.is_set(),
            make_room=self._make_room,
            cautious=lambda: self._error is not None and mended_outside(self._error),
            changed=lambda: self._changed(self),
        )
        self._doubted = False
        """Whether it was refused or held up at its work, and nothing that ran since has shown that it is not any more."""
        self._error: TrunklineError | None = None
        self._tried = ""
        """The identity of the version that was wanted when it failed."""
        self._overtaken: TrunklineError | None = None
        """Why the run that is under way ends."""
        self._logged = ("", 0.0)
        """The code of the failure that the log has, and when that was written."""
        self._failures = 0
        self._failed_at = 0.0
        """When the first of the failures in a row was."""
        self._restart_at: float | None = None
        self._runtime: Runtime | None = None
        self._wake = asyncio.Event()
        self._closing = asyncio.Event()
        self._said = Said(beginning.known)

    # --- what people and workers ask ---

    def wish(self, wish: Wish) -> None:
        """Someone wants it running, paused, stopped or restarted."""
        before, self._wish = self._wish, wish
        runtime = self._runtime
        if wish.restart > before.restart and not self._closing.is_set():
            self._failures = 0
            self._doubted = False
            if runtime is not None:
                runtime.stop()
        elif wish.desired is Desired.STOPPED:
            self._versions.give_up_opening()
            if runtime is not None:
                runtime.stop()
        elif runtime is not None:
            self._apply_pause(runtime)
        self._wake.set()

    def topics_changed(self, news: TopicNews) -> None:
        """Topics of the pipeline are not as they were."""
        runtime = self._runtime
        if runtime is None:
            if not news.missing and self._error is not None and self._error.code == MISSING:
                self._wake.set()
        elif news.missing or news.replaced:
            runtime.check_topics()
        elif news.grown or news.forgotten:
            reason = "its inputs have more partitions" if news.grown else "what it keeps its memory in was deleted"
            log.info("the pipeline begins anew", pipeline=self.name, reason=reason)
            runtime.stop()

    @property
    def secrets(self) -> frozenset[str]:
        """The references that it stands on and whose values may change."""
        return self._versions.wanted.secrets

    def secrets_seen(self, marks: Mapping[str, str]) -> None:
        """What secrets hold now: where its own hold something else than when it was opened, it is opened anew."""
        changed = self._versions.outdated(marks)
        if not changed or isinstance(self._error, HaltError):
            return
        if self._runtime is not None:
            log.info("a secret holds another value: the pipeline is opened anew", pipeline=self.name, secrets=changed)
            self.renew(replace(self._versions.wanted), self.inputs)
        elif self.state is not State.STOPPED:
            self._wake.set()

    def mended(self, code: str) -> bool:
        """What another pipeline had failed with is over. Whether this one waits for the same, and is tried now."""
        error = self._error
        waits = self._runtime is None and error is not None and error.code == code and mended_outside(error)
        if waits:
            self._wake.set()
        return waits

    @property
    def topic_ids(self) -> dict[str, str]:
        """The ids of the topics that it reads here."""
        return {topic: id_ for topic, id_ in self._said.offsets.topic_ids.items() if "/" not in topic}

    @property
    def identity(self) -> str:
        """That of the version that is wanted."""
        return self._versions.wanted.identity

    def renew(self, version: Version, inputs: Sequence[str]) -> None:
        """Another version is wanted from now on."""
        self.inputs = inputs
        self._failures = 0
        self._doubted = False
        self._versions.renew(version)
        self._wake.set()

    def fail(self, error: TrunklineError) -> None:
        """What it stands on changed: what runs, or is open to run, ends with this error."""
        if self._runtime is not None and not self._closing.is_set():
            self._overtaken = error
            self._runtime.stop()

    def close(self) -> None:
        """The worker ends: stop and stay stopped."""
        self._closing.set()
        self._versions.give_up_opening()
        if self._runtime is not None:
            self._runtime.stop()
        self._wake.set()

    def kafka_changed(self) -> None:
        """Kafka can be used again, or can't: that is told at once, and who waits for a restart need not wait longer."""
        if self._trouble() is None and self.state is State.RESTARTING:
            self._wake.set()
        self._changed(self)

    @property
    def at_work(self) -> bool:
        """Whether it has its partitions here, and what it reports of them is what is committed."""
        return self.state in _AT_WORK

    @property
    def ready(self) -> bool:
        """Whether it does its work, or was told not to."""
        if self._trouble() is not None:
            return self.state in {State.PAUSED, State.STOPPED}
        if self.state is State.RUNNING and self._runtime is not None:
            return self._runtime.report().ready
        return self.state in {State.RUNNING, State.PAUSED, State.STOPPED}

    @property
    def positions(self) -> dict[str, int]:
        """How far it has committed each partition that is its own now."""
        self._said.look(self._runtime)
        return self._said.offsets.positions

    @property
    def commits(self) -> Commits:
        """What is committed of each partition that it has now: nothing where it has none."""
        found = self._runtime.report() if self._runtime is not None else RuntimeReport()
        return {place: (offset, found.ledgers[place]) for place, offset in found.positions.items()}

    @property
    def progress(self) -> Sequence[SplitProgress]:
        """How far the splits of a source have come that tell it."""
        return self._runtime.report().progress if self._runtime is not None else ()

    @property
    def known(self) -> Copy:
        """How far it is known to have come, apart from its commits."""
        return self._versions.beginning.known.copy

    def report(self) -> Report:
        """How it stands now."""
        said = self._said
        found, offsets = said.look(self._runtime), said.offsets
        return Report(
            pipeline=self.name,
            kind=self.kind,
            worker=self._worker,
            state=self._shown_state(),
            since=self.since,
            at=time.time(),
            cause=self._cause(found),
            failures=self._failures,
            finished=found.finished,
            counts=said.counts,
            open=found.open,
            positions=offsets.positions,
            topic_ids=offsets.topic_ids,
            epochs=offsets.epochs,
            holding=said.holding,
            restart_at=self._restart_at,
            restart=self._wish.restart,
            breaker=found.breaker,
            parked_records=found.parked_records,
            parked_keys=found.parked_keys,
            per_second=said.per_second,
            progress=[asdict(one) for one in found.progress],
            version=self._versions.good.identity if self._versions.good is not None else "",
            # A failure says nothing of a version that is wanted since, and not yet opened.
            wanted=self._tried if self.state is State.FAILED else self.identity,
        )

    # --- running ---

    async def run(self) -> None:
        """Runs, restarts and waits until `close`."""
        try:
            while not self._closing.is_set():
                if self._wish.desired is Desired.STOPPED:
                    await self._versions.drop_ready()
                    self._become(State.STOPPED)
                    await self._wait(None)
                    continue
                await self._run_and_recover()
        finally:
            await self._versions.close()
        self._become(State.STOPPED if self._wish.desired is Desired.STOPPED else State.UNASSIGNED)

    async def _run_and_recover(self) -> None:
        begun = time.monotonic()
        try:
            if await self._run_once():
                self._error, self._doubted = None, False
                self._failures = 0
            return
        except asyncio.CancelledError:
            raise
        except TrunklineError as error:
            found = error
        except (Exception, SystemExit) as error:
            log.exception("the pipeline broke", pipeline=self.name)
            found = DefectError(f"{type(error).__name__}: {error}", code="pipeline.broken")
        last, self._error, self._tried = self._error, found, self.identity
        if self._closing.is_set():
            return
        if last is None and time.monotonic() - begun > PROVEN_SECONDS:
            self._failures = 0
        # A try every few seconds is no failure of its own: the one that is told of lasts.
        lasts = self._failures > 1 and last is not None and last.code == found.code and mended_outside(found)
        if not lasts:
            if not self._failures:
                self._failed_at = time.time()
            self._failures += 1
        await self._recover(found, lasts=lasts)

    async def _recover(self, error: TrunklineError, *, lasts: bool) -> None:
        """Waits until it is tried again: by itself, because something changed, or because someone says so."""
        state, wait = next_try(error, self._failures, lasting=time.time() - self._failed_at, failed=self._failed())
        self._restart_at = time.time() + wait if wait is not None else None
        if not lasts:
            counter("trunkline_pipeline_restarts_total").labels(self.name).inc()
            self._log_failure(error, state, wait)
        if error.code.startswith(LACKING):
            await self._stand_by(wait)
        else:
            if state is self.state and not lasts:
                self._changed(self)  # it failed again: that is news too
            self._become(state)
            await self._wait(wait)
        self._restart_at = None

    def _log_failure(self, error: TrunklineError, state: State, wait: float | None) -> None:
        """In the log once, and once a minute while it lasts: a thousand pipelines may fail with the same every few seconds."""
        code, at = self._logged
        if self._failures > 1 and error.code == code and time.monotonic() - at < SAY_SECONDS:
            return
        self._logged = (error.code, time.monotonic())
        say = log.warning if state is State.RESTARTING else log.error
        say("the pipeline failed", pipeline=self.name, next_try_in=wait, reason=str(error), code=error.code)

    async def _stand_by(self, seconds: float | None) -> None:
        """What this worker lacks another one may have: the pipeline failed only where none runs it."""
        until = time.monotonic() + seconds if seconds is not None else None
        while not self._closing.is_set():
            elsewhere = await self._elsewhere(self.name)
            self._become(State.UNASSIGNED if elsewhere else State.FAILED)
            left = STAND_BY_SECONDS if until is None else min(STAND_BY_SECONDS, until - time.monotonic())
            if left <= 0 or await self._wait(left):
                return

    async def _run_once(self) -> bool:
        """Runs until it is told to end. False where nothing was opened, since something else is wanted by now."""
        opened = await self._versions.next()
        if opened is None:
            return False
        runtime = opened.runtime
        proof: asyncio.Task[None] | None = None
        try:
            if self._closing.is_set() or self._wish.desired is Desired.STOPPED:
                return True
            self._runtime = runtime
            if self._doubted:
                proof = asyncio.create_task(self._prove(runtime), name=f"prove {self.name}")
            else:
                self._forget_error()
            self._apply_pause(runtime)
            await runtime.run()
            if self._overtaken is not None:
                await self._versions.drop_ready()
                raise self._overtaken
            return True
        except TrunklineError as error:
            self._doubted = may_fail_again(error)
            raise
        finally:
            if proof is not None:
                proof.cancel()
            self._overtaken = None
            self._said.ends(runtime)
            self._runtime = None
            await opened.close()

    async def _prove(self, runtime: Runtime) -> None:
        """Takes a failure back once what runs has shown that it is over.

        Until then the pipeline is as it was, FAILED or RESTARTING: else its state would change every few seconds.
        """
        await proven(runtime, paused=lambda: self.state is State.PAUSED)
        self._doubted = False
        self._forget_error()
        self._apply_pause(runtime)

    def _forget_error(self) -> None:
        """What it failed with is over."""
        error, self._error = self._error, None
        if error is not None:
            self._mended(error.code)

    # --- its state ---

    def _apply_pause(self, runtime: Runtime) -> None:
        if self._wish.desired is Desired.PAUSED:
            runtime.pause()
            self._become(State.PAUSED)
        else:
            runtime.resume()
            if not self._doubted:
                self._become(State.RUNNING)
            elif self.state not in {State.FAILED, State.RESTARTING} and self._error is not None:
                self._become(state_after(self._error))

    def _make_room(self) -> None:
        """A newer version is open and waits for what runs to end."""
        if self._runtime is not None:
            self._runtime.stop()

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        log.info("state", pipeline=self.name, state=state, before=self.state)
        self.state, self.since = state, time.time()
        self._changed(self)

    async def _wait(self, seconds: float | None) -> bool:
        """Waits, at most so long, until something is wanted. Whether something is."""
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._wake.wait()
        return False

    # --- how it stands ---

    def _cause(self, found: RuntimeReport) -> Cause | None:
        """Why it does not do its work now: a person wanted it so, it failed, what its runtime says, or why a new version can't run."""
        if self.state in WANTED_SO:
            return wanted_so(self.name, self.state, self._wish, self.since)
        trouble = self._trouble()
        if trouble is not None and self.state is not State.FAILED:
            # What failed for it says only that there was no answer, where anything failed at all.
            return Cause.of(trouble, since=trouble.since or self.since, next_try=self._restart_at)
        if self._error is not None:
            return Cause.of(
                self._error, since=self._failed_at, attempt=self._failures or None, next_try=self._restart_at
            )
        return found.cause or self._versions.cause

    def _shown_state(self) -> State:
        """Without Kafka nothing runs, whatever was begun; its clients begin again by themselves when it is back."""
        return State.RESTARTING if self.state is State.RUNNING and self._trouble() is not None else self.state
