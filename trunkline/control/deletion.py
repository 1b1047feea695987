"""Deleting applied manifests: what speaks against it and what is left, found out before; then carried out as found."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trunkline.bus.redrive.jobs import JobLog
from trunkline.bus.worker.applied import Applied, Change, connections, pipelines_of, reads, writes
from trunkline.bus.worker.applying import read_state, write_changes
from trunkline.bus.worker.remains import Count, Remains, forget, mark_removed, records_in, remains_of, remove_ended
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.manifests.kinds import KINDS

POLL_SECONDS = 0.3
Manifests = Mapping[str, dict[str, Any]]
"""Applied manifests as data, by `Kind/name`: one that can't be loaded can be deleted all the same."""


@dataclass(frozen=True, slots=True)
class Deletion:
    """What would be deleted, by `Kind/name`: `applied` manifests, and `ended` pipelines that are not applied any more.

    `leaves` is what the pipelines leave on the cluster, and `topics` are those whose manifests go, with their records. `unwritten` and
    `unread` are topics that nobody writes or reads any more, each with who still reads or writes it.
    """

    seen: Applied
    applied: list[str]
    ended: list[str]
    leaves: list[Remains]
    topics: dict[str, Count]
    unwritten: dict[str, list[str]]
    unread: dict[str, list[str]]

    @property
    def pipelines(self) -> dict[str, str]:
        """Kinds by name of its pipelines."""
        return pipelines_of([*self.applied, *self.ended])

    def as_dict(self) -> dict[str, Any]:
        """The deletion as data."""
        return {
            "applied": self.applied,
            "ended": self.ended,
            "leaves": [one.as_dict() for one in self.leaves],
            "topics": {name: asdict(one) for name, one in self.topics.items()},
            "unwritten": self.unwritten,
            "unread": self.unread,
        }


def propose(cluster: Cluster, targets: Sequence[str]) -> Deletion:
    """What deleting these, written as `kind/name`, comes to.

    Raises `ConfigurationError`: for an unknown kind or name, where others that stay need one of them (`delete.in_use`), where a worker
    runs one from files (`delete.from_files`), and while letters of one are sent again (`delete.redrive`).
    """
    seen = read_state(cluster.kafka, cluster.names)
    reports = cluster.board.reports()
    reported = {f"{one.kind}/{one.pipeline}" for one in reports}
    keys = list(dict.fromkeys(_key(target, [*seen.manifests, *reported]) for target in targets))
    applied = [key for key in keys if key in seen.manifests]
    ended = [key for key in keys if key not in seen.manifests]
    living = {f"{one.kind}/{one.pipeline}" for one in reports if one.lives}
    for key in ended:
        if key in living:
            raise ConfigurationError(
                f"{key} is not applied, and a worker runs it: from files, or it is just ending it",
                where=key,
                hint="ask again in a minute; of files take it out of those that the worker was started with, or end the worker",
                code="delete.from_files",
            )
    _refuse_needed(seen.manifests, applied)
    pipelines = pipelines_of(keys)
    _refuse_redriven(cluster, pipelines)
    unwritten, unread = _orphans(seen.manifests, applied)
    topics = [key.partition("/")[2] for key in applied if key.startswith("Topic/")]
    return Deletion(
        seen,
        applied,
        ended,
        remains_of(cluster.kafka, cluster.names, pipelines),
        records_in(cluster.kafka, topics),
        unwritten,
        unread,
    )


def carry_out(cluster: Cluster, deletion: Deletion) -> list[str]:
    """Deletes the manifests, with what is wanted of their pipelines. Workers end those by themselves: see `await_ends`.

    Returns what it deleted, as `Kind/name`: what somebody else deleted meanwhile is not among it.

    Raises `ConflictError` where one of them was changed since, `ConfigurationError` where another one needs them by now.
    """
    changes = _changes(deletion.applied)

    def replan(now: Manifests) -> list[Change]:
        _refuse_needed(now, deletion.applied)
        return changes

    made: list[Change] = []
    if changes:
        made = write_changes(
            cluster.kafka, cluster.names, changes, {}, by=cluster.actor, seen=deletion.seen, replan=replan
        )
        mark_removed(cluster.kafka, cluster.names, pipelines_of(deletion.applied))
    if deletion.ended:
        remove_ended(cluster.kafka, cluster.names, pipelines_of(deletion.ended), by=cluster.actor)
    return [change.key for change in made]


