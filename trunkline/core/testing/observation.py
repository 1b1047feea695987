"""Running a test's coroutine and watching what it leaves behind: tasks, sockets, and secrets in what it says."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import structlog

T = TypeVar("T")
LIMIT = 30.0
"""Seconds that one test's coroutine may take."""


def run(work: Callable[[], Awaitable[T]]) -> T:
    """Runs `work` on a fresh event loop, and checks that it leaves no task and no socket.

    Raises AssertionError that names what was left.
    """

    async def watched() -> T:
        own = asyncio.current_task()
        # What the kit starts belongs to the test: it is there before and gone after.
        result = await asyncio.wait_for(_awaited(work), LIMIT)
        await _settled(own)
        return result

    before = open_sockets()
    try:
        result = asyncio.run(watched())
    finally:
        gc.collect()
    left = open_sockets() - before
    assert not left, f"{len(left)} sockets were left open"
    return result


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


async def _settled(own: asyncio.Task[object] | None) -> None:
    """Waits some turns of the loop for tasks that are about to end, and complains about those that are not."""
    left: list[asyncio.Task[object]] = []
    for _ in range(200):
        left = [task for task in asyncio.all_tasks() if task is not own and not task.done()]
        if not left:
            return
        await asyncio.wait(left, timeout=0.01)
    raise AssertionError(f"tasks were left running: {[task.get_coro() for task in left]}")


async def cancelled_task(work: Awaitable[object]) -> None:
    """Starts `work`, which must hang, lets it get going, cancels it, and checks that it ends at once and as cancelled."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([task], timeout=0.2)
    assert not task.done(), f"the call ended although the other side hangs: {task}"
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done, "a cancelled call goes on"
    assert task.cancelled(), "a cancelled call swallowed its cancellation"


def open_sockets() -> set[int]:
    """The inodes of this process's open sockets; an empty set where the system doesn't tell."""
    folder = Path("/proc/self/fd")
    found: set[int] = set()
    if not folder.is_dir():
        return found
    for name in os.listdir(folder):  # noqa: PTH208 (the folder's own descriptor is gone when it is looked at)
        try:
            status = os.stat(folder / name)  # noqa: PTH116
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode):
            found.add(status.st_ino)
    return found


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The variables set for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class Transcript(logging.Handler):
    """Everything that was said while it was on: log lines of both logging systems, and what is added to it."""

    def __init__(self) -> None:
        super().__init__(level=logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.name}: {record.getMessage()}")
        if record.exc_info and record.exc_info[1] is not None:
            self.say(record.exc_info[1])

    def say(self, what: object) -> None:
        """Adds a verdict, an exception with its causes, anything."""
        seen: object | None = what
        while isinstance(seen, BaseException):
            self.lines += [str(seen), repr(seen), *getattr(seen, "__notes__", ())]
            seen = seen.__cause__ or seen.__context__
        if not isinstance(what, BaseException):
            self.lines += [str(what), repr(what)]

    def leaks(self, secrets: Sequence[str]) -> list[str]:
        """The lines that hold one of the secrets, with the secret covered."""
        return [
            line.replace(secret, "<SECRET>") for line in self.lines for secret in secrets if secret and secret in line
        ]


@contextmanager
def transcript() -> Iterator[Transcript]:
    """Collects the log lines of all levels, before any redaction: what is redacted later was still said."""
    collected = Transcript()
    root = logging.getLogger()
    level = root.level
    root.addHandler(collected)
    root.setLevel(logging.DEBUG)
    configured = structlog.is_configured()
    before = structlog.get_config()
    structlog.configure(
        processors=[_into(collected)], wrapper_class=structlog.stdlib.BoundLogger, cache_logger_on_first_use=False
    )
    try:
        yield collected
    finally:
        root.removeHandler(collected)
        root.setLevel(level)
        if configured:
            structlog.configure(**before)
        else:
            structlog.reset_defaults()


def _into(collected: Transcript) -> Callable[[object, str, structlog.typing.EventDict], structlog.typing.EventDict]:
    def keep(_logger: object, _method: str, fields: structlog.typing.EventDict) -> structlog.typing.EventDict:
        collected.lines.append(" ".join(f"{name}={value}" for name, value in fields.items()))
        raise structlog.DropEvent

    return keep
