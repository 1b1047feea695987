"""The schemas that a schema refers to: each once, after those that it refers to itself."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from trunkline.registry.schema import decode_json
from trunkline.registry.schema_error import SchemaError
from trunkline.registry.state import Reference, State, Version
from trunkline.registry.steps import Steps

MAX_REFERENCES: Final = 1000
"""The most schemas that one may refer to, itself and through others."""
_LETTERS: Final = 64
"""Letters of a text that count as a step when it is decoded."""


def resolved(state: State, references: Iterable[Reference]) -> tuple[Version, ...]:
    """The versions that these references mean, in the order in which they are to be read.

    A version that several refer to (a diamond) is there once. Raises SchemaError for one that is missing, and for too many.
    """
    found: dict[tuple[str, int], Version] = {}
    begun: set[tuple[str, int]] = set()
    path = [iter(references)]
    owners: list[Version | None] = [None]
    while path:
        ref = next(path[-1], None)
        if ref is None:
            path.pop()
            owner = owners.pop()
            if owner is not None:
                found[owner.subject, owner.version] = owner
            continue
        version = _version(state, ref)
        place = (version.subject, version.version)
        if place in begun:
            continue
        begun.add(place)
        if len(begun) > MAX_REFERENCES:
            raise SchemaError(f"it refers to more than {MAX_REFERENCES} schemas, itself and through others")
        path.append(iter(version.schema.references))
        owners.append(version)
    return tuple(found.values())


def decoded(versions: Iterable[Version], steps: Steps) -> list[Any]:
    """Their schemas as decoded JSON."""
    made = []
    for version in versions:
        steps.take(1 + len(version.schema.text) // _LETTERS)
        made.append(decode_json(version.schema.text))
    return made


def _version(state: State, ref: Reference) -> Version:
    versions = state.subjects.get(ref.subject, {})
    number = max(versions, default=0) if ref.version == -1 else ref.version
    found = versions.get(number)
    if found is None:
        raise SchemaError(f"the reference {ref.name} to subject {ref.subject!r} version {ref.version} can't be found")
    return found
