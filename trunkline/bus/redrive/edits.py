"""Edits of dead letters: another value for what failed, that fits its topic's schema or is refused with field and reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.redrive.letters import FailedEvent, letter_expression
from trunkline.core.casting import Caster, compile_caster
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.expressions import Expression
from trunkline.core.subjects import Subjects
from trunkline.registry.belonging import Belonging
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.decoders import SubjectsOf
from trunkline.registry.schema import Schema


@dataclass(frozen=True, slots=True)
class Edit:
    """What is changed: the whole value for a `document`, or the fields of `set`, each to the value of a CEL expression over the letter."""

    document: Mapping[str, Any] | None = None
    set: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The edit as data."""
        return {"document": self.document, "set": dict(self.set)}


class Changes:
    """The fields of an edit's `set`, compiled. Raises `ConfigurationError` for a wrong expression."""

    def __init__(self, assignments: Mapping[str, str]) -> None:
        self._assignments: list[tuple[list[str], Expression]] = [
            (path.split("."), letter_expression(text, f"--set {path}")) for path, text in assignments.items()
        ]

    def apply(self, value: Any, letter: DeadLetter) -> None:
        """Changes `value` in place; every expression sees the value as it was. Raises RejectedError that names the field."""
        event = FailedEvent(value, letter)
        found = []
        for path, expression in self._assignments:
            try:
                found.append((path, expression.datum(value, event)))
            except RejectedError as error:
                raise RejectedError(f"{'.'.join(path)}: {error.message}", code="edit.refused") from error
        for path, result in found:
            record = value
            for name in path[:-1]:
                record = record.get(name) if isinstance(record, dict) else None
            if not isinstance(record, dict):
                raise RejectedError(
                    f"{'.'.join(path)}: {'.'.join(path[:-1]) or 'the value'} is no record", code="edit.refused"
                )
            record[path[-1]] = result


@dataclass(frozen=True, slots=True)
class _Target:
    encoder: Encoder
    decoder: Decoder
    caster: Caster


class Editor:
    """Makes edited values of records: encoded with the newest schema of the topic that each came from."""

    def __init__(self, registry: RegistryClient, edit: Edit, subjects_of: SubjectsOf = Subjects) -> None:
        self._registry = registry
        self._subjects_of = subjects_of
        self._document = edit.document
        self._changes = Changes(edit.set)
        self._targets: dict[str, _Target] = {}

    def edited(self, letter: DeadLetter) -> bytes:
        """The new value. Raises RejectedError with the field and the reason where it does not fit the schema."""
        target = self._target(letter)
        if self._document is not None:
            return target.encoder.encode(target.caster(self._document))
        if letter.value is None:
            raise RejectedError("it has no value to change", code="edit.refused")
        _, value = target.decoder.decode(letter.value)
        self._changes.apply(value, letter)
        return target.encoder.encode(value)

    def _target(self, letter: DeadLetter) -> _Target:
        topic = letter.first_origin[0]
        subjects = replace(self._subjects_of(topic), lenient=True)
        belongs = Belonging(self._registry, subjects)
        subject = subjects.of(self._record_of(letter, belongs) if "{record}" in subjects.patterns[0] else "")[0]
        found = self._targets.get(subject)
        if found is None:
            try:
                schema = self._registry.latest(subject)
            except ConfigurationError as error:
                raise RejectedError(
                    f"the topic {topic!r} has no schema: {error.message}", code="edit.refused"
                ) from error
            caster = compile_caster(schema.json, values="json")
            found = self._targets[subject] = _Target(
                Encoder(schema), Decoder(self._registry, reader=schema, belongs=belongs), caster
            )
        return found

    def _record_of(self, letter: DeadLetter, belongs: Callable[[Schema], None]) -> str:
        """The full name of the schema of a letter's value, where the subject follows from that."""
        if letter.value is None:
            raise RejectedError("it has no value that would tell its schema", code="edit.refused")
        return Decoder(self._registry, belongs=belongs).schema_of(letter.value).name


def input_editor(edit: Edit) -> Callable[[DeadLetter], dict[str, Any]]:
    """What a source's quarantine holds as an object: the edit's document, else the raw JSON with the fields of `set` changed.

    The function raises RejectedError for raw input that is no JSON object.
    """
    changes = Changes(edit.set)

    def value_of(letter: DeadLetter) -> dict[str, Any]:
        if edit.document is not None:
            return dict(edit.document)
        try:
            value = orjson.loads(letter.value or b"")
        except orjson.JSONDecodeError as error:
            raise RejectedError(
                f"the raw input is no JSON ({error})", hint="give its value with --edit", code="edit.refused"
            ) from error
        if not isinstance(value, dict):
            raise RejectedError(
                "the raw input is no JSON object", hint="give its value with --edit", code="edit.refused"
            )
        changes.apply(value, letter)
        return value

    return value_of
