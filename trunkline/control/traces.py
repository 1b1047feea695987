"""What happened to events on their way."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.bus.accounting.trace import Hop, find_all_hops
from trunkline.control.cluster import Cluster
from trunkline.control.eventsearch import MOST, FoundEvent, Looked, Search, by_key, search, search_id
from trunkline.control.filters import record_filter
from trunkline.control.topics import event_topics, require_topic
from trunkline.core.envelope import made_at
from trunkline.core.errors import CheckFailedError

_SKEW_MS = 3_600_000
"""Nothing happens to an event before its id was made, but for clocks that differ."""


@dataclass(frozen=True, slots=True)
class Way:
    """An event that was found, and every hop of its correlation id: none where the trace is not so old any more."""

    event: FoundEvent
    hops: list[Hop]

    def as_dict(self) -> dict[str, Any]:
        """The way as data."""
        return {**self.event.as_dict(), "hops": [hop.as_dict() for hop in self.hops]}


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways of the events that a search found, the oldest first; `more` were found besides."""

    ways: list[Way]
    more: int
    looked: Looked

    def as_dict(self) -> dict[str, Any]:
        """The ways as data."""
        return {"events": [way.as_dict() for way in self.ways], "more": self.more, "looked_at": self.looked.as_dict()}


def hops(cluster: Cluster, correlation_id: str, *, seconds: float | None = None) -> list[Hop]:
    """Every hop of an event in their order, of the last `seconds` alone where that is given.

    Raises `CheckFailedError` (`trace.unknown`) where there is none.
    """
    found = _hops(cluster, [correlation_id], seconds)[correlation_id]
    if not found:
        raise CheckFailedError(
            f"the trace has no hop of {correlation_id}",
            hint="it keeps seven days; ids are compared letter by letter. An event's own id, its key, or what is true of it finds it too: "
            "`trunkline trace --id`, `--key`, `--where`",
            code="trace.unknown",
        )
    return found


def ways_where(
    cluster: Cluster, topic: str, text: str, *, seconds: float | None = None, most: int = MOST, where: str = "--where"
) -> Ways:
    """The ways of the last events of a topic for which an expression is true. Raises `ConfigurationError` for a wrong expression, and
    `CheckFailedError` where none was found."""
    require_topic(cluster, topic)
    with cluster.registry() as registry:
        holds = record_filter(registry, topic, text, where)
        found = search(
            cluster,
            [topic],
            lambda event: holds(event.value, event),
            registry=registry,
            since=_since(seconds),
            most=most,
        )
    doubt = f". It could not be evaluated on {holds.unjudged}: {holds.first_unjudged}" if holds.unjudged else ""
    return _ways(cluster, found, f"for which {text} is true", seconds, doubt)


def ways_of_key(cluster: Cluster, topic: str, key: str, *, seconds: float | None = None, most: int = MOST) -> Ways:
    """The same of the last events with a key."""
    require_topic(cluster, topic)
    found = search(cluster, [topic], by_key(key), registry=None, since=_since(seconds), most=most)
    return _ways(cluster, found, f"with the key {key}", seconds)


def ways_of_id(cluster: Cluster, topic: str | None, identity: str, *, most: int = MOST) -> Ways:
    """The same of the events with an id, in one topic or in all that hold events of the namespace."""
    topics: Sequence[str] = [topic] if topic is not None else event_topics(cluster)
    if topic is not None:
        require_topic(cluster, topic)
    return _ways(cluster, search_id(cluster, topics, identity, most=most), f"with the id {identity}", None)


def _ways(cluster: Cluster, found: Search, what: str, seconds: float | None, doubt: str = "") -> Ways:
    if not found.events:
        hints = ["--most looks at more records"] if found.looked.older or found.looked.left else []
        hints += ["`has(event.x)` asks for a field that may be missing"] if doubt else []
        raise CheckFailedError(
            f"there is no event {what}: {found.looked}{doubt}",
            hint="; ".join(hints) or None,
            code="trace.no_event",
        )
    hops = _hops(cluster, {event.correlation_id for event in found.events}, seconds)
    # An event stands in every topic that it came through, each time with the same correlation id: its way is shown once.
    first = {event.correlation_id: event for event in reversed(found.events)}
    ways = [Way(event, hops[event.correlation_id]) for event in found.events if first[event.correlation_id] is event]
    return Ways(ways, found.more, found.looked)


def _hops(cluster: Cluster, identities: Sequence[str] | set[str], seconds: float | None) -> dict[str, list[Hop]]:
    """The hops of correlation ids. Of those that say when they were made the trace before that is not read, unless it has nothing since."""
    kafka, topic, since = cluster.kafka, cluster.names.trace, _since(seconds)
    if since is None:
        made = [made_at(identity) for identity in identities]
        known = [one for one in made if one is not None]
        if len(known) == len(made):
            found = find_all_hops(kafka, topic, identities, since_ms=min(known) - _SKEW_MS)
            if all(found.values()):
                return found
    return find_all_hops(kafka, topic, identities, since_ms=since)


def _since(seconds: float | None) -> int | None:
    return None if seconds is None else int((time.time() - seconds) * 1000)
