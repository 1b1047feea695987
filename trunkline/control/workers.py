"""The workers of an install: what each is and has, and what it logs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trunkline.bus.worker.board import Heartbeat, Report
from trunkline.bus.worker.inventory import Inventory
from trunkline.bus.worker.loglevels import want_level, wish
from trunkline.control.cluster import Cluster
from trunkline.control.timestamps import utc
from trunkline.core.errors import ConfigurationError, UnavailableError, did_you_mean
from trunkline.core.log import LEVELS

POLL_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class WorkerLine:
    """A worker: its last heartbeat, what it has (None until it said so), and what it reports of its pipelines."""

    beat: Heartbeat
    inventory: Inventory | None
    reports: list[Report]

    @property
    def state(self) -> str:
        """`LIVE`, or `SILENT` of one that did not end gracefully and is not heard any more."""
        return "LIVE" if self.beat.fresh else "SILENT"

    @property
    def plugins(self) -> dict[str, dict[str, list[str]]]:
        """The packages that each plug-in lacks, by kind and name; none where it is complete."""
        return self.inventory.plugins if self.inventory is not None else {}

    def as_dict(self) -> dict[str, Any]:
        """The worker as data."""
        beat = self.beat
        return {
            "worker": beat.worker,
            "state": self.state,
            "host": beat.host,
            "pid": beat.pid,
            "version": beat.version,
            "started": utc(int(beat.started_at * 1000)),
            "heard": utc(int(beat.at * 1000)),
            "heard_seconds_ago": round(beat.age, 1),
            "level": beat.level,
            "url": beat.url,
            "pipelines": [
                {"pipeline": one.pipeline, "kind": one.kind, "state": str(one.state), "reason": one.reason}
                for one in self.reports
            ],
            "plugins": self.plugins,
        }


def workers(cluster: Cluster) -> list[WorkerLine]:
    """Every worker that did not end gracefully."""
    inventories = {one.worker: one for one in cluster.board.inventories()}
    reports: dict[str, list[Report]] = {}
    for one in cluster.board.reports():
        if not one.removed:
            reports.setdefault(one.worker, []).append(one)
    return [
        WorkerLine(beat, inventories.get(beat.worker), reports.get(beat.worker, [])) for beat in cluster.board.workers()
    ]


def worker(cluster: Cluster, identity: str) -> WorkerLine:
    """One of them. Raises `ConfigurationError` (`worker.unknown`) where there is none of that id."""
    found = {one.beat.worker: one for one in workers(cluster)}
    if identity not in found:
        raise ConfigurationError(
            f"no worker is called {identity!r}",
            hint=did_you_mean(identity, found) or "`trunkline worker ls` lists them",
            code="worker.unknown",
        )
    return found[identity]


def live(cluster: Cluster, only: str | None = None) -> list[Heartbeat]:
    """The heartbeats of the workers that are there, or of one of them. Raises `ConfigurationError` where that is not there."""
    beats = [beat for beat in cluster.board.workers() if beat.fresh]
    if only is None:
        return beats
    found = [beat for beat in beats if beat.worker == only]
    if not found:
        raise ConfigurationError(
            f"no worker that runs is called {only!r}",
            where="--worker",
            hint=did_you_mean(only, [beat.worker for beat in beats]) or "`trunkline worker ls` lists them",
            code="worker.unknown",
        )
    return found


def set_level(cluster: Cluster, level: str, only: str | None, timeout: float) -> Iterator[Heartbeat]:
    """Changes what workers log, all or one of them; gives each as it says that it did.

    Raises `ConfigurationError` for an unknown level or worker, and `UnavailableError` where one did not follow in `timeout` seconds.
    """
    if level not in LEVELS:
        raise ConfigurationError(
            f"{level!r} is no log level", where="LEVEL", hint=f"one of {', '.join(LEVELS)}", code="option.level"
        )
    cluster.ensure_internal_topics()
    waiting = {beat.worker: beat for beat in live(cluster, only)}
    want_level(cluster.kafka, cluster.names, wish(level, only or "", cluster.actor))
    deadline = time.monotonic() + timeout
    while waiting:
        for beat in cluster.board.workers():
            before = waiting.get(beat.worker)
            if before is not None and beat.at > before.at and beat.level == level:
                del waiting[beat.worker]
                yield beat
        if waiting and time.monotonic() > deadline:
            raise UnavailableError(
                f"{', '.join(sorted(waiting))} did not say in {timeout:g} s that the level changed",
                hint="it was asked for and may still come: see `trunkline loglevel`",
                code="worker.slow",
            )
        if waiting:
            time.sleep(POLL_SECONDS)
