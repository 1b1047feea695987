"""Whether a schema id belongs to a topic: an id of another registry is a number that means another schema here."""

from __future__ import annotations

from typing import Protocol

from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.subjects import Subjects
from trunkline.registry.schema import Schema


class SubjectSource(Protocol):
    """Who knows the subjects of a registry. Every method may block, and raises RetriableError where the registry can't be asked."""

    @property
    def name(self) -> str:
        """What the registry is called in messages."""

    def is_of(self, schema: Schema, subject: str) -> bool:
        """Whether the schema's id is that of a version of the subject, deleted softly or not."""

    def subjects_of(self, schema: Schema) -> list[str]:
        """The subjects that the schema's id belongs to."""

    def has_subject(self, subject: str) -> bool:
        """Whether there is a version of the subject, deleted softly or not."""


def require_belonging(schema: Schema, source: SubjectSource, subjects: Subjects) -> None:
    """That values of a topic may have this schema.

    Raises RejectedError (`record.foreign_schema`) that names both the schema and the topic's subject. A topic of which the registry
    has no subject at all is ConfigurationError (`schema.no_subject`): none of its records could be trusted, so none is judged.
    """
    if subjects.any:
        return
    wanted = subjects.of(schema.name)
    if any(source.is_of(schema, subject) for subject in wanted):
        return
    shown = " or ".join(dict.fromkeys(wanted))
    if not any(source.has_subject(subject) for subject in wanted):
        if subjects.lenient:
            return
        raise ConfigurationError(
            f"the registry at {source.name} has no subject {shown}, so what schema ids mean in the topic {subjects.topic} is not known "
            f"(the first one found, {schema.id}, is {schema.name} there)",
            hint="is it the registry that the topic was written with? If its values stand under another subject, name that as "
            "`subject` in the Topic manifest",
            code="schema.no_subject",
        )
    others = source.subjects_of(schema)
    raise RejectedError(
        f"schema id {schema.id} is {schema.name} of {_listed(others)} in the registry at {source.name}, and no version of {shown}, "
        f"the subject of the topic {subjects.topic}",
        hint="it was written with another registry, or under another subject: register its schema there, or name the subject as "
        "`subject` in the Topic manifest; then redrive",
        code="record.foreign_schema",
    )


def _listed(subjects: list[str]) -> str:
    if not subjects:
        return "no subject"
    shown = ", ".join(sorted(subjects)[:3])
    return (
        f"the subject {shown}" if len(subjects) == 1 else f"the subjects {shown}" + (", …" if len(subjects) > 3 else "")
    )
