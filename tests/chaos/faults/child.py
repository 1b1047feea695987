"""Work on hostile input in a process of its own, so that a crash, a hang or a grab for memory is seen and not suffered."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[3]


class Grown(NamedTuple):
    """What a child came to: its answer, None where it did not live to give one, and how it ended."""

    answer: Any
    ended: str
    errors: str


async def in_child(module: str, order: Any, *, seconds: float = 300.0) -> Grown:
    """Runs `python -m module` with an order on its standard input, and gives what it answered. It ends with this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-B",  # what it opens and writes is watched: bytecode would be among it
        "-m",
        module,
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=2**26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        process.stdin.write(json.dumps(order).encode() + b"\n")
        await process.stdin.drain()
        # Its input stays open: the child ends when that ends, so it outlives nobody.
        async with asyncio.timeout(seconds):
            said, errors = await asyncio.gather(process.stdout.read(), process.stderr.read())
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    code = process.returncode or 0
    ended = signal.Signals(-code).name if code < 0 else f"exit {code}"
    return Grown(json.loads(said) if said.strip() else None, ended, errors.decode("utf-8", "replace")[-2000:])


def answer_with(work: Callable[[Any], Any]) -> None:
    """The child's part: reads the order, does the work, answers, and ends at once where the parent is gone."""
    order = json.loads(sys.stdin.readline())

    def parent_gone() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=parent_gone, daemon=True).start()
    sys.stdout.write(json.dumps(work(order)))
    sys.stdout.flush()
    os._exit(0)  # the thread still waits for the parent


class Meter:
    """The most CPU seconds that one case took, and the most memory."""

    def __init__(self) -> None:
        self.slowest = 0.0
        self.slowest_case = ""
        self._before = peak_mib()

    def run(self, case: str, work: Callable[[], Any]) -> Any:
        """Does the work of one case. CPU seconds, because other processes take the machine's time as well."""
        begun = time.process_time()
        try:
            return work()
        finally:
            taken = time.process_time() - begun
            if taken > self.slowest:
                self.slowest, self.slowest_case = taken, case

    @property
    def grown(self) -> float:
        """MiB by which the process's peak grew."""
        return peak_mib() - self._before

    def told(self) -> dict[str, Any]:
        """All of it, for the answer."""
        return {"seconds": round(self.slowest, 3), "case": self.slowest_case[:80], "MiB": round(self.grown)}


def peak_mib() -> float:
    """The most memory that this process ever had (VmHWM of proc_pid_status(5))."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found is not None
    return int(found[1]) / 1024
