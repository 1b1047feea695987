"""A process that changes manifests and asks for restarts while another one does the same; or that is killed while it writes.

`python command_rivals.py BOOTSTRAP NAMESPACE WHO TIMES` changes `Topic/shared` and `Topic/WHO` and restarts the pipeline `out`,
so many times each. With a TIMES of `killed` it ends itself by SIGKILL between writing and committing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from trunkline.bus import commands
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker.applied import plan
from trunkline.bus.worker.applying import read_state, write_changes
from trunkline.bus.worker.wishes import want
from trunkline.core.errors import ConflictError


def topic(name: str, count: int, owner: str = "") -> dict[str, Any]:
    """A manifest whose label says how often it was changed."""
    about = {"name": name, "owner": owner, "labels": {"count": str(count)}}
    return {"kind": "Topic", "metadata": about, "spec": {"partitions": 1}}


def count_of(manifests: Mapping[str, dict[str, Any]], name: str) -> int:
    """What the label of a manifest says; 0 where it is not applied."""
    found = manifests.get(f"Topic/{name}")
    return int(found["metadata"]["labels"]["count"]) if found is not None else 0


def change(settings: KafkaSettings, names: Names, name: str, by: str) -> int:
    """Changes a manifest once, beginning again from what another one made of it. Returns how often that was."""
    for conflicts in range(1000):
        seen = read_state(settings, names)
        after = {f"Topic/{name}": topic(name, count_of(seen.manifests, name) + 1, by)}
        changes = plan(seen.manifests, after)
        try:
            write_changes(
                settings, names, changes, after, by=by, seen=seen, replan=lambda now, after=after: plan(now, after)
            )
        except ConflictError:
            continue
        return conflicts
    raise AssertionError("others won each time")


def _kill(_producer: object) -> None:
    _producer.flush(10)  # type: ignore[attr-defined]
    os.kill(os.getpid(), signal.SIGKILL)


def main(bootstrap: str, namespace: str, who: str, times: str) -> None:
    settings, names = KafkaSettings(bootstrap), Names(namespace)
    if times == "killed":
        commands.commit = _kill  # type: ignore[assignment]
        change(settings, names, "shared", who)
    conflicts = 0
    for _ in range(int(times)):
        conflicts += change(settings, names, "shared", who)
        change(settings, names, who, who)
        want(settings, names, ["out"], by=who, restart=True)
    print(conflicts)


if __name__ == "__main__":
    main(*sys.argv[1:])
