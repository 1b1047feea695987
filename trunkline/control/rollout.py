"""What became of the pipelines that an `apply` changed, as their workers report it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from trunkline.bus.states import State
from trunkline.bus.worker.board import Report
from trunkline.control.cluster import Cluster
from trunkline.core.cause import Cause
from trunkline.core.manifests import Project
from trunkline.core.manifests.identity import pipeline_identity

POLL_SECONDS = 0.3
WORKER_SECONDS = 6.0
"""How long it is looked for a worker before it is said that none runs: longer than between two of its reports."""


class Fate(StrEnum):
    """What became of a pipeline."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    GONE = "gone"
    FAILED = "failed"
    KEPT = "kept"
    """The new version can't run; the one before runs on."""
    LATE = "late"
    """It was not decided in time."""
    UNATTENDED = "unattended"
    """No worker runs: what was applied is kept for when one comes."""


SETTLED_SECONDS = 2.0
"""A pipeline that still runs so long after it began is taken to run: some fail as soon as they begin to work."""
GOOD = frozenset({Fate.RUNNING, Fate.PAUSED, Fate.STOPPED, Fate.GONE})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one pipeline, and why where it does not run."""

    pipeline: str
    kind: str
    fate: Fate
    cause: Cause | None = None

    def as_dict(self) -> dict[str, Any]:
        """The outcome as data."""
        cause = self.cause.as_dict() if self.cause is not None else None
        return {"pipeline": self.pipeline, "kind": self.kind, "result": str(self.fate), "cause": cause}


@dataclass(frozen=True, slots=True)
class Rollout:
    """Pipelines that changed, with the identity each shall have; None where it shall be gone."""

    kinds: Mapping[str, str]
    identities: Mapping[str, str | None]

    @classmethod
    def between(cls, before: Project, after: Project, also: Iterable[str] = ()) -> Rollout:
        """What differs between two checked projects, a change of topics and connections that pipelines use among it.

        `also` names pipelines that are looked at in any case: one that is applied again unchanged may not run all the same.
        """
        old = {name: pipeline_identity(before, one) for name, one in before.pipelines.items()}
        new = {name: pipeline_identity(after, one) for name, one in after.pipelines.items()}
        changed: dict[str, str | None] = {name: one for name, one in new.items() if old.get(name) != one}
        changed |= {name: new[name] for name in also}
        changed |= dict.fromkeys(name for name in old if name not in new)
        both = {**before.pipelines, **after.pipelines}
        return cls({name: both[name].kind for name in changed}, changed)

    def wait(self, cluster: Cluster, timeout: float) -> Iterator[Outcome]:
        """Gives the outcome of each pipeline as it is decided; of the others, after `timeout` seconds, that it is late."""
        begun = time.monotonic()
        waiting = dict(self.identities)
        running: dict[str, float] = {}
        while waiting:
            reports = [one for one in cluster.board.reports() if not one.stale]
            workers = {one.worker for one in cluster.board.inventories()}
            passed = time.monotonic() - begun
            for name, wanted in list(waiting.items()):
                own = [one for one in reports if one.pipeline == name]
                outcome = self._decided(name, wanted, own)
                if outcome is None or outcome.fate is not Fate.RUNNING:
                    running.pop(name, None)
                elif passed - running.setdefault(name, passed) < SETTLED_SECONDS:
                    continue
                if outcome is None and not (workers or own) and passed > min(WORKER_SECONDS, timeout):
                    outcome = Outcome(name, self.kinds[name], Fate.UNATTENDED)
                if outcome is None and passed > timeout:
                    cause = next((one.cause for one in own if one.cause is not None), None)
                    outcome = Outcome(name, self.kinds[name], Fate.LATE, cause)
                if outcome is not None:
                    del waiting[name]
                    yield outcome
            if waiting:
                time.sleep(POLL_SECONDS)

    def _decided(self, name: str, wanted: str | None, reports: Sequence[Report]) -> Outcome | None:
        kind = self.kinds[name]
        if wanted is None:
            living = [one for one in reports if one.state is not State.UNASSIGNED]
            return None if living else Outcome(name, kind, Fate.GONE)
        own = [one for one in reports if one.wanted == wanted]
        for one in own:
            fate = _FATES.get(one.state) if one.version == wanted or one.state is State.STOPPED else None
            if fate is not None:
                return Outcome(name, kind, fate, one.cause)
        kept = next((one for one in own if one.code == "version.refused" and one.state in _FATES), None)
        if kept is not None:
            return Outcome(name, kind, Fate.KEPT, kept.cause)
        failed = [one for one in own if one.state is State.FAILED]
        return Outcome(name, kind, Fate.FAILED, failed[0].cause) if failed else None


_FATES = {State.RUNNING: Fate.RUNNING, State.PAUSED: Fate.PAUSED, State.STOPPED: Fate.STOPPED}