def await_ends(cluster: Cluster, deletion: Deletion, timeout: float) -> list[str]:
    """Waits until no worker has its pipelines any more. Returns those that one still had after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        names = deletion.pipelines
        # A worker's last word comes after it has ended the pipeline: what is forgotten before would come back with it.
        running = sorted({one.pipeline for one in cluster.board.reports() if not one.ended and one.pipeline in names})
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(POLL_SECONDS)


def forget_progress(cluster: Cluster, deletion: Deletion) -> None:
    """Forgets how far the pipelines had come: see `remains.forget`. Raises `ConfigurationError` while a worker has one."""
    for name in deletion.pipelines:
        forget(cluster.kafka, cluster.names, name, by=cluster.actor)


def _changes(keys: Iterable[str]) -> list[Change]:
    parts = (key.partition("/") for key in keys)
    return [Change("delete", kind, name) for kind, _, name in parts]


def _key(target: str, known: Sequence[str]) -> str:
    """`Kind/name` of `kind/name`, the kind in any case, in the singular or the plural. Raises `ConfigurationError`."""
    written, slash, name = target.partition("/")
    kind = next((one for one in KINDS if written.lower() in {one.lower(), f"{one.lower()}s"}), None)
    if not slash or not name or kind is None:
        kinds = ", ".join(one.lower() for one in KINDS)
        raise ConfigurationError(
            f"{target!r} names nothing that can be deleted",
            where=target,
            hint=f"write KIND/NAME, such as sink/to-api; kinds are {kinds}",
            code="delete.target",
        )
    key = f"{kind}/{name}"
    if key not in known:
        names = [one.partition("/")[2] for one in known if one.startswith(f"{kind}/")]
        elsewhere = [one for one in known if one.partition("/")[2] == name]
        hint = f"there is a {elsewhere[0]}" if elsewhere else did_you_mean(name, names)
        raise ConfigurationError(f"no {kind} is called {name!r}", where=target, hint=hint, code="delete.unknown")
    return key


# --- what needs what ---


def _refuse_needed(manifests: Manifests, deleted: Sequence[str]) -> None:
    """Raises `ConfigurationError` where a manifest that stays needs one that goes."""
    staying = {key: data for key, data in manifests.items() if key not in set(deleted)}
    for key in deleted:
        users = sorted(one for one, data in staying.items() if _needs(data, key, staying))
        if users:
            raise ConfigurationError(
                f"{key} is needed by {', '.join(users)}",
                where=key,
                hint="change or delete those first, or delete all of them with one command",
                code="delete.in_use",
            )


def _needs(data: Mapping[str, Any], key: str, staying: Manifests) -> bool:
    """Whether a manifest uses a connection, or a topic that nothing of what stays declares."""
    kind, _, name = key.partition("/")
    if kind == "Connection":
        return name in connections(data)
    used = [*reads(data), *writes(data)] if kind == "Topic" else []
    return any(_declares(name, topic) for topic in used if not any(_declares(one, topic) for one in _topics(staying)))


def _topics(manifests: Manifests) -> Iterator[str]:
    return (key.partition("/")[2] for key in manifests if key.startswith("Topic/"))


def _declares(name: str, topic: str) -> bool:
    """Whether the topic manifest of this name, which may be that of a family, declares the topic."""
    return topic == name or (name.endswith(".*") and topic.startswith(name[:-1]))


def _orphans(manifests: Manifests, deleted: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Topics that only deleted pipelines wrote and others read, and the other way round, with those others."""
    gone = [manifests[key] for key in deleted]
    staying = {key: data for key, data in manifests.items() if key not in set(deleted)}
    unwritten, unread = {}, {}
    for topic in sorted({one for data in gone for one in writes(data)}):
        readers = [key for key, data in staying.items() if _covered(topic, reads(data))]
        if readers and not any(_covered(topic, writes(data)) for data in staying.values()):
            unwritten[topic] = sorted(readers)
    for topic in sorted({one for data in gone for one in reads(data)}):
        writers = [key for key, data in staying.items() if _covered(topic, writes(data))]
        if writers and not any(_covered(topic, reads(data)) for data in staying.values()):
            unread[topic] = sorted(writers)
    return unwritten, unread


def _covered(topic: str, names: Iterable[str]) -> bool:
    return any(_declares(one, topic) for one in names)


def _refuse_redriven(cluster: Cluster, pipelines: Mapping[str, str]) -> None:
    jobs = JobLog.read(cluster.kafka, cluster.names, patient=False)
    for job in jobs.of(pipelines):
        if job.runnable:
            raise ConfigurationError(
                f"dead letters of {job.pipeline} are being sent again by the job {job.id}",
                where=job.pipeline,
                hint=f"let it end, or run `trunkline job cancel {job.id}`",
                code="delete.redrive",
            )
