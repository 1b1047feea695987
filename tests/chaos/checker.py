"""Judges a history: what was lost, repeated, swapped, invented, or committed too early.

Pure functions of a history and of what a route promises. Every finding names the events or offsets it is about.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.history import (
    Acknowledged,
    Attempt,
    Committed,
    DeadLetter,
    Effect,
    Filtered,
    History,
    Owned,
    Placed,
    Sent,
)

SHOWN = 8
CLOCK_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Promise:
    """What a route promises of the events of its doors.

    * `doors`: the doors whose acknowledged events must be settled on this route.
    * `once`: an event has one effect at most; `ordered`: a key's effects come in the order of its sequence.
    * `most_repeats`: how many calls there may be beyond one for each event; None for any number.
    * `dead_once`: an event has one dead letter at most.
    """

    route: str
    doors: tuple[str, ...]
    once: bool = True
    ordered: bool = True
    most_repeats: int | None = None
    dead_once: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: what, on which route, and the events or offsets concerned."""

    kind: str
    route: str
    named: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.named) - SHOWN} more" if len(self.named) > SHOWN else ""
        return f"{self.route}: {self.kind}, {len(self.named)}: {', '.join(self.named[:SHOWN])}{more}"


def check(history: History, promises: Iterable[Promise]) -> list[Finding]:
    """Everything that is wrong with a history."""
    return [finding for promise in promises for rule in RULES for finding in rule(history, promise)]


def losses(history: History, promise: Promise) -> Iterator[Finding]:
    """Acknowledged, and after draining in none of effects, dead letters and what the ledger filtered."""
    settled = _settled_at(history, promise.route)
    acknowledged = dict.fromkeys(fact.id for fact in history.of(Acknowledged) if fact.door in promise.doors)
    yield from _found("lost", promise, (one for one in acknowledged if one not in settled))


def repeated_effects(history: History, promise: Promise) -> Iterator[Finding]:
    """More than one effect of an event."""
    if promise.once:
        counts = Counter(fact.id for fact in history.of(Effect) if fact.route == promise.route)
        yield from _found("more than one effect", promise, (one for one, times in counts.items() if times > 1))


def repeated_attempts(history: History, promise: Promise) -> Iterator[Finding]:
    """More calls beyond one for each event than the faults account for."""
    if promise.most_repeats is None:
        return
    counts = Counter(fact.id for fact in history.of(Attempt) if fact.route == promise.route)
    repeats = counts.total() - len(counts)
    if repeats > promise.most_repeats:
        kind = f"{repeats} repeated calls where {promise.most_repeats} are accounted for"
        yield from _found(kind, promise, (one for one, times in counts.items() if times > 1))


def repeated_dead_letters(history: History, promise: Promise) -> Iterator[Finding]:
    """More than one dead letter of an event."""
    if promise.dead_once:
        counts = Counter(fact.id for fact in history.of(DeadLetter) if fact.route == promise.route)
        yield from _found("more than one dead letter", promise, (one for one, times in counts.items() if times > 1))


def swaps(history: History, promise: Promise) -> Iterator[Finding]:
    """A key's first effect of a later event comes before that of an earlier one."""
    if not promise.ordered:
        return
    first: dict[str, int] = {}
    for place, fact in enumerate(one for one in history.of(Effect) if one.route == promise.route):
        first.setdefault(fact.id, place)
    keys: dict[tuple[str, str], list[Sent]] = defaultdict(list)
    for sent in history.of(Sent):
        if sent.id in first:
            keys[sent.door, sent.key].append(sent)
    swapped = []
    for sents in keys.values():
        in_order = sorted(sents, key=lambda sent: sent.sequence)
        for earlier, later in pairwise(in_order):
            if first[later.id] < first[earlier.id]:
                swapped.append(f"{later.id} before {earlier.id}")
    yield from _found("swapped", promise, swapped)


def phantoms(history: History, promise: Promise) -> Iterator[Finding]:
    """An effect or a dead letter of something that nobody sent through this route's doors."""
    sent = {fact.id for fact in history.of(Sent) if fact.door in promise.doors}
    for kind, facts in (("effect", history.of(Effect)), ("dead letter", history.of(DeadLetter))):
        found = dict.fromkeys(fact.id for fact in facts if fact.route == promise.route)
        yield from _found(f"phantom {kind}", promise, (one for one in found if one not in sent))


def altered_dead_letters(history: History, promise: Promise) -> Iterator[Finding]:
    """A dead letter that is not its event, byte for byte: value, key, and every header that the event had."""
    sent = {fact.id: fact for fact in history.of(Sent)}
    altered: dict[str, None] = {}
    for letter in history.of(DeadLetter):
        event = sent.get(letter.id)
        if letter.route != promise.route or event is None:
            continue
        same = (letter.value, letter.raw_key) == (event.value, event.raw_key)
        if not same or letter.headers[: len(event.headers)] != event.headers:
            altered[letter.id] = None
    yield from _found("dead letter altered", promise, altered)


