"""The stand of a measurement: a broker of its own, and a worker started on it with the command that users type."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders import TICKS
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions


@dataclass(frozen=True, slots=True)
class Stand:
    """A folder, and the broker that runs in it. `cold` is how long the broker took to its first answer, in seconds."""

    folder: Path
    bootstrap: str
    broker_pid: int
    cold: float


@contextlib.contextmanager
def stand() -> Iterator[Stand]:
    """A new broker in a folder of its own, which asks who is there: what our clients need for it is in the environment meanwhile.

    With TRUNKLINE_OPEN set it asks nobody, so that what asking costs can be measured.
    """
    with tempfile.TemporaryDirectory(prefix="trunkline-bench-") as folder:
        begun = time.monotonic()
        options = EmbeddedOptions(open=bool(os.environ.get("TRUNKLINE_OPEN")))
        with EmbeddedKafka(Path(folder) / "broker", options) as kafka:
            assert kafka.running is not None
            cold, bootstrap = time.monotonic() - begun, kafka.running.bootstrap
            signing_in = {
                f"TRUNKLINE_KAFKA_{name.upper().replace('.', '_')}": value
                for name, value in kafka.running.client_options.items()
            }
            os.environ.update(signing_in)
            try:
                yield Stand(Path(folder), bootstrap, kafka.running.pid, cold)
            finally:
                for name in signing_in:
                    del os.environ[name]


@dataclass(frozen=True, slots=True)
class RunningWorker:
    """A worker process. `start_seconds` is from the command to the moment when every pipeline ran."""

    pid: int
    start_seconds: float
    api: str
    ingress: str


@contextlib.contextmanager
def worker(
    place: Stand,
    name: str,
    manifests: str,
    *,
    options: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 180.0,
) -> Iterator[RunningWorker]:
    """`trunkline run` with default settings, from its start until every pipeline runs; ended by SIGTERM."""
    home, log = place.folder / name, place.folder / f"{name}.log"
    manifest = place.folder / f"{name}.yaml"
    manifest.write_text(manifests, encoding="utf-8")
    command = [str(Path(sys.executable).parent / "trunkline"), "--home", str(home), "--bootstrap", place.bootstrap]
    command += ["--namespace", name, "run", "-f", str(manifest), "--log-level", "warning", *options]
    begun = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
    try:
        listens = "connector: webhook" in manifests
        endpoint = _ready(process, home, begun + timeout, log, listens=listens)
        yield RunningWorker(process.pid, time.monotonic() - begun, endpoint["api"], endpoint["ingress"])
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}:\n{log.read_text()[-3000:]}")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(
    process: subprocess.Popen[bytes], home: Path, deadline: float, log: Path, *, listens: bool
) -> dict[str, Any]:
    """Where a worker that is ready can be reached; the listener of push sources is announced soon after that."""
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}:\n{log.read_text()[-3000:]}")
        with contextlib.suppress(OSError, ValueError):
            endpoint: dict[str, Any] = json.loads((home / "endpoint.json").read_text())
            if urllib.request.urlopen(f"{endpoint['api']}/readyz", timeout=5).status == 200:
                endpoint = json.loads((home / "endpoint.json").read_text())
                if endpoint["ingress"] or not listens:
                    return endpoint
        time.sleep(0.05)
    raise SystemExit(f"the worker was not ready in time:\n{log.read_text()[-3000:]}")


def cpu_seconds(pid: int) -> float:
    """CPU seconds of a process until now, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> float:
    """Resident memory of a process now, in MiB."""
    return _status(pid, "VmRSS") / 1024


def peak(pid: int) -> float:
    """The largest resident memory of a process until now, in MiB."""
    return _status(pid, "VmHWM") / 1024


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def open_files(pid: int) -> int:
    """How many files and connections a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
