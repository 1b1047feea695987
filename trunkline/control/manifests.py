"""What applying manifests would change, found out before anything is changed: and then carried out as found."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from trunkline.bus.accounting.audit import Entry, announced
from trunkline.bus.topics import Difference, declared_topics, ensure_topics, internal_topics, topic_states
from trunkline.bus.worker.applied import Applied, Change, as_data, gather_applied, plan
from trunkline.bus.worker.applying import read_state, write_changes
from trunkline.bus.worker.firstreads import Begins, FirstRead, first_reads
from trunkline.bus.worker.remains import Remains, mark_removed, remains_of
from trunkline.control.capabilities import refuse_unable
from trunkline.control.cluster import Cluster
from trunkline.control.judging import judge_beside
from trunkline.control.rollout import Rollout
from trunkline.core.manifests import ManifestError, Problem, Project, Sink, Stream
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.kinds import PIPELINE_KINDS
from trunkline.registry.client import RegistryClient
from trunkline.registry.model import SchemaError
from trunkline.registry.schema import Schema

T = TypeVar("T")
R = TypeVar("R")
AT_ONCE = 16
"""How many questions the registry is asked at a time: what one costs is mostly waiting."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """Changes of manifests, topics to create, schemas to register, and topics that differ from their manifests."""

    project: Project
    own: Project
    """What was given alone, for planning anew."""
    seen: Applied
    prune: bool
    after: Mapping[str, dict[str, Any]]
    changes: list[Change]
    new_topics: list[str]
    new_schemas: list[str]
    schemas: Mapping[str, Schema]
    differences: list[Difference]
    reads: list[FirstRead]
    """What new pipelines, and pipelines with new inputs, read first."""
    leaves: list[Remains]
    """What pipelines that are deleted leave on the cluster."""
    not_run: list[Problem] = field(default_factory=list)
    """Code of `python` steps that was read and not run."""

    def rollout(self) -> Rollout:
        """The pipelines that change with it, and those that were given."""
        before = examine(gather_applied(self.seen.manifests)).project
        return Rollout.between(before, self.project, also=self.own.pipelines)

    @property
    def empty(self) -> bool:
        """Whether nothing would change."""
        return not (self.changes or self.new_topics or self.new_schemas)

    def as_dict(self) -> dict[str, Any]:
        """The proposal as data."""
        return {
            "changes": [change.as_dict() for change in self.changes],
            "topics": self.new_topics,
            "schemas": self.new_schemas,
            "differences": [
                {"topic": one.topic, "setting": one.setting, "wanted": one.wanted, "found": one.found}
                for one in self.differences
            ],
            "reads": [one.as_dict() for one in self.reads],
            "leaves": [one.as_dict() for one in self.leaves],
        }


def propose(
    cluster: Cluster, registry: RegistryClient, own: Project, *, prune: bool, run_code: bool = False
) -> Proposal:
    """What these manifests would change, judged beside what is applied and stays. With `prune` what they do not have goes.

    Code of `python` steps is read, and executed only with `run_code`. Raises `ManifestError` with every problem, a schema that
    breaks its readers among them.
    """
    seen = read_state(cluster.kafka, cluster.names)
    judged, after, changes = _planned(own, seen.manifests, registry, prune=prune, run_code=run_code)
    project = judged.project
    touched = {change.name for change in changes if change.kind in PIPELINE_KINDS and change.action != "delete"}
    refuse_unable(cluster, project, sorted(touched))
    schemas = _schemas(project)
    new_schemas = _new_schemas(project, registry, schemas)
    plans = declared_topics(project)
    existing = topic_states(cluster.kafka, [one.name for one in plans])
    return Proposal(
        project,
        own,
        seen,
        prune,
        after,
        changes,
        [one.name for one in plans if one.name not in existing],
        new_schemas,
        schemas,
        ensure_topics(cluster.kafka, [one for one in plans if one.name in existing]),
        _reads(cluster, project, changes),
        remains_of(cluster.kafka, cluster.names, _deleted(changes)),
        not_run=judged.not_run,
    )


def carry_out(cluster: Cluster, registry: RegistryClient, proposal: Proposal) -> list[Change]:
    """Creates the topics, registers the schemas, and applies the manifests in one transaction, in this order.

    Returns the changes of manifests that it made: what somebody else made just so meanwhile is not among them.
    A failure on the way leaves topics and schemas that the next attempt finds, and no manifest applied. Raises `ConflictError`
    where what is applied has moved since the proposal was made, so that it would do something else now.
    """
    ensure_topics(cluster.kafka, [*internal_topics(cluster.names), *declared_topics(proposal.project)])
    for subject, level in proposal.project.levels():
        _set_level(cluster, registry, subject, level)
    wanted = [(proposal.project.subject_of(topic), schema) for topic, schema in proposal.schemas.items()]
    with _registering(cluster, proposal.new_schemas):
        _side_by_side(lambda one: registry.register(*one), wanted)
    made: list[Change] = []
    if proposal.changes:

        def replan(now: Mapping[str, dict[str, Any]]) -> list[Change]:
            return _planned(proposal.own, now, registry, prune=proposal.prune)[2]

        made = write_changes(
            cluster.kafka,
            cluster.names,
            proposal.changes,
            proposal.after,
            by=cluster.actor,
            seen=proposal.seen,
            replan=replan,
        )
        mark_removed(cluster.kafka, cluster.names, _deleted(proposal.changes))
    return made


@contextmanager
def _registering(cluster: Cluster, subjects: Sequence[str]) -> Iterator[None]:
    """New versions of schemas are a call to a registry, which may be anybody's and knows nobody's name."""
    if not subjects:
        yield
        return
    entry = Entry(time.time(), cluster.actor, "schema.register", "", {"subjects": list(subjects)}, subject="Registry")
    with announced(cluster.kafka, cluster.names, entry):
        yield


def _set_level(cluster: Cluster, registry: RegistryClient, subject: str, level: str) -> None:
    before = registry.level(subject)
    if before == level:
        return
    details = {"before": before, "after": level}
    entry = Entry(time.time(), cluster.actor, "schema.level", "", details, subject=f"Subject/{subject}")
    with announced(cluster.kafka, cluster.names, entry):
        registry.set_level(subject, level)


def _deleted(changes: Sequence[Change]) -> dict[str, str]:
    """Kinds by name of the pipelines that these changes delete."""
    gone = (change for change in changes if change.action == "delete")
    return {change.name: change.kind for change in gone if change.kind in PIPELINE_KINDS}


def _reads(cluster: Cluster, project: Project, changes: Sequence[Change]) -> list[FirstRead]:
    """What the pipelines read first that are new, or have an input that is."""
    beginning = [
        change.name
        for change in changes
        if change.action == "create" or any(field == "spec.from" for field, _, _ in change.fields)
    ]
    known = {name: one for name, one in project.pipelines.items() if name in beginning}
    if not known:
        return []
    found = first_reads(cluster.kafka, cluster.names, known.values(), cluster.board.reports())
    created = {change.name for change in changes if change.action == "create"}
    return [one for one in found if one.pipeline in created or one.begins is not Begins.COMMITTED]


def _planned(
    own: Project, before: Mapping[str, dict[str, Any]], registry: RegistryClient, *, prune: bool, run_code: bool = False
) -> tuple[Findings, dict[str, dict[str, Any]], list[Change]]:
    """What is found of the project's manifests beside what is applied and stays, they as data, and what they change.

    Raises `ManifestError`.
    """
    keys = [f"{kind}/{name}" for kind, name in own.origins]
    judged = judge_beside(Findings(own), {} if prune else before, registry, run_code=run_code)
    judged.raise_for_problems()
    everything = as_data(judged.project)
    after = {key: everything[key] for key in keys}
    return judged, after, plan(before, after, prune=prune)


def _schemas(project: Project) -> dict[str, Schema]:
    """Declared and derived schemas by topic. Those of families belong to members that appear later."""
    found: dict[str, Schema] = {}
    problems: list[Problem] = []
    for topic, source in project.schemas.items():
        manifest = project.topic_of(topic)
        if topic.endswith(".*") or source is None or manifest is None:
            continue
        try:
            found[topic] = Schema(source)
        except SchemaError as error:
            problems.append(
                project.origin(manifest).problem(("spec", "schema"), error.message, error.hint, "schema.invalid")
            )
    if problems:
        raise ManifestError(problems)
    return found


def _new_schemas(project: Project, registry: RegistryClient, schemas: Mapping[str, Schema]) -> list[str]:
    """The subjects that get a new version. Raises `ManifestError` that names the pipelines which a change would break."""
    problems, new = [], []
    registered = frozenset(registry.subjects())
    known: list[tuple[str, str, Schema]] = []
    for topic, schema in schemas.items():
        subject = project.subject_of(topic)
        if subject in registered:
            known.append((topic, subject, schema))
        else:
            new.append(subject)
    is_new = _side_by_side(lambda one: not _has(registry, one[1], one[2]), known)
    for (topic, subject, schema), changed in zip(known, is_new, strict=True):
        if not changed:
            continue
        new.append(subject)
        manifest = project.topic_of(topic)
        assert manifest is not None
        readers = _readers(project, topic)
        effect = f"; it would break {', '.join(readers)}" if readers else ""
        problems += [
            project.origin(manifest).problem(
                ("spec", "schema"),
                f"the schema of {topic} breaks with its version {version}: {reason}{effect}",
                "give new fields a default and keep what is read, or write to a new topic",
                "schema.incompatible",
            )
            for version, reason in registry.breaks(subject, schema, manifest.spec.compatibility)
        ]
    if problems:
        raise ManifestError(problems)
    return new


def _has(registry: RegistryClient, subject: str, schema: Schema) -> bool:
    """Whether the subject has the schema as one of its versions."""
    numbers = reversed(registry.versions(subject))
    return any(registry.version(subject, number).fingerprint == schema.fingerprint for number in numbers)


def _side_by_side(ask: Callable[[T], R], about: Iterable[T]) -> list[R]:
    """The answers about each, several asked at a time. Raises what the first of them raises."""
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="asking") as threads:
        return list(threads.map(ask, about))


def _readers(project: Project, topic: str) -> list[str]:
    reading: dict[str, Stream | Sink] = {**project.streams, **project.sinks}
    return sorted(
        name
        for name, pipeline in reading.items()
        if any(topic == one or (one.endswith(".*") and topic.startswith(one[:-1])) for one in pipeline.spec.from_)
    )