def early_commits(history: History, promise: Promise) -> Iterator[Finding]:
    """A commit beyond an event that was not settled at that moment."""
    settled = _settled_at(history, promise.route)
    records = _records(history, promise.route)
    early = []
    for place, commits in _commits(history, promise.route).items():
        # Records by offset, and for each the latest moment at which it and all before it were settled.
        waiting = iter(records.get(place, ()))
        record, latest, held = next(waiting, None), float("-inf"), ""
        for commit in sorted(commits, key=lambda one: (one.offset, one.at)):
            while record is not None and record.offset < commit.offset:
                moment = settled.get(record.id, float("inf"))
                if moment > latest:
                    latest, held = moment, f"{record.id} at {record.offset}"
                record = next(waiting, None)
            if latest > commit.at:
                early.append(f"{_shown(place)}@{commit.offset} beyond {held}")
    yield from _found("committed before it was settled", promise, early)


def backward_commits(history: History, promise: Promise) -> Iterator[Finding]:
    """A commit below an earlier one: somebody who no longer owned the partition wrote it."""
    backward = []
    for place, commits in _commits(history, promise.route).items():
        for before, after in pairwise(commits):
            if after.offset < before.offset:
                backward.append(f"{_shown(place)}@{before.offset} then @{after.offset}")
    yield from _found("committed backwards", promise, backward)


def foreign_commits(history: History, promise: Promise) -> Iterator[Finding]:
    """A commit by a member that did not own the partition at that moment.

    A member commits, and lets go once the broker has answered: where nobody has the partition yet, its last commit and its
    letting go may stand in the wrong order by what two clocks differ, of which the broker's shows whole milliseconds.
    """
    owners: dict[tuple[str, int], list[Owned]] = defaultdict(list)
    for owned in history.of(Owned):
        if owned.route == promise.route:
            owners[owned.topic, owned.partition].append(owned)
    foreign = []
    for place, commits in _commits(history, promise.route).items():
        for commit in commits:
            held = [one for one in owners.get(place, ()) if one.at <= commit.at]
            if not commit.by or not held or held[-1].member == commit.by:
                continue
            just_gone = not held[-1].member and len(held) > 1 and held[-2].member == commit.by
            if not just_gone or commit.at - held[-1].at > CLOCK_SECONDS:
                foreign.append(
                    f"{_shown(place)}@{commit.offset} by {commit.by}, owned by {held[-1].member or 'nobody'}"
                )
    yield from _found("committed by a non-owner", promise, foreign)


def wrong_ledgers(history: History, promise: Promise) -> Iterator[Finding]:
    """A commit whose ledger does not account for exactly the records below it."""
    records = _records(history, promise.route)
    wrong = []
    for place, commits in _commits(history, promise.route).items():
        for commit in commits:
            if commit.read is None:
                continue
            if commit is commits[-1]:
                below = sum(commit.first <= one.offset < commit.offset for one in records.get(place, ()))
                if commit.read != below:
                    wrong.append(f"{_shown(place)}@{commit.offset} read {commit.read} of {below}")
            if commit.settled != commit.read:
                wrong.append(f"{_shown(place)}@{commit.offset} settled {commit.settled} of {commit.read}")
    yield from _found("the ledger does not close", promise, wrong)


RULES: tuple[Callable[[History, Promise], Iterator[Finding]], ...] = (
    losses,
    repeated_effects,
    repeated_attempts,
    repeated_dead_letters,
    swaps,
    phantoms,
    altered_dead_letters,
    early_commits,
    backward_commits,
    foreign_commits,
    wrong_ledgers,
)


def _found(kind: str, promise: Promise, named: Iterable[str]) -> Iterator[Finding]:
    names = tuple(named)
    if names:
        yield Finding(kind, promise.route, names)


def _settled_at(history: History, route: str) -> dict[str, float]:
    """When each event was settled on a route for the first time."""
    settled: dict[str, float] = {}
    facts: list[Effect | DeadLetter | Filtered] = [
        *history.of(Effect),
        *history.of(DeadLetter),
        *history.of(Filtered),
    ]
    for fact in facts:
        if fact.route == route and fact.at < settled.get(fact.id, float("inf")):
            settled[fact.id] = fact.at
    return settled


def _records(history: History, route: str) -> dict[tuple[str, int], list[Placed]]:
    """The records of the partitions that a route committed, by offset."""
    places = {(commit.topic, commit.partition) for commit in history.of(Committed) if commit.route == route}
    found: dict[tuple[str, int], list[Placed]] = defaultdict(list)
    for fact in history.of(Placed):
        if (fact.topic, fact.partition) in places:
            found[fact.topic, fact.partition].append(fact)
    return {place: sorted(facts, key=lambda fact: fact.offset) for place, facts in found.items()}


def _commits(history: History, route: str) -> dict[tuple[str, int], list[Committed]]:
    """A route's commits by partition, in the order they were made."""
    found: dict[tuple[str, int], list[Committed]] = defaultdict(list)
    for fact in history.of(Committed):
        if fact.route == route:
            found[fact.topic, fact.partition].append(fact)
    return found


def _shown(place: tuple[str, int]) -> str:
    return f"{place[0]}[{place[1]}]"
