"""Whether a schema id belongs to a topic: an id of another registry is a number that means another schema here."""

from __future__ import annotations

import time
from typing import Final, Protocol

from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.subjects import Subjects
from trunkline.registry.schema import Schema

REFUSED_FOR: Final = 10.0
"""Seconds for which an id that is not of a topic's subject is not asked for again: it may be registered there later."""
_MOST_REFUSED: Final = 10_000


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


class Belonging:
    """That values of a topic may have a schema: called with it, whenever a decoder meets one that it does not know. May block."""

    def __init__(self, source: SubjectSource, subjects: Subjects) -> None:
        self._source = source
        self._subjects = subjects
        self._refused: dict[int, tuple[float, RejectedError]] = {}
        """What was refused, and until when (monotonic) it is not asked again: a topic may be full of it."""

    def __call__(self, schema: Schema) -> None:
        """Raises RejectedError (`record.foreign_schema`) that names both the schema and the topic's subject.

        A topic of which the registry has no subject at all is ConfigurationError (`schema.no_subject`): none of its records could be
        trusted, so none is judged.
        """
        if self._subjects.any:
            return
        schema_id = schema.id or 0
        refused = self._refused.get(schema_id)
        if refused is not None and time.monotonic() < refused[0]:
            raise refused[1].with_traceback(None)
        wanted = self._subjects.of(schema.name)
        if self._is_of_any(schema, wanted):
            self._refused.pop(schema_id, None)
            return
        if any(self._source.has_subject(subject) for subject in wanted):
            error = self._foreign(schema, wanted)
            # Asked last: the version that made the subject known may have come up since the first question.
            if self._is_of_any(schema, wanted):
                self._refused.pop(schema_id, None)
                return
            if len(self._refused) > _MOST_REFUSED:
                self._refused.clear()
            self._refused[schema_id] = (time.monotonic() + REFUSED_FOR, error)
            raise error
        if not self._subjects.lenient:
            raise self._no_subject(schema, wanted)

    def _is_of_any(self, schema: Schema, subjects: list[str]) -> bool:
        return any(self._source.is_of(schema, subject) for subject in subjects)

    def _foreign(self, schema: Schema, wanted: list[str]) -> RejectedError:
        others = self._source.subjects_of(schema)
        return RejectedError(
            f"schema id {schema.id} is {schema.name} of {_listed(others)} in the registry at {self._source.name}, and no version of "
            f"{_either(wanted)}, the subject of the topic {self._subjects.topic}",
            hint="it was written with another registry, or under another subject: register its schema there, or name the subject as "
            "`subject` in the Topic manifest; then redrive",
            code="record.foreign_schema",
        )

    def _no_subject(self, schema: Schema, wanted: list[str]) -> ConfigurationError:
        return ConfigurationError(
            f"the registry at {self._source.name} has no subject {_either(wanted)}, so what schema ids mean in the topic "
            f"{self._subjects.topic} is not known (the first one found, {schema.id}, is {schema.name} there)",
            hint="is it the registry that the topic was written with? If its values stand under another subject, name that as "
            "`subject` in the Topic manifest",
            code="schema.no_subject",
        )


def _either(subjects: list[str]) -> str:
    return " or ".join(dict.fromkeys(subjects))


def _listed(subjects: list[str]) -> str:
    if not subjects:
        return "no subject"
    shown = ", ".join(sorted(subjects)[:3])
    return (
        f"the subject {shown}" if len(subjects) == 1 else f"the subjects {shown}" + (", …" if len(subjects) > 3 else "")
    )
