"""Opening a pipeline's plug-in outside of a worker, to see whether its connection works."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from trunkline.core.contracts import PluginContext
from trunkline.core.errors import ConfigurationError, UnavailableError, did_you_mean
from trunkline.core.log import get_logger
from trunkline.core.manifests import load_files
from trunkline.core.manifests.check import build_sink, build_source, check


async def probe(files: list[Path], pipeline: str, namespace: str, timeout: float) -> float:
    """Seconds that opening took. Raises what the plug-in raises, `UnavailableError` after `timeout` seconds."""
    project = load_files(files)
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
