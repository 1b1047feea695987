"""The order in which events flow through the streams of a project."""

from __future__ import annotations

from trunkline.core.manifests import models
from trunkline.core.manifests.problems import Problem
from trunkline.core.manifests.project import Project


def in_flow_order(project: Project, problems: list[Problem]) -> list[models.Stream]:
    """The streams so that each comes after those it reads from. A cycle is a problem."""
    waiting = dict(project.streams)
    ordered: list[models.Stream] = []
    while waiting:
        written = {target.topic for stream in waiting.values() for target in stream.spec.to}
        ready = [
            stream for stream in waiting.values() if not any(_matches(topic, written) for topic in stream.spec.from_)
        ]
        if not ready:
            names = _cycle_members(waiting)
            first = waiting[names[0]]
            problems.append(
                project.origin(first).problem(
                    ("spec", "to"),
                    f"the streams go round in a circle: {' → '.join([*names, names[0]])}",
                    "break it",
                    "manifest.cycle",
                )
            )
            return ordered + list(waiting.values())
        for stream in ready:
            ordered.append(stream)
            del waiting[stream.metadata.name]
    return ordered


def _cycle_members(streams: dict[str, models.Stream]) -> list[str]:
    """One circle of streams: follow who writes what the first one reads until a name comes again."""
    name, seen = next(iter(streams)), []
    while name not in seen:
        seen.append(name)
        topics = streams[name].spec.from_
        name = next(
            other
            for other, stream in streams.items()
            if any(_matches(topic, {target.topic for target in stream.spec.to}) for topic in topics)
        )
    return list(reversed(seen[seen.index(name) :]))


def _matches(topic: str, written: set[str]) -> bool:
    """Whether what is written may arrive at `topic`, where either may be a family."""
    return any(
        other == topic
        or (topic.endswith(".*") and other.startswith(topic[:-1]))
        or (other.endswith(".*") and topic.startswith(other[:-1]))
        for other in written
    )
