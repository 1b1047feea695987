"""Looking whether a worker's registry is still the one that it was, and having the pipelines begin anew where it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.measuring import Measuring
from trunkline.core.errors import RetriableError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.registry.client import RegistryClient
from trunkline.registry.watch import RegistryWatch

log = get_logger(__name__)
LOOK_SECONDS = 30.0


def registry_measuring(
    registry: Callable[[], RegistryClient | None], hosts: Callable[[], Sequence[PipelineHost]]
) -> Measuring:
    """Looks each 30 s. `registry` gives the worker's client once there is one, `hosts` its pipelines."""
    watches: dict[RegistryClient, RegistryWatch] = {}

    def prepare() -> Callable[[], None]:
        client, loop = registry(), asyncio.get_running_loop()

        def look() -> None:
            if client is not None:
                _look(watches.setdefault(client, RegistryWatch(client)), hosts(), loop)

        return look

    return Measuring(prepare, every=LOOK_SECONDS, first=LOOK_SECONDS, complaint="the registry can't be looked at")


def _look(watch: RegistryWatch, hosts: Sequence[PipelineHost], loop: asyncio.AbstractEventLoop) -> None:
    try:
        error = watch.look()
    except (RetriableError, UnavailableError):
        return  # who needs the registry meanwhile says so
    if error is not None:
        log.error("the pipelines begin anew, because of the registry", reason=str(error), code=error.code)
        for host in hosts:
            loop.call_soon_threadsafe(host.fail, error)
