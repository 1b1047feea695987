"""Trying out what runs other people's code in a process of its own, before the worker runs it.

A plug-in of another package, or the module of a `python` step, may crash, exit or block for ever when it is imported or opened.
In the worker that would stop every pipeline. What comes with Trunkline is not tried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Iterator

from trunkline.bus.worker.trialprocess import READY, Request, frame
from trunkline.core import errors
from trunkline.core.errors import DefectError, FatalError, RetriableError, TrunklineError
from trunkline.core.manifests import Connection, Manifest, Pipeline, Project, Topic
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.core.manifests.build import own_code
from trunkline.core.plugins import Kind, comes_with_trunkline, plugin_names
from trunkline.core.secretpolicy import protected

TRIAL_SECONDS = 30.0
SOON_SECONDS = 5.0
"""After so long others have their turn first: one that blocks holds up none of them for long."""
START_SECONDS = 60.0
"""For the process to be ready, which imports everything first."""
END_SECONDS = 0.5
IDLE_SECONDS = 20.0
"""After so long without a trial the process ends: it takes the memory of a small worker."""


def needs_trial(manifest: Pipeline) -> bool:
    """Whether the pipeline runs code that did not come with Trunkline."""
    return of_others(manifest) or (isinstance(manifest, StreamManifest) and bool(own_code(manifest)))


def of_others(manifest: Manifest) -> bool:
    """Whether a manifest names an installed plug-in that did not come with Trunkline. Imports none."""
    return any(
        name in plugin_names(kind) and not comes_with_trunkline(kind, name) for kind, name in _plugins_of(manifest)
    )


def _plugins_of(manifest: Manifest) -> Iterator[tuple[Kind, str]]:
    if isinstance(manifest, StreamManifest):
        for step in manifest.spec.steps:
            yield "step", step.plugin
    elif isinstance(manifest, Connection):
        yield "sink", manifest.spec.connector
        yield "source", manifest.spec.connector
    elif not isinstance(manifest, Topic):
        kind: Kind = "source" if manifest.kind == "Source" else "sink"
        yield kind, manifest.spec.connector
        fallback = getattr(manifest.spec, "fallback", None)
        if fallback is not None:
            yield kind, fallback.connector


def part_of(project: Project, manifest: Manifest) -> Project:
    """The project of this manifest alone, with what it names: connections, topics and their schemas."""
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
        self._asked = 0
        self._idle: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Task[int | None] | None = None
        """The end of a process that was not needed for a while."""

    async def attempt(self, project: Project, manifest: Manifest, *, opens: bool = True) -> None:
        """Tries a pipeline out: its plug-in is made, opened and closed.

        Without `opens` a pipeline or connection is only judged, and nothing is raised for what is found. Raises what its code raises
        as our error (`plugin.broken` for what is none of ours), `DefectError` (`plugin.slow`, `plugin.crashed`) where it does not come
        to an end, or ends the process. What takes long is broken off, and has its whole time after all others that wait had their turn.
        """
        if self._seconds > SOON_SECONDS:
            try:
                return await self._attempt(project, manifest, opens, SOON_SECONDS)
            except DefectError as error:
                if error.code != "plugin.slow":
                    raise
        return await self._attempt(project, manifest, opens, self._seconds)

    async def _attempt(self, project: Project, manifest: Manifest, opens: bool, seconds: float) -> None:
        self._asked += 1
        asked = self._asked
        async with self._turn:
            process = await self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            key = (manifest.kind, manifest.metadata.name)
            request = pickle.dumps(Request(part_of(project, manifest), key, self._namespace, opens, asked, protected()))
            answer = b""
            try:
                async with asyncio.timeout(seconds):
                    with contextlib.suppress(ConnectionError):
                        process.stdin.write(frame(request))
                        await process.stdin.drain()
                    while (answer := await process.stdout.readline()) and not _answers(answer, asked):
                        pass  # what a process says that its code forked off
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
        refusal = json.loads(answer)["refusal"]
        if refusal is not None:
            raise _as_error(refusal)

    async def close(self) -> None:
        """Ends the process."""
        await self._end()
        if self._leaving is not None:
            await self._leaving

    async def _running(self) -> Process:
        """The process, ready for a request."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if self._process is not None and self._process.returncode is None:
            return self._process
        await self._end()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "trunkline.bus.worker.trialprocess"),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                ready = await self._process.stdout.readline()
        except TimeoutError:
            ready = b""
        except asyncio.CancelledError:
            await self._end()
            raise
        if ready != READY:
            await self._end()
            raise RetriableError(
                f"the process in which plug-ins are tried out was not ready in {START_SECONDS:g} s",
                code="plugin.untried",
            )
        return self._process

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._dismiss)

    def _dismiss(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()  # it ends with its input
            self._leaving = asyncio.create_task(_ended(process), name="dismiss the trial process")

    async def _end(self) -> int | None:
        """Ends the process at once. Its exit code, negative for a signal."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self._process = self._process, None
        return await _ended(process) if process is not None else None


async def _ended(process: Process) -> int | None:
    """Waits for the end of a process, and makes one soon. Its exit code; None where it was killed."""
    try:
        async with asyncio.timeout(END_SECONDS):
            return await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what its code began
        await process.wait()
        return None
    finally:
        # What its code forked, and is not in its group, may hold its output for ever. Asyncio has no public name for this.
        process._transport.close()  # type: ignore[attr-defined]  # noqa: SLF001


def _answers(line: bytes, asked: int) -> bool:
    """Whether a line is the answer to this request."""
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("asked") == asked


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
