"""How one pipeline stands, told by metrics and log: the same cause that its report carries."""

from __future__ import annotations

import time

from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.core.cause import Cause
from trunkline.core.log import get_logger
from trunkline.core.metrics import gauge

log = get_logger(__name__)
REPEAT_SECONDS = 60.0
"""A cause that ends and comes back is logged again after this time: an account at its limit comes and goes all day."""
_SAID_ELSEWHERE = frozenset({State.FAILED, State.RESTARTING, State.STOPPED, State.PAUSED})
"""In these states the host's own lines say why."""


class Telling:
    """What is told of one pipeline. On the event loop."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._state: State | None = None
        self._cause: Cause | None = None
        self._logged: dict[str, float] = {}
        """When a line about a cause was written last, by its code."""

    def tell(self, report: Report) -> None:
        """Brings the metrics up to what a report says, and logs a cause that began or ended."""
        if report.state is not self._state:
            self._state = report.state
            for one in State:
                gauge("trunkline_pipeline_state").labels(self._pipeline, one).set(1 if one is report.state else 0)
        if report.counts:
            gauge("trunkline_ledger_open").labels(self._pipeline).set(report.open)
        before, self._cause = self._cause, report.cause
        old, new = before.code if before is not None else None, report.code
        if old == new:
            return
        causes = gauge("trunkline_pipeline_cause")
        if old is not None:
            causes.remove(self._pipeline, old)
        if new is not None:
            causes.labels(self._pipeline, new).set(1)
        self._log(before, report)

    def _log(self, before: Cause | None, report: Report) -> None:
        cause = report.cause
        if cause is None:
            if before is not None and before.code in self._logged and report.state is State.RUNNING:
                seconds = round(max(0.0, report.at - before.since), 1)
                log.info("the pipeline does its work again", pipeline=self._pipeline, code=before.code, seconds=seconds)
            return
        now = time.monotonic()
        if report.state in _SAID_ELSEWHERE or now - self._logged.get(cause.code, -REPEAT_SECONDS) < REPEAT_SECONDS:
            return
        self._logged[cause.code] = now
        told = {name: value for name, value in cause.as_dict().items() if name not in {"since", "hint"}}
        log.warning("the pipeline waits", pipeline=self._pipeline, **told)
