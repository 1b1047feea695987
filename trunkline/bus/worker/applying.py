"""Changing what is applied: written only onto the state that the plan was made for."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import ABSENT, Effect, Latest, Write, carry_out, conflict, read_latest
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker.applied import VERSION, Applied, Change, shown_differences
from trunkline.core.manifests.kinds import PIPELINE_KINDS
from trunkline.core.secret import without_secrets

LARGEST_DETAILS = 256 * 1024
"""In bytes. A topic takes a megabyte, and an entry may have what was and what is."""
Replan = Callable[[Mapping[str, dict[str, Any]]], Sequence[Change]]
"""What the caller's files change in what is applied by then; raises where they don't go with it."""


def read_state(settings: KafkaSettings, names: Names) -> Applied:
    """What is applied now, with its versions. Raises our error for Kafka's."""
    return Applied.of(read_latest(settings, names.manifests))


def write_changes(
    settings: KafkaSettings,
    names: Names,
    changes: Sequence[Change],
    after: Mapping[str, dict[str, Any]],
    *,
    by: str,
    seen: Applied,
    replan: Replan,
) -> list[Change]:
    """Writes the changed manifests and their audit entries in one transaction: all of them are applied, or none. Returns what it wrote.

    What is wanted of a pipeline (paused, stopped) goes with its manifest.

    `seen` is what `changes` were made for and what was shown to whoever confirmed them. Where one of these manifests has another
    version by now, nothing is written, except that what is already as wanted is left alone. Where only others have moved,
    `replan` says whether the changes are still the same ones. Raises `ConflictError`, what
    `replan` raises, and our error for Kafka's.
    """

    def decide(latest: Latest) -> Effect[list[Change]]:
        now = Applied.of(latest)
        left = [change for change in changes if now.manifests.get(change.key) != after.get(change.key)]
        _refuse_moved([change.key for change in left], latest, now, seen)
        if not left:
            return Effect([])
        if now.versions != seen.versions:
            known = {(change.action, change.key) for change in changes}
            other = [change.key for change in replan(now.manifests) if (change.action, change.key) not in known]
            # Such as what somebody just applied and `--prune` would delete, which nobody was shown.
            _refuse_moved(other, latest, now, seen)
        at = time.time()
        records = [Write(names.manifests, change.key.encode(), _record(change, after, by, at)) for change in left]
        gone = [change.name for change in left if change.action == "delete" and change.kind in PIPELINE_KINDS]
        records += [Write(names.control, name.encode(), None) for name in gone]
        return Effect(left, records, [_entry(change, now, after, by, at) for change in left])

    return carry_out(settings, names, names.manifests, decide, by=by, what="the manifests can't be applied")


def _refuse_moved(keys: Sequence[str], latest: Latest, now: Applied, seen: Applied) -> None:
    moved = [key for key in keys if now.versions.get(key, ABSENT) != seen.versions.get(key, ABSENT)]
    if moved:
        raise conflict(
            {
                key: (latest.last(key), shown_differences(seen.manifests.get(key, {}), now.manifests.get(key, {})))
                for key in moved
            }
        )


def _digest(manifest: dict[str, Any] | None) -> dict[str, Any] | None:
    """What stands for a manifest that is too large for the trail."""
    if manifest is None:
        return None
    written = orjson.dumps(manifest, option=orjson.OPT_SORT_KEYS)
    return {"sha256": sha256(written).hexdigest(), "bytes": len(written)}


def _record(change: Change, after: Mapping[str, dict[str, Any]], by: str, at: float) -> bytes | None:
    if change.action == "delete":
        return None
    return orjson.dumps({"v": VERSION, "by": by, "at": at, "manifest": after[change.key]})


def _entry(change: Change, now: Applied, after: Mapping[str, dict[str, Any]], by: str, at: float) -> Entry:
    """Of a change the trail has the fields, of others the whole manifest."""
    before, wanted = now.manifests.get(change.key), after.get(change.key)
    if before is not None and wanted is not None:
        fields = shown_differences(before, wanted)
        details: dict[str, Any] = {
            "fields": [{"field": name, "before": old, "after": new} for name, old, new in fields]
        }
    else:
        details = {"before": without_secrets(before), "after": without_secrets(wanted)}
    if len(orjson.dumps(details)) > LARGEST_DETAILS:
        details = {"before": _digest(before), "after": _digest(wanted)}
    pipeline = change.name if change.kind in PIPELINE_KINDS else ""
    return Entry(at, by, f"manifest.{change.action}", pipeline, details, subject=change.key)
