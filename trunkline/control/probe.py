"""Opening a pipeline's plug-in outside of a worker, to see whether its connection works."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trunkline.core.contracts import PluginContext
from trunkline.core.errors import ConfigurationError, UnavailableError, did_you_mean
from trunkline.core.log import get_logger
from trunkline.core.manifests import Project
from trunkline.core.manifests.build import build_sink, build_source
from trunkline.core.manifests.check import check


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection that opened: in how many seconds, and whether that took another system's answer."""

    seconds: float
    asked: bool


class _WatchedLoop(asyncio.SelectorEventLoop):
    """Notes whether anything was connected to: a plug-in need not say whether its `open` asks anybody, and may be wrong about it."""

    asked = False

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        await super().sock_connect(sock, address)
        self.asked = True


def probe(project: Project, pipeline: str, namespace: str, timeout: float) -> Opened:
    """Opens and closes it. Its manifests are checked first. Raises what the plug-in raises, `UnavailableError` after `timeout` seconds."""
    loop = _WatchedLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return Opened(runner.run(_probe(project, pipeline, namespace, timeout)), loop.asked)


async def _probe(project: Project, pipeline: str, namespace: str, timeout: float) -> float:
    check(project)
    if pipeline in project.sources:
        plugin = build_source(project, project.sources[pipeline])
    elif pipeline in project.sinks:
        plugin = build_sink(project, project.sinks[pipeline])  # type: ignore[assignment]
    else:
        raise ConfigurationError(
            f"no source or sink is called {pipeline!r}",
            hint=did_you_mean(pipeline, [*project.sources, *project.sinks]),
            code="pipeline.unknown",
        )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="trunkline-probe-") as folder:
        context = PluginContext(
            namespace, pipeline, Path(folder), get_logger("trunkline.probe").bind(pipeline=pipeline)
        )
        try:
            async with asyncio.timeout(timeout):
                await plugin.open(context)
        except TimeoutError as error:
            raise UnavailableError(
                f"it did not open in {timeout:g} s",
                where=pipeline,
                hint="raise --timeout, or see whether the address is right",
                code="connector.slow",
            ) from error
        finally:
            await plugin.close()
    return time.monotonic() - begun
