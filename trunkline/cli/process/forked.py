"""Worker processes that are forked from their supervisor before anything runs in it but its main thread.

What a worker imports takes most of a second of CPU: the supervisor imports it once, and each fork has it at once, in memory that they
share. A fork waits on its standard input to be told where Kafka is; the other end is the supervisor's, and nobody else's, so that
it ends too when the supervisor does. A crashed worker's successor is no fork: by then the supervisor has threads.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from trunkline.bus.kafka import KafkaSettings
from trunkline.core.secret import revealed


def possible() -> bool:
    """Whether an event loop can wait for forks here: Linux 5.3 and later, where no sandbox forbids it."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


@dataclass(slots=True, eq=False)
class ForkedWorker:
    """A process that was forked. The methods are those of `asyncio.subprocess.Process`."""

    pid: int
    _life: int
    """Our end of its standard input."""
    returncode: int | None = None

    def begin(self, kafka: KafkaSettings) -> None:
        """Has it work. Options go this way, because a command line with a password can be read by everybody."""
        try:
            os.write(self._life, told(kafka))
        except BrokenPipeError:
            return  # it died meanwhile: who waits for it is told

    async def wait(self) -> int:
        """Waits for the exit code, negative for a signal."""
        if self.returncode is None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            watched = os.pidfd_open(self.pid)
            loop.add_reader(watched, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(watched)
                os.close(watched)
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222 (it has ended)
            self.returncode = os.waitstatus_to_exitcode(status)
            os.close(self._life)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Raises ProcessLookupError where it has ended."""
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL. Raises ProcessLookupError where it has ended."""
        self.send_signal(signal.SIGKILL)


def fork_workers(count: int, work: Callable[[int, KafkaSettings], int]) -> list[ForkedWorker]:
    """Forks workers: each calls `work` with its number and what `begin` tells it, and ends with the exit code that it gives."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # no collection touches, and so copies, what they share
    born: list[ForkedWorker] = []
    for slot in range(count):
        theirs, ours = os.pipe()
        pid = os.fork()
        if pid == 0:
            for other in born:
                os.close(other._life)  # noqa: SLF001
            os.close(ours)
            _live(theirs, slot, work)
        os.close(theirs)
        born.append(ForkedWorker(pid, ours))
    return born


def _live(told: int, slot: int, work: Callable[[int, KafkaSettings], int]) -> NoReturn:
    """The life of a fork. What its parent has on the stack, and would do at its end, is none of its business."""
    code = 3
    try:
        os.setsid()  # Ctrl-C is for the supervisor, which then asks its workers once
        if told != 0:  # it is where the supervisor was started without a standard input
            os.dup2(told, 0)
            os.close(told)
        heard = hear(0)
        code = work(slot, heard[0]) if heard is not None else 0
    except SystemExit as asked:
        code = asked.code if isinstance(asked.code, int) else 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def told(kafka: KafkaSettings, registry_url: str | None = None) -> bytes:
    """What a supervisor tells a worker: how to reach Kafka, and the registry where it is one of its own.

    Through a pipe, because a command line can be read by everybody on the machine, and an environment by what the worker starts.
    """
    what = {"bootstrap": kafka.bootstrap, "options": revealed(kafka.options), "registry": registry_url}
    return json.dumps(what).encode() + b"\n"


def hear(handle: int) -> tuple[KafkaSettings, str | None] | None:
    """What a worker is told; None where nobody is left to tell it."""
    line = _line(handle)
    if not line:
        return None
    found = json.loads(line)
    return KafkaSettings(found["bootstrap"], found["options"]), found["registry"]


def _line(handle: int) -> bytes:
    """What is told, without its end; nothing where nobody is left to tell it. Not a byte more is read."""
    found = b""
    while not found.endswith(b"\n"):
        one = os.read(handle, 1)
        if not one:
            return b""
        found += one
    return found
