"""What `up` survives: a project that can't be run, a worker that breaks, a machine without room for another process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trunkline.bus.kafka import KafkaSettings
from trunkline.cli.process import serving, workers
from trunkline.cli.process.serveoptions import ServeOptions
from trunkline.cli.session import Session
from trunkline.core.errors import ConfigurationError, TrunklineError, UnavailableError


def work_that_fails(errors: list[BaseException], begun: list[int]) -> Callable[[asyncio.Event], Any]:
    """Raises each of the errors, one a beginning; then it works until it is stopped, which is at once."""

    async def work(stop: asyncio.Event) -> None:
        begun.append(1)
        if len(begun) <= len(errors):
            raise errors[len(begun) - 1]
        stop.set()

    return work


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("a manifest of another version", code="manifest.invalid"),
        UnavailableError("nobody answers", code="kafka.refused"),
        RuntimeError("a defect"),
        OSError(28, "No space left on device"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_up_begins_again_whatever_is_wrong_with_what_is_applied(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "reconnect_delay", lambda _attempts: 0.0)
    begun: list[int] = []
    await asyncio.wait_for(serving.stay_up(work_that_fails([error, error], begun), asyncio.Event()), 10)
    assert len(begun) == 3


@pytest.mark.parametrize("code", ["address.taken", "tls.files", "option.tls"])
async def test_up_ends_where_it_was_started_wrongly_unless_it_worked_before(
    monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(serving, "reconnect_delay", lambda _attempts: 0.0)
    taken = UnavailableError("the port is taken", code=code)
    begun: list[int] = []
    with pytest.raises(TrunklineError, match="the port is taken"):
        await serving.stay_up(work_that_fails([taken], begun), asyncio.Event())
    begun.clear()
    await asyncio.wait_for(serving.stay_up(work_that_fails([RuntimeError("first"), taken], begun), asyncio.Event()), 10)
    assert len(begun) == 3


async def test_a_supervisor_without_room_for_a_process_goes_on_and_starts_it_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tried: list[int] = []
    stop = asyncio.Event()

    async def started(*_arguments: Any) -> asyncio.subprocess.Process:
        tried.append(1)
        if len(tried) < 3:
            raise OSError(11, "Resource temporarily unavailable")
        stop.set()
        return await asyncio.create_subprocess_exec(sys.executable, "-c", "")

    monkeypatch.setattr(workers, "_started", started)
    monkeypatch.setattr(workers, "reconnect_delay", lambda _attempts: 0.0)
    options = ServeOptions((), 1, ("127.0.0.1", 0), ("127.0.0.1", 0), "info", "json", until_finished=False)
    session = Session(home_option=str(tmp_path))
    await asyncio.wait_for(workers.supervise(session, options, KafkaSettings("127.0.0.1:1"), stop, set()), 30)
    assert len(tried) == 3
