"""The schemas that a schema refers to: each once, after those that it refers to itself."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Final, TypeVar

from trunkline.registry.schema import decode_json
from trunkline.registry.schema_error import SchemaError
from trunkline.registry.state import Reference, State, Version
from trunkline.registry.steps import Steps

K = TypeVar("K", bound=Hashable)
R = TypeVar("R")
T = TypeVar("T")
MAX_REFERENCES: Final = 1000
"""The most schemas that one may refer to, itself and through others."""
_LETTERS: Final = 64
"""Letters of a text that count as a step when it is decoded."""


def in_order(
    references: Iterable[R], key_of: Callable[[R], K], load: Callable[[R, K], tuple[T, Iterable[R]]]
) -> list[T]:
    """What references lead to, each after what it refers to itself. What several refer to (a diamond) is loaded once.

    `load` gives what a reference means and what that refers to. Raises SchemaError for more than `MAX_REFERENCES`.
    """
    found: list[T] = []
    begun: set[K] = set()
    path: list[tuple[T | None, Iterator[R]]] = [(None, iter(references))]
    while path:
        owner, waiting = path[-1]
        ref = next(waiting, None)
        if ref is None:
            path.pop()
            if owner is not None:
                found.append(owner)
            continue
        key = key_of(ref)
        if key in begun:
            continue
        begun.add(key)
        if len(begun) > MAX_REFERENCES:
            raise SchemaError(f"it refers to more than {MAX_REFERENCES} schemas, itself and through others")
        loaded, below = load(ref, key)
        path.append((loaded, iter(below)))
    return found


def resolved(state: State, references: Iterable[Reference]) -> tuple[Version, ...]:
    """The versions that these references mean, in the order in which they are to be read.

    Raises SchemaError for one that is missing, and for too many.
    """

    def load(ref: Reference, place: tuple[str, int]) -> tuple[Version, Iterable[Reference]]:
        found = state.subjects.get(place[0], {}).get(place[1])
        if found is None:
            raise SchemaError(
                f"the reference {ref.name} to subject {ref.subject!r} version {ref.version} can't be found"
            )
        return found, found.schema.references

    def place_of(ref: Reference) -> tuple[str, int]:
        newest = max(state.subjects.get(ref.subject, {}), default=0) if ref.version == -1 else ref.version
        return ref.subject, newest

    return tuple(in_order(references, place_of, load))


def decoded(versions: Iterable[Version], steps: Steps) -> list[Any]:
    """Their schemas as decoded JSON."""
    return [decoded_text(version.schema.text, steps) for version in versions]


def decoded_text(text: str, steps: Steps) -> Any:
    """A schema that was registered as decoded JSON. Its length counts."""
    steps.take(1 + len(text) // _LETTERS)
    return decode_json(text)
