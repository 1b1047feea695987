"""Whether a worker is ready: a matter of the worker itself. A pipeline that fails takes nobody else's webhooks from a load balancer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.bus.kafka import KafkaHealth
from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.bus.worker.host import PipelineHost
from trunkline.core.cause import Cause

ANSWERED_SECONDS = 10.0
"""The broker has answered within this time."""
AT_ONCE = 5
"""How many pipelines are asked before the event loop gets a turn."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """`reasons` say why the worker is not ready; `waiting` are pipelines that don't do their work, which is another matter."""

    reasons: tuple[str, ...]
    waiting: tuple[Mapping[str, Any], ...]
    pipelines: int

    @property
    def ready(self) -> bool:
        """Whether requests may be sent to it."""
        return not self.reasons

    def in_short(self) -> dict[str, Any]:
        """What a load balancer needs of it, and everybody may know."""
        return {"status": "ready" if self.ready else "waiting"}

    def as_dict(self) -> dict[str, Any]:
        """The answer to `GET /readyz`."""
        return {
            **self.in_short(),
            "reasons": self.reasons,
            "waiting": [one["pipeline"] for one in self.waiting],
            "pipelines": self.waiting,
            "pipelines_in_all": self.pipelines,
        }


class Ready:
    """Finds that out. On the event loop. It says nothing of the API: who asks has reached it."""

    def __init__(self, health: KafkaHealth, hosts: Callable[[], Mapping[str, PipelineHost]]) -> None:
        self._health = health
        self._hosts = hosts
        self.audit: Callable[[], dict[str, Any]] = dict
        """How the audit trail stands."""
        self.unheard: Callable[[], list[dict[str, Any]]] = list
        """The bus's own topics that can't be followed."""
        self.started = False
        """Whether the worker has begun its pipelines."""

    async def look(self) -> Readiness:
        """As of now."""
        hosts, waiting = list(self._hosts().values()), []
        for number, host in enumerate(hosts, start=1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)  # a thousand pipelines are asked in turns with everything else
            if not host.ready:
                waiting.append(host.report())
        return Readiness(tuple(self._reasons(waiting)), tuple(map(_told, waiting)), len(hosts))

    async def status(self) -> dict[str, Any]:
        """How the worker and its pipelines stand, as data: what it can say also while the broker is away."""
        readiness, trouble = await self.look(), self._health.trouble()
        pipelines = []
        for number, host in enumerate(list(self._hosts().values()), start=1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            pipelines.append(host.report().as_dict())
        return {
            "at": time.time(),
            "ready": readiness.ready,
            "reasons": readiness.reasons,
            "kafka": {
                "answered_at": self._health.answered_at,
                "cause": Cause.of(trouble, since=trouble.since or 0.0).as_dict() if trouble is not None else None,
            },
            "audit": self.audit(),
            "unheard": self.unheard(),
            "pipelines": pipelines,
        }

    def _reasons(self, waiting: Sequence[Report]) -> list[str]:
        found = [] if self.started else ["the worker has not begun its pipelines yet"]
        trouble, answered_at = self._health.trouble(), self._health.answered_at
        if trouble is not None:
            return [*found, f"{trouble.code}: {trouble.message}"]
        if answered_at is None or time.time() - answered_at > ANSWERED_SECONDS:
            found.append(f"the broker has not answered for {ANSWERED_SECONDS:g} s")
        for one in waiting:
            if one.code == "address.taken":
                found.append(f"{one.pipeline} can't take requests: {one.reason}")
            elif one.state is State.RUNNING:
                # Such a source takes requests in a moment, and answers 503 until then.
                found.append(f"{one.pipeline} takes no requests yet")
        return found


def _told(report: Report) -> Mapping[str, Any]:
    return {"pipeline": report.pipeline, "state": report.state, "code": report.code, "reason": report.reason}
