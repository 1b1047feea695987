"""Trying out what runs other people's code in a process of its own, before the worker runs it.

A plug-in of another package, or the module of a `python` step, may crash, exit or block for ever when it is imported or opened.
In the worker that would stop every pipeline. What comes with Trunkline is not tried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process

from trunkline.bus.worker.trialprocess import Request, frame
from trunkline.core import errors
from trunkline.core.errors import DefectError, FatalError, TrunklineError
from trunkline.core.manifests import Pipeline, Project
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.core.manifests.build import own_code
from trunkline.core.plugins import Kind, comes_with_trunkline

TRIAL_SECONDS = 30.0
START_SECONDS = 60.0
"""For the first trial of a process, which imports everything first."""
IDLE_SECONDS = 20.0
"""After so long without a trial the process ends: it takes the memory of a small worker."""


def needs_trial(manifest: Pipeline) -> bool:
    """Whether the pipeline runs code that did not come with Trunkline."""
    if isinstance(manifest, StreamManifest):
        steps = manifest.spec.steps
        return bool(own_code(manifest)) or not all(comes_with_trunkline("step", step.plugin) for step in steps)
    kind: Kind = "source" if manifest.kind == "Source" else "sink"
    fallback = getattr(manifest.spec, "fallback", None)
    names = [manifest.spec.connector, *([fallback.connector] if fallback is not None else [])]
    return not all(comes_with_trunkline(kind, name) for name in names)


def part_of(project: Project, manifest: Pipeline) -> Project:
    """The project of this pipeline alone, with what it names: connections, topics and their schemas."""
    spec = manifest.spec
    topics = [*getattr(spec, "from_", ()), *(target.topic for target in getattr(spec, "to", ()))]
    used = [getattr(spec, "connection", None), getattr(getattr(spec, "fallback", None), "connection", None)]
    declared = [found for topic in topics if (found := project.topic_of(topic)) is not None]
    connections = [project.connections[name] for name in used if name in project.connections]
    part = Project()
    for one in (manifest, *declared, *connections):
        part.of_kind(one.kind)[one.metadata.name] = one
        part.origins[one.kind, one.metadata.name] = project.origin(one)
    names = {*topics, *(one.metadata.name for one in declared)}
    part.schemas = {name: schema for name, schema in project.schemas.items() if name in names}
    return part


class Trials:
    """The trials of one worker, one at a time in one process, which is started when it is needed. On the event loop."""

    def __init__(self, namespace: str, seconds: float = TRIAL_SECONDS) -> None:
        self._namespace = namespace
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def attempt(self, project: Project, manifest: Pipeline) -> None:
        """Tries a pipeline out. Raises what its code raises as our error (`plugin.broken` for what is none of ours),

        `DefectError` (`plugin.slow`, `plugin.crashed`) where it does not come to an end, or ends the process.
        """
        name = manifest.metadata.name
        async with self._turn:
            process, seconds = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            request = pickle.dumps(Request(part_of(project, manifest), name, self._namespace))
            answer = b""
            try:
                async with asyncio.timeout(seconds):
                    with contextlib.suppress(ConnectionError):
                        process.stdin.write(frame(request))
                        await process.stdin.drain()
                    answer = await process.stdout.readline()
            except TimeoutError as error:
                await self._end()
                raise DefectError(
                    f"what it imports or opens did not come to an end in {seconds:g} s",
                    hint="its code must return soon: see what `open`, or the module of its python step, waits for",
                    code="plugin.slow",
                ) from error
            except asyncio.CancelledError:
                await self._end()
                raise
            if not answer.endswith(b"\n"):
                code = await self._end()
                raise DefectError(
                    f"its code ended the process that it was tried out in ({_in_words(code)})",
                    hint="mend the plug-in, or the module of its python step: in a worker it would have ended all pipelines",
                    code="plugin.crashed",
                )
            self._rest()
        refusal = json.loads(answer)
        if refusal is not None:
            raise _as_error(refusal)

    async def close(self) -> None:
        """Ends the process."""
        await self._end()

    async def _running(self) -> tuple[Process, float]:
        """The process, and how long a trial may take in it."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._process is not None and self._process.returncode is None:
            return self._process, self._seconds
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trunkline.bus.worker.trialprocess"),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        return self._process, max(self._seconds, START_SECONDS)

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._dismiss)

    def _dismiss(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()  # it ends with its input
        self._process = None

    async def _end(self) -> int | None:
        """Ends the process at once. Its exit code, negative for a signal."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self._process = self._process, None
        if process is None:
            return None
        try:
            async with asyncio.timeout(0.5):
                return await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            return None


def _as_error(refusal: dict[str, str | None]) -> TrunklineError:
    kind = getattr(errors, refusal["kind"] or "", FatalError)
    made: type[TrunklineError] = kind if isinstance(kind, type) and issubclass(kind, TrunklineError) else FatalError
    return made(refusal["message"] or "", where=refusal["where"], hint=refusal["hint"], code=refusal["code"])


def _in_words(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
