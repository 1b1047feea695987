"""A worker as a process of its own, for tests that kill it: `bus_worker.py BOOTSTRAP NAMESPACE HOME MANIFESTS [REGISTRY]`.

Without a registry's URL it serves its own from the namespace's `_schemas`. It says `up` when its pipelines are started, and
ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.core.log import configure_logging
from trunkline.core.manifests import load_files


async def main(bootstrap: str, namespace: str, home: str, manifests: str, registry: str | None = None) -> None:
    """Runs the worker until it is told to end."""
    configure_logging("info", style="text")
    worker = Worker(WorkerSettings(KafkaSettings(bootstrap), Names(namespace), Path(home), registry_url=registry))
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await worker.start(load_files([Path(manifests)]))
    print("up", flush=True)
    await ended.wait()
    await worker.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
