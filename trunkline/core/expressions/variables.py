"""What an expression may name: the event and what surrounds it."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.core.expressions.types import DYN, STRING, TIMESTAMP, CelType, map_of, nullable, object_of


class Variable(NamedTuple):
    """A name, its type, and how compiled code reads it: `event` is the first argument, `ctx.NAME` an attribute of the second."""

    name: str
    type: CelType
    access: str


META = object_of(
    "meta",
    {
        "id": STRING,
        "source": STRING,
        "type": STRING,
        "subject": STRING,
        "time": TIMESTAMP,
        "correlation_id": STRING,
        "causation_id": STRING,
    },
)
"""The envelope. An attribute that an event lacks is absent: ask with `has(meta.subject)`."""

STANDARD = (
    Variable("event", DYN, "event"),
    Variable("meta", META, "ctx.meta"),
    Variable("key", nullable(STRING), "ctx.key"),
    Variable("headers", map_of(STRING, STRING), "ctx.headers_map"),
    Variable("topic", STRING, "ctx.topic"),
)
"""What expressions of manifests see: the value of the event, and its envelope, key, headers and topic."""
