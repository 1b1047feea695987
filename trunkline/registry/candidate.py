"""A schema that a client sent, judged: read, put into the registry's form, compared with the versions that it has to agree with.

Judging takes time and is counted in steps. It is done away from the thread that writes, and what was found is kept, so that a decision
on a state that has hardly changed meanwhile only looks it up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from trunkline.registry import errors
from trunkline.registry.canonical import canonical_text, normalised
from trunkline.registry.compatibility import LEVELS, Incompatibility, breaks
from trunkline.registry.errors import RegistryError
from trunkline.registry.model import AvroType, SchemaError, parse_schema, parse_type
from trunkline.registry.references import MAX_REFERENCES, decoded, decoded_text, resolved
from trunkline.registry.schema import decode_json
from trunkline.registry.schema_error import TooCostlyError
from trunkline.registry.state import Reference, SchemaKey, State, Version
from trunkline.registry.steps import Steps

_Read = tuple[SchemaKey, ...]
"""The schemas that were read for something: while they are the same, what was found holds."""
_SHOWN_LETTERS = 2000


class UnjudgedError(Exception):
    """What a decision needs to know is not found out yet."""


class Candidate(NamedTuple):
    """The registry's text of a schema, and the type."""

    key: SchemaKey
    type: AvroType


class Judgement:
    """What is known of one schema that was sent. Its methods find out what they need, unless they are told not to."""

    def __init__(self, body: dict[str, Any], *, normalize: bool = False, steps: Steps | None = None) -> None:
        """`body` is the request's: `schema`, `schemaType`, `references`. Raises RegistryError 42201 for what has not that form."""
        kind, self._text = body.get("schemaType"), body.get("schema")
        if kind not in (None, "AVRO"):
            raise RegistryError(errors.INVALID_SCHEMA, f"This registry holds Avro schemas only, not {str(kind)[:40]!r}")
        if not isinstance(self._text, str) or not self._text:
            raise RegistryError(errors.INVALID_SCHEMA, "Empty schema")
        self.references = _references(body.get("references"))
        self.steps = steps or Steps()
        self._normalize = normalize
        self.hopeless = False
        """Whether what was refused is refused on any state of the registry."""
        self._read: tuple[_Read, Candidate | RegistryError] | None = None
        self._breaks: dict[tuple[str, _Read], list[Incompatibility]] = {}

    def candidate(self, state: State, *, known: bool = False) -> Candidate:
        """The schema as the registry would keep it.

        Raises RegistryError 42201 for one that is not valid Avro, and UnjudgedError where it is not `known` beforehand.
        """
        try:
            used = resolved(state, self.references)
        except SchemaError as error:
            raise _invalid(error) from error
        read = tuple(version.schema for version in used)
        if self._read is None or self._read[0] != read:
            if known:
                raise UnjudgedError
            self._read = (read, self._judged(used))
        found = self._read[1]
        if isinstance(found, RegistryError):
            raise found.with_traceback(None)
        return found

    def _judged(self, used: Sequence[Version]) -> Candidate | RegistryError:
        try:
            source = decode_json(self._text)
            schema = parse_schema(source, decoded(used, self.steps), steps=self.steps)
            stored = normalised(schema) if self._normalize else canonical_text(source)
        except (SchemaError, RecursionError) as error:
            self.hopeless = not self.references or isinstance(error, TooCostlyError)
            return _invalid(error)
        references = tuple(sorted(self.references)) if self._normalize else self.references
        return Candidate(SchemaKey(stored, references), schema.type)

    def incompatible(
        self, state: State, level: str, versions: Sequence[Version], *, known: bool = False
    ) -> list[tuple[Version, Incompatibility]]:
        """Every break with those versions that the level has it agree with: the latest, or all.

        Raises RegistryError 42201 where that costs too much or a version can't be read, and UnjudgedError as `candidate` does.
        """
        if level == "NONE":
            return []
        held = versions if level.endswith("_TRANSITIVE") else versions[-1:]
        return [(each, found) for each in reversed(held) for found in self._broken(state, level, each, known)]

    def _broken(self, state: State, level: str, old: Version, known: bool) -> list[Incompatibility]:
        sent = self.candidate(state, known=known)
        try:
            used = resolved(state, old.schema.references)
            key = (level, (sent.key, old.schema, *(version.schema for version in used)))
            found = self._breaks.get(key)
            if found is None:
                if known:
                    raise UnjudgedError
                # What was let in once is not questioned again.
                source = decoded_text(old.schema.text, self.steps)
                before = parse_type(source, decoded(used, self.steps), strict=False, steps=self.steps)
                direction = next(each for each in LEVELS if each == level)
                found = self._breaks[key] = breaks(sent.type, before, direction, self.steps)
        except TooCostlyError as error:
            self.hopeless = True
            raise _invalid(error) from error
        except SchemaError as error:
            raise RegistryError(
                errors.INVALID_SCHEMA,
                f"Version {old.version} of the subject can't be read, so nothing can be compared with it: {_cut(str(error))}",
            ) from error
        return found


def _references(found: Any) -> tuple[Reference, ...]:
    try:
        made = tuple(Reference(str(each["name"]), str(each["subject"]), int(each["version"])) for each in found or ())
        for each in made:
            f"{each.name}{each.subject}".encode()
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RegistryError(
            errors.INVALID_SCHEMA, "Invalid schema: each reference needs `name`, `subject` and `version`"
        ) from error
    if len(made) > MAX_REFERENCES:
        raise RegistryError(errors.INVALID_SCHEMA, f"Invalid schema: it has more than {MAX_REFERENCES} references")
    return made


def _invalid(error: Exception) -> RegistryError:
    return RegistryError(errors.INVALID_SCHEMA, f"Invalid schema: {_cut(str(error))}")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…"
