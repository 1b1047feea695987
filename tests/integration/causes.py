"""What must be told of a cause, everywhere alike, within ten seconds of its begin and no longer than ten seconds after its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from bus_harness import Bus
from prometheus_client import REGISTRY

from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.control.status import PipelineStatus
from trunkline.core.cause import Cause

SECONDS = 10.0
Asked = Callable[[], Awaitable[PipelineStatus]]
"""What `trunkline status` is given."""


def some(value: Any) -> bool:
    """It is there."""
    return bool(value)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is told of a cause. `NAME` and `TOPIC` stand for the pipeline and what it reads."""

    code: str
    says: str
    """What stands in the reason."""
    state: State = State.RUNNING
    hint: str = "nothing is lost"
    fields: dict[str, Any] = field(default_factory=dict)
    """Fields of the cause by name; a function judges."""
    lasts: float = 0.0
    """Seconds for which it lasts, and is told without a gap."""

    def of(self, pipeline: str, topic: str) -> Told:
        """The same with names."""

        def filled(text: Any) -> Any:
            return text.replace("NAME", pipeline).replace("TOPIC", topic) if isinstance(text, str) else text

        fields = {name: filled(wanted) for name, wanted in self.fields.items()}
        return replace(self, says=filled(self.says), hint=filled(self.hint), fields=fields)

    def has(self, cause: Cause | None) -> bool:
        """Whether this cause has the fields."""
        found = {name: getattr(cause, name) for name in self.fields}
        return all(
            wanted(found[name]) if callable(wanted) else found[name] == wanted for name, wanted in self.fields.items()
        )

    def judge(self, told: Report | PipelineStatus) -> None:
        """What a report or a status says of it."""
        assert told.state is self.state
        assert self.says in (told.reason or "")
        assert self.hint in (told.hint or "")


async def by(deadline: float, condition: Callable[[], Awaitable[Any]], what: str) -> Any:
    """What a condition gives by then, or when it is asked for the third time: a busy machine takes its time to answer."""
    times = 0
    while not (found := await condition()):
        times += 1
        assert times < 3 or time.monotonic() < deadline, f"{what} did not come to be in time"
        await asyncio.sleep(0.05)
    return found


async def told(made: Bus, pipeline: str, wanted: Told, asked: Asked) -> None:
    """The cause that has begun just now is told by the worker, its metrics and `trunkline status`, as long as it lasts."""
    deadline = time.monotonic() + SECONDS

    def reported() -> Report | None:
        report = made.report(pipeline)
        return report if report.code == wanted.code and wanted.has(report.cause) else None

    async def in_status() -> PipelineStatus | None:
        found = await asked()
        return found if found.cause is not None and found.cause.code == wanted.code else None

    report: Report = await made.until(reported, f"the cause {wanted.code}", SECONDS)
    wanted.judge(report)
    await made.until(lambda: metric(pipeline, wanted.code) == 1.0, "the metric", deadline - time.monotonic())
    status: PipelineStatus = await by(deadline, in_status, f"{wanted.code} in the status")
    wanted.judge(status)

    def lasted() -> bool:
        now = made.report(pipeline)
        assert (now.state, now.code) == (wanted.state, wanted.code), "it is told as long as it lasts"
        assert now.cause is not None
        return time.time() - now.cause.since > wanted.lasts

    if wanted.lasts:
        await made.until(lasted, f"{wanted.lasts:g} s of it")


async def told_no_more(made: Bus, pipeline: str, code: str, asked: Asked) -> None:
    """The cause has ended just now: the pipeline runs, and nobody tells of it any more."""
    deadline = time.monotonic() + SECONDS

    def clear() -> bool:
        report = made.report(pipeline)
        return report.state is State.RUNNING and report.cause is None

    async def clear_in_status() -> bool:
        found = await asked()
        return found.state is State.RUNNING and found.cause is found.reason is found.hint is None

    await made.until(clear, f"the end of {code}", SECONDS)
    await made.until(lambda: metric(pipeline, code) is None, "the end of the metric", deadline - time.monotonic())
    await by(deadline, clear_in_status, f"the end of {code} in the status")


def metric(pipeline: str, code: str) -> float | None:
    """The series of a cause."""
    return REGISTRY.get_sample_value("trunkline_pipeline_cause", {"pipeline": pipeline, "code": code})
