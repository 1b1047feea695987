"""Worker processes that are forked from one that has imported the engine: each is there at once, instead of after seconds of imports.

Each runs a module as `python -m` does, with arguments and an environment of its own. Like tied ones they never outlive who started
them.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path

from tests.chaos.faults.tied import ROOT

_WARM = multiprocessing.get_context("forkserver")
_WARM.set_forkserver_preload(
    [
        "trunkline.cli.commands.run",
        "trunkline.bus.worker.worker",
        "connectors.file.source",
        "connectors.webhook.source",
        "sinks.http.sink",
        "streams.map",
        "trunkline.cli.main",
        "tests.chaos.faults.warm",
    ]
)


class WarmProcess:
    """A module that runs in ROOT and writes to a file, with its errors in another one where there is one.

    The methods are those of `subprocess.Popen`, from any thread.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        errors: Path | None = None,
        environment: Mapping[str, str],
    ) -> None:
        life, self._life = _WARM.Pipe(duplex=False)
        self._lock = threading.Lock()
        files = (str(log), str(errors or log))
        self._process = _WARM.Process(target=_run, args=(module, list(arguments), files, dict(environment), life))
        self._process.start()
        life.close()
        self.pid = self._process.pid or 0

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        with self._lock:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code. Raises `subprocess.TimeoutExpired`."""
        if self.poll() is None:
            wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        with self._lock:
            self._life.close()
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(
    module: str, arguments: list[str], files: tuple[str, str], environment: dict[str, str], life: Connection
) -> None:
    os.setsid()
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    for number, file in enumerate(files, 1):
        output = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.dup2(output, number)
        os.close(output)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(life: Connection) -> None:
    wait([life])  # its other end is nobody's any more
    os.kill(os.getpid(), signal.SIGKILL)
