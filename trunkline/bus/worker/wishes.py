"""What people want of pipelines: records of the compacted topic `_trunkline.control`, which workers follow."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import ABSENT, Effect, Latest, Write, carry_out, read_latest
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import Desired
from trunkline.core.jsonable import note_bytes

VERSION = 1
_VERBS = {Desired.RUNNING: "resume", Desired.PAUSED: "pause", Desired.STOPPED: "stop"}


@dataclass(frozen=True, slots=True)
class Wish:
    """What someone wants of a pipeline. `restart` counts requests: a worker that sees a higher number restarts it.

    `version` is that of the record it was read from.
    """

    desired: Desired = Desired.RUNNING
    restart: int = 0
    by: str = ""
    at: float = 0.0
    version: int = ABSENT


def read_wishes(settings: KafkaSettings, names: Names) -> dict[str, Wish]:
    """The latest wish for each pipeline that has one."""
    latest = read_latest(settings, names.control)
    return {
        key: parse_wish(found.value or b"", found.version) for key, found in latest.items() if not key.startswith("@")
    }


def parse_wish(value: bytes, version: int = ABSENT) -> Wish:
    """The wish in a record of the control topic."""
    data = orjson.loads(value)
    return Wish(Desired(data["desired"]), data["restart"], data["by"], data["at"], version)


def want(
    settings: KafkaSettings,
    names: Names,
    pipelines: Iterable[str],
    *,
    by: str,
    desired: Desired | None = None,
    restart: bool = False,
    seen: Mapping[str, int] | None = None,
) -> dict[str, Wish]:
    """Writes what someone wants of pipelines, all of them or none, and returns the wishes as they are now.

    `desired` stays as it is where none is named; `restart` asks for one more restart. `seen` has the versions that the caller
    saw, where that matters. Raises `ConflictError` where one of them has moved, and our error for Kafka's.
    """
    wanted = list(pipelines)

    def decide(latest: Latest) -> Effect[dict[str, Wish]]:
        latest.expect(seen or {})
        wishes, records, entries = {}, [], []
        for pipeline in wanted:
            found = latest.get(pipeline)
            before = parse_wish(found.value or b"", found.version) if found is not None else Wish()
            after = replace(before, desired=desired or before.desired, by=by, at=time.time(), version=ABSENT)
            after = replace(after, restart=before.restart + 1) if restart else after
            wishes[pipeline] = after
            records.append(Write(names.control, pipeline.encode(), _record(after)))
            action = "pipeline.restart" if restart else f"pipeline.{_VERBS[after.desired]}"
            details = {"before": _shown(before), "after": _shown(after)}
            entries.append(Entry(after.at, by, action, pipeline, details))
        return Effect(wishes, records, entries)

    return carry_out(settings, names, names.control, decide, by=by, what="what is wanted can't be written")


def restart(latest: Latest, names: Names, pipeline: str, by: str) -> Sequence[Write]:
    """The record that restarts a pipeline, for a command that changed what it goes on from; none where it is wanted to be stopped."""
    found = latest.get(pipeline)
    before = parse_wish(found.value or b"", found.version) if found is not None else Wish()
    if before.desired is Desired.STOPPED:
        return ()
    return [
        Write(
            names.control,
            pipeline.encode(),
            _record(replace(before, restart=before.restart + 1, by=by, at=time.time())),
        )
    ]


def _record(wish: Wish) -> bytes:
    return note_bytes({"v": VERSION, "desired": wish.desired, "restart": wish.restart, "by": wish.by, "at": wish.at})


def _shown(wish: Wish) -> dict[str, Any]:
    return {"desired": str(wish.desired), "restart": wish.restart}
