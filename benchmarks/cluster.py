"""What a measurement runs against: a broker and a registry of its own, and stand-ins of other systems in processes of their own."""

from __future__ import annotations

import asyncio
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import serve_registry

T = TypeVar("T")
TRUNKLINE = str(Path(sys.executable).parent / "trunkline")


@dataclass(frozen=True, slots=True)
class Cluster:
    """Addresses, and a folder that goes away afterwards."""

    folder: Path
    bootstrap: str
    registry: str

    def command(self, *arguments: str) -> list[str]:
        """A `trunkline` command line on this cluster."""
        home = str(self.folder / "worker")
        return [TRUNKLINE, "--home", home, "--bootstrap", self.bootstrap, "--registry", self.registry, *arguments]


async def on_a_cluster(measure: Callable[[Cluster], T]) -> T:
    """Starts a cluster, measures in a thread, and ends the cluster."""
    with (
        tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder,
        # Open, as the brokers are on which others are measured.
        EmbeddedKafka(Path(folder) / "home", EmbeddedOptions(open=True)) as kafka,
    ):
        assert kafka.running is not None
        bootstrap = kafka.running.bootstrap
        store = KafkaStore({"bootstrap.servers": bootstrap})
        await store.start()
        listener = await serve_registry(store)
        try:
            return await asyncio.to_thread(measure, Cluster(Path(folder), bootstrap, listener.url))
        finally:
            await listener.stop()
            await store.close()


@contextmanager
def stand_in(cluster: Cluster, name: str, settings: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """A stand-in of `trunkline mock`, and the variables that lead to it."""
    variables = cluster.folder / f"{name}.env"
    variables.unlink(missing_ok=True)
    command = [TRUNKLINE, "mock", name, "--env-file", str(variables)]
    for setting in settings:
        command += ["--set", f"{name}.{setting}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it writes the file before it says a word
        text = variables.read_text(encoding="utf-8")
        yield _read(text)
    finally:
        process.terminate()
        process.wait()


def _read(text: str) -> dict[str, str]:
    pairs = (one.partition("=") for one in shlex.split(text))
    return {name: value for name, _, value in pairs}


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What a function gives, and the seconds that it takes."""
    begun = time.monotonic()
    return function(), time.monotonic() - begun
