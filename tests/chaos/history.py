"""What happened in a run: an append-only list of small facts, each with the moment it was true.

Moments are Unix seconds on one machine's clock. A route is a pipeline whose work is judged, most often a sink; a door is what
took events in: a source, a webhook, a topic that a test wrote to.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Headers = tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """An event was handed to a door. Until it is acknowledged it may be lost; its effect is no phantom.

    `key` and `sequence` say what order it must keep; `value`, `raw_key` and `headers` are its bytes, where a dead letter must
    show them again.
    """

    id: str
    door: str
    key: str = ""
    sequence: int = 0
    at: float = 0.0
    value: bytes | None = None
    raw_key: bytes | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The door took responsibility: a 2xx, an advanced position, a renamed file. `by` says who or what told so."""

    id: str
    door: str
    at: float = 0.0
    by: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A committed record of a topic: where in Kafka an event is."""

    id: str
    topic: str
    partition: int
    offset: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """A call that carried the event to the other system, whatever came of it."""

    id: str
    route: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Effect:
    """The other system's state changed. In the order in which the effects came about."""

    id: str
    route: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """The event is in the route's dead letters, with these bytes and these headers of its own."""

    id: str
    route: str
    at: float = 0.0
    value: bytes | None = None
    raw_key: bytes | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Filtered:
    """The route's ledger says that the event was left out on purpose."""

    id: str
    route: str
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Committed:
    """The route's group committed `offset`: everything below it counts as settled.

    `first`, `read` and `settled` are the ledger in the commit's metadata: where its epoch began, how many records it read, and
    how many of them have a class. `by` is the member, where it is known.
    """

    route: str
    topic: str
    partition: int
    offset: int
    at: float = 0.0
    by: str = ""
    first: int = 0
    read: int | None = None
    settled: int | None = None


@dataclass(frozen=True, slots=True)
class Owned:
    """From now on a member owns a partition of a route; `member` is empty when nobody does."""

    route: str
    topic: str
    partition: int
    member: str
    at: float = 0.0


Fact = Sent | Acknowledged | Placed | Attempt | Effect | DeadLetter | Filtered | Committed | Owned
KINDS: dict[str, type[Fact]] = {
    kind.__name__: kind
    for kind in (Sent, Acknowledged, Placed, Attempt, Effect, DeadLetter, Filtered, Committed, Owned)
}
Kind = TypeVar("Kind")


class History:
    """The facts of a run in the order they were noted. Nothing is ever taken out or changed."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self._facts: dict[type, list[Any]] = {kind: [] for kind in KINDS.values()}
        self.extend(facts)

    def add(self, fact: Fact) -> None:
        """Notes a fact."""
        self._facts[type(fact)].append(fact)

    def extend(self, facts: Iterable[Fact]) -> None:
        """Notes several facts in their order."""
        for fact in facts:
            self.add(fact)

    def of(self, kind: type[Kind]) -> list[Kind]:
        """The facts of one kind, in the order they were noted."""
        return list(self._facts[kind])

    def __iter__(self) -> Iterator[Fact]:
        for facts in self._facts.values():
            yield from facts

    def __len__(self) -> int:
        return sum(map(len, self._facts.values()))

    def save(self, path: Path) -> None:
        """Writes the history as JSON Lines, bytes as Latin-1 text, so that a failed run can be looked into."""
        with path.open("w", encoding="utf-8") as file:
            for fact in self:
                row = {"kind": type(fact).__name__, **dataclasses.asdict(fact)}
                file.write(json.dumps(row, default=_text) + "\n")

    @classmethod
    def load(cls, path: Path) -> History:
        """The history that `save` wrote."""
        with path.open(encoding="utf-8") as file:
            return cls(map(_fact, file))


def _text(value: object) -> str:
    assert isinstance(value, bytes)
    return value.decode("latin-1")


def _fact(line: str) -> Fact:
    row = json.loads(line)
    kind = KINDS[row.pop("kind")]
    for name in ("value", "raw_key"):
        if isinstance(row.get(name), str):
            row[name] = row[name].encode("latin-1")
    if "headers" in row:
        row["headers"] = tuple((name, value.encode("latin-1")) for name, value in row["headers"])
    return kind(**row)
