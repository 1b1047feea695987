"""Workers as processes of their own, `trunkline run`, which are killed, stopped and started again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.chaos.faults.warm import WarmProcess

KILL, FREEZE = "kill -9", "SIGSTOP"


class Fleet:
    """Several `trunkline run` processes with the same manifests, each with a data folder of its own.

    A worker that is started again has the folder of its predecessor, as after a crash on a real machine. `fired` counts signals
    that reached a living process. `arguments` and `environment` are added to those of every worker.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        project: Path,
        folder: Path,
        *,
        count: int = 1,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.fired: Counter[str] = Counter()
        self.crashed: list[str] = []
        """The signals that workers died of and that nobody sent, such as SIGSEGV."""
        self._bootstrap = bootstrap
        self._project = project
        self._folder = folder
        self._arguments = arguments
        self._environment = {**os.environ, **(environment or {}), "TRUNKLINE_NAMESPACE": namespace}
        self._processes: list[WarmProcess | None] = [None] * count

    def start(self) -> None:
        """Starts every worker that does not run."""
        for number in range(len(self._processes)):
            self.start_one(number)

    def start_one(self, number: int) -> None:
        """Starts a worker, unless it runs."""
        if self.is_alive(number):
            return
        home = self._folder / f"worker-{number}"
        home.mkdir(parents=True, exist_ok=True)
        arguments = ["run", "--file", str(self._project), "--bootstrap", self._bootstrap, "--home", str(home)]
        arguments += ["--log-level", "info", "--log-style", "json", *self._arguments]
        self._processes[number] = WarmProcess(
            "trunkline.cli.main", arguments, log=self.log_file(number), environment=self._environment
        )

    def revive(self) -> None:
        """Starts again who ended by himself, as a supervisor does; who died of a signal that nobody sent is in `crashed`."""
        for number, process in enumerate(self._processes):
            code = process.poll() if process is not None else None
            if code is not None:
                if code < 0:
                    self.crashed.append(signal.Signals(-code).name)
                self.start_one(number)

    def kill(self, number: int) -> None:
        """SIGKILL, and waits until the process is gone."""
        process = self._processes[number]
        if process is not None and process.poll() is None:
            process.kill()
            if process.wait() == -signal.SIGKILL:
                self.fired[KILL] += 1
            self._processes[number] = None

    def kill_any(self, chance: random.Random) -> int:
        """Kills one of those that live, by chance, and says which."""
        number = chance.choice(self.living)
        self.kill(number)
        return number

    @contextmanager
    def frozen(self, number: int) -> Iterator[None]:
        """SIGSTOP for a while: the process is there and does nothing; then SIGCONT."""
        process = self._processes[number]
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            _until_state(process.pid, "T")
            self.fired[FREEZE] += 1
            yield
        finally:
            process.send_signal(signal.SIGCONT)

    def end_one(self, number: int, seconds: float = 60.0) -> int:
        """SIGTERM to one, and its exit code; it is killed where it does not end in time."""
        process = self._processes[number]
        assert process is not None
        self._processes[number] = None
        process.terminate()
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def end(self, seconds: float = 60.0) -> list[int]:
        """SIGTERM to all, and their exit codes; who does not end in time is killed."""
        living = [process for process in self._processes if process is not None]
        for process in living:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + seconds
        codes = []
        for process in living:
            try:
                codes.append(process.wait(max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(process.wait())
        self._processes = [None] * len(self._processes)
        return codes

    @property
    def living(self) -> list[int]:
        """The numbers of the workers that run."""
        return [number for number in range(len(self._processes)) if self.is_alive(number)]

    def is_alive(self, number: int) -> bool:
        """Whether a worker runs."""
        process = self._processes[number]
        return process is not None and process.poll() is None

    def pid(self, number: int) -> int:
        """The process id of a worker that was started."""
        process = self._processes[number]
        assert process is not None
        return process.pid

    def log_file(self, number: int) -> Path:
        """What a worker wrote, in all its lives."""
        return self._folder / f"worker-{number}.log"

    @property
    def logs(self) -> str:
        """What all workers wrote."""
        files = [self.log_file(number) for number in range(len(self._processes))]
        return "".join(file.read_text(encoding="utf-8", errors="replace") for file in files if file.exists())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(30.0 if kind is None else 1.0)


def _until_state(pid: int, state: str, seconds: float = 60.0) -> None:
    """Waits until the kernel says that a process is in a state; a signal takes effect a moment after it was sent."""
    deadline = time.monotonic() + seconds
    while process_state(pid) != state:
        if time.monotonic() > deadline:
            raise TimeoutError(f"the process {pid} is not in the state {state}")
        time.sleep(0.005)


def process_state(pid: int) -> str:
    """The kernel's letter for what a process does: R runs, S sleeps, T is stopped (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0]
