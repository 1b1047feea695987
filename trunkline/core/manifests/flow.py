"""The order in which events flow through streams, and where they would go round in a circle."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from trunkline.core.manifests.models import Stream


def in_flow_order(streams: Mapping[str, Stream]) -> list[Stream]:
    """The streams so that each comes after those it reads from. Those of a circle come in the order of their names."""
    sorter = TopologicalSorter(_before(streams))
    try:
        return [streams[name] for name in sorter.static_order()]
    except CycleError:
        in_circle = {name for circle in circles(streams) for name in circle}
        rest = {name: stream for name, stream in streams.items() if name not in in_circle}
        return [*(streams[name] for name in sorted(in_circle)), *in_flow_order(rest)]


def circles(streams: Mapping[str, Stream]) -> list[list[str]]:
    """Streams that read what they write, through each other or alone: the names of each circle in the direction of the flow."""
    graph = _before(streams)
    found: list[list[str]] = []
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            # graphlib names each stream after what comes before it, and the first one again at the end.
            circle: list[str] = error.args[1][:-1]
            found.append(circle)
            graph = {name: before - {*circle} for name, before in graph.items() if name not in circle}
        else:
            return found


def _before(streams: Mapping[str, Stream]) -> dict[str, set[str]]:
    """For each stream those that write what it reads."""
    writers: dict[str, set[str]] = {}
    for name, stream in streams.items():
        for target in stream.spec.to:
            writers.setdefault(target.topic, set()).add(name)
    families = [topic for topic in writers if topic.endswith(".*")]
    return {
        name: {writer for topic in stream.spec.from_ for writer in _writing(topic, writers, families)}
        for name, stream in streams.items()
    }


def _writing(topic: str, writers: Mapping[str, set[str]], families: list[str]) -> set[str]:
    """Who may write to `topic`, where either side may be a family."""
    found = set(writers.get(topic, ()))
    for family in families:
        if topic.startswith(family[:-1]):
            found |= writers[family]
    if topic.endswith(".*"):
        for other, names in writers.items():
            if other.startswith(topic[:-1]):
                found |= names
    return found
