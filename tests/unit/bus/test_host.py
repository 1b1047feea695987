"""What a thousand pipelines that fail alike cost a log, and what the end of one failure sets off."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from trunkline.bus.worker import retrying
from trunkline.bus.worker.building.bench import Beginning
from trunkline.bus.worker.host import PipelineHost
from trunkline.bus.worker.opening import Opened, Version
from trunkline.bus.worker.projectrunner import ProjectRunner
from trunkline.core.errors import RetriableError


async def _nobody(_pipeline: str) -> bool:
    return False


async def test_a_failure_that_lasts_is_in_the_log_once_and_another_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "reconnect_delay", lambda _attempts: 0.0)
    tries = 0

    async def refused(_beginning: Beginning) -> Opened:
        nonlocal tries
        tries += 1
        if tries == 12:
            host.close()
        raise RetriableError("away", code="registry.away" if tries <= 10 else "registry.changed_its_mind")

    host = PipelineHost(
        "out",
        "Sink",
        ["orders"],
        Version("one", refused),
        "worker",
        Beginning(),
        changed=lambda _host: None,
        elsewhere=_nobody,
        failed=lambda: 1,
        mended=lambda _code: None,
    )
    with capture_logs() as logged:
        await asyncio.wait_for(host.run(), 20)

    assert [one["code"] for one in logged if one["event"] == "the pipeline failed"] == [
        "registry.away",
        "registry.changed_its_mind",
    ]


@dataclass
class Waiting:
    """A host that waits for the end of a failure."""

    woken: list[str] = field(default_factory=list)

    def mended(self, code: str) -> bool:
        self.woken.append(code)
        return True


async def test_those_that_failed_alike_are_tried_one_after_the_other_however_often_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrying, "CROWD_SECONDS", 0.0)
    runner: Any = object.__new__(ProjectRunner)
    hosts = [Waiting() for _ in range(5)]
    runner._hosts, runner._waking = dict(enumerate(hosts)), {}

    runner._mended("http.unauthorized")
    runner._mended("http.unauthorized")
    await asyncio.sleep(0)
    assert [len(one.woken) for one in hosts] == [1, 0, 0, 0, 0]
    await asyncio.gather(*runner._waking.values())

    assert [one.woken for one in hosts] == [["http.unauthorized"]] * 5
    assert runner._waking == {}
