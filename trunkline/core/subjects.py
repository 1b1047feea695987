"""The subjects of a schema registry under which the schemas of a topic's values stand.

A subject is written as a pattern in which `{topic}` and `{record}`, the schema's full name, are filled in. Confluent's three strategies
are `{topic}-value` (TopicNameStrategy, everybody's default), `{record}` (RecordNameStrategy) and `{topic}-{record}`
(TopicRecordNameStrategy): https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/#subject-name-strategy
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DEFAULT_SUBJECT = "{topic}-value"
ANY_SUBJECT = "*"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one topic's values. `patterns` has its own, and those of the topics that records pass into it from, as they are.

    Of a `lenient` one, a topic that the registry knows nothing of is read by the ids alone: for people who look at records.
    """

    topic: str
    patterns: Sequence[str] = (DEFAULT_SUBJECT,)
    lenient: bool = False

    @property
    def any(self) -> bool:
        """Whether every id of the registry is taken."""
        return ANY_SUBJECT in self.patterns

    def of(self, record: str) -> list[str]:
        """The subjects under which a schema of that full name may stand."""
        return [filled(pattern, self.topic, record) for pattern in self.patterns]


def filled(pattern: str, topic: str, record: str) -> str:
    """The subject that a pattern means; that of the topic where it takes any."""
    if pattern == ANY_SUBJECT:
        pattern = DEFAULT_SUBJECT
    return pattern.replace("{topic}", topic).replace("{record}", record)


def pattern_of(text: str) -> str:
    """The pattern, checked. Raises ValueError for one that has another placeholder, or is empty."""
    for found in _PLACEHOLDER.finditer(text):
        if found[1] not in {"topic", "record"}:
            raise ValueError(f"{found[0]!r} is nothing that is filled in: {{topic}} and {{record}} are")
    if not text.strip() or (ANY_SUBJECT in text and text != ANY_SUBJECT):
        raise ValueError("a subject is expected, such as {topic}-value, or * for any")
    return text


def full_name(schema: Any) -> str:
    """The full name of the type that an Avro schema in JSON form defines (Avro 1.12, "Names"); that of the type where it has none."""
    if not isinstance(schema, dict):
        return schema if isinstance(schema, str) else "union"
    name, namespace = schema.get("name"), schema.get("namespace")
    if not isinstance(name, str):
        return str(schema.get("type"))
    return f"{namespace}.{name}" if namespace and "." not in name else name
