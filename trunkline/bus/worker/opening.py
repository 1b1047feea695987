"""Making a version of a pipeline ready to run: topics, trial, runtime, and its plug-in opened. Every wait is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from trunkline.bus.runtime import Runtime
from trunkline.bus.worker.building.bench import Beginning
from trunkline.bus.worker.building.builder import Builder
from trunkline.bus.worker.topicmaking import TopicMaker
from trunkline.bus.worker.trial import Trials, needs_trial
from trunkline.bus.worker.wanted import Unfit
from trunkline.core.contracts import PluginContext, PushSource, Sink, Source
from trunkline.core.errors import ConfigurationError, DefectError, FatalError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.manifests import ManifestError, Pipeline, Project
from trunkline.core.manifests.identity import pipeline_secrets

log = get_logger(__name__)
OPEN_SECONDS = 30.0
"""How long a plug-in may take to open."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A version that is ready: its runtime, and what releases its plug-in after it ran."""

    runtime: Runtime
    close: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a pipeline. Two with one `identity` behave alike. `open` raises `TrunklineError` when it can't run."""

    identity: str
    open: Callable[[Beginning], Awaitable[Opened]]
    secrets: frozenset[str] = frozenset()
    """The references that it resolves when it is opened and whose values may change while it runs."""


def unfit_version(unfit: Unfit) -> Version:
    """A version that can't run, and says why."""

    async def refuse(_beginning: Beginning) -> Opened:
        raise _plainly(unfit.error)

    return Version(unfit.identity, refuse)


class Opener:
    """Opens the versions of one project. `threads` are for what blocks."""

    def __init__(self, builder: Builder, topics: TopicMaker, trials: Trials, threads: ThreadPoolExecutor) -> None:
        self._builder = builder
        self._topics = topics
        self._trials = trials
        self._threads = threads

    def version(self, project: Project, manifest: Pipeline, identity: str) -> Version:
        """The version that a manifest of the project makes."""

        async def open_(beginning: Beginning) -> Opened:
            return await self._open(project, manifest, beginning)

        return Version(identity, open_, pipeline_secrets(project, manifest))

    async def _open(self, project: Project, manifest: Pipeline, beginning: Beginning) -> Opened:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._threads, self._topics.make_for, project, manifest)
        if needs_trial(manifest):
            await self._trials.attempt(project, manifest)
        try:
            built = await loop.run_in_executor(self._threads, self._builder.build, manifest, beginning)
        except ManifestError as error:
            raise _plainly(error) from error
        except SystemExit as error:
            raise _ended(error) from error
        plugin = built.plugin
        if plugin is not None:
            try:
                await open_plugin(plugin, self._builder.context(manifest))
            except BaseException:
                await _close(plugin, manifest.metadata.name)
                raise

        async def close() -> None:
            if plugin is not None:
                await _close(plugin, manifest.metadata.name)

        return Opened(built.runtime, close)


async def open_plugin(
    plugin: Source | PushSource | Sink, context: PluginContext, seconds: float = OPEN_SECONDS
) -> None:
    """Opens a plug-in. Raises what it raises as our error, `FatalError` (`plugin.slow`) when it takes longer."""
    try:
        async with asyncio.timeout(seconds) as bound:
            await plugin.open(context)
    except TrunklineError:
        raise
    except TimeoutError as error:
        if not bound.expired():
            raise DefectError(f"opening it failed: {type(error).__name__}: {error}", code="plugin.broken") from error
        raise FatalError(
            f"its connector did not open in {seconds:g} s",
            hint="see whether the other system's address is right, and whether it answers",
            code="plugin.slow",
        ) from error
    except SystemExit as error:
        raise _ended(error) from error
    except Exception as error:
        log.exception("the plug-in broke while it opened", pipeline=context.pipeline)
        raise DefectError(
            f"opening its connector failed: {type(error).__name__}: {error}",
            hint="this is a fault of the plug-in: the traceback is in the worker's log",
            code="plugin.broken",
        ) from error


async def _close(plugin: Source | PushSource | Sink, pipeline: str) -> None:
    try:
        with contextlib.suppress(TrunklineError):
            await plugin.close()
    except (Exception, SystemExit):
        log.exception("the plug-in broke while it closed", pipeline=pipeline)


def _plainly(error: ManifestError) -> ConfigurationError:
    """What a manifest's only problem says, with its own code; of several problems all of them."""
    if len(error.problems) != 1:
        return error
    problem = error.problems[0]
    return ConfigurationError(
        problem.message, where=f"{problem.file}: {problem.field}", hint=problem.hint, code=problem.code
    )


def _ended(error: SystemExit) -> DefectError:
    return DefectError(
        f"its code wanted to end the process (SystemExit: {error})",
        hint="mend the plug-in, or the module of its python step",
        code="plugin.broken",
    )
