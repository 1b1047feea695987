"""Ten bad histories, each a good one in which one thing was made wrong: what the checker must not overlook."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.chaos.checker import Promise
from tests.chaos.history import (
    Acknowledged,
    Attempt,
    Committed,
    DeadLetter,
    Effect,
    Fact,
    Filtered,
    History,
    Owned,
    Placed,
    Sent,
)

DOOR, ROUTE, TOPIC, COUNT, KEYS = "door", "route", "topic", 60, 5
PROMISE = Promise(ROUTE, (DOOR,), most_repeats=COUNT // 10, dead_once=True)
Plant = Callable[[list[Fact], random.Random], str]
"""Makes a history wrong, and says what kind of finding that must be."""


def good_history() -> list[Fact]:
    """Events through one route: most have an effect, some are dead letters, some are filtered; a few calls were repeated."""
    facts: list[Fact] = [Owned(ROUTE, TOPIC, 0, "a member", 0.0)]
    for number in range(COUNT):
        one, at = f"e{number}", float(number)
        value, headers = f"value {number}".encode(), (("ce_id", one.encode()),)
        key = f"k{number % KEYS}"
        facts += [
            Sent(one, DOOR, key, number // KEYS, at, value, key.encode(), headers),
            Acknowledged(one, DOOR, at + 0.1, "the broker"),
            Placed(one, TOPIC, 0, number, at + 0.1),
        ]
        if number % 10 == 3:
            kept = (*headers, ("added later", b""))
            facts += [Attempt(one, ROUTE, at), DeadLetter(one, ROUTE, at + 0.3, value, key.encode(), kept)]
        elif number % 10 == 7:
            facts.append(Filtered(one, ROUTE, at + 0.3))
        else:
            repeated = [Attempt(one, ROUTE, at)] * (number % 10 == 5)
            facts += [*repeated, Attempt(one, ROUTE, at + 0.2), Effect(one, ROUTE, at + 0.3)]
        if number % 4 == 3:
            read = number + 1
            facts.append(Committed(ROUTE, TOPIC, 0, read, at + 0.5, "a member", 0, read, read))
    return facts


def _places(facts: list[Fact], kind: type[Fact]) -> list[int]:
    return [place for place, fact in enumerate(facts) if isinstance(fact, kind)]


def lost(facts: list[Fact], chance: random.Random) -> str:
    """An effect never came about."""
    del facts[chance.choice(_places(facts, Effect))]
    return "lost"


def lost_when_filtered(facts: list[Fact], chance: random.Random) -> str:
    """The ledger does not know of an event that was left out."""
    del facts[chance.choice(_places(facts, Filtered))]
    return "lost"


def effect_twice(facts: list[Fact], chance: random.Random) -> str:
    """An effect came about a second time."""
    effect = facts[chance.choice(_places(facts, Effect))]
    facts.append(effect)
    return "more than one effect"


def called_too_often(facts: list[Fact], chance: random.Random) -> str:
    """More calls were repeated than the faults account for."""
    attempt = facts[chance.choice(_places(facts, Attempt))]
    facts += [attempt] * (COUNT // 10)
    return "repeated calls"


def swapped(facts: list[Fact], chance: random.Random) -> str:
    """A later event of a key had its effect before an earlier one."""
    key = f"k{chance.randrange(KEYS)}"
    mine = {fact.id for fact in facts if isinstance(fact, Sent) and fact.key == key}
    effects = [place for place in _places(facts, Effect) if getattr(facts[place], "id", "") in mine]
    at = chance.randrange(len(effects) - 1)
    first, second = effects[at], effects[at + 1]
    facts[first], facts[second] = facts[second], facts[first]
    return "swapped"


def phantom(facts: list[Fact], _chance: random.Random) -> str:
    """Something had an effect that nobody sent."""
    facts.append(Effect("e-nobody-sent", ROUTE, 1.0))
    return "phantom effect"


def committed_early(facts: list[Fact], chance: random.Random) -> str:
    """An offset was committed before the effect of a record below it."""
    place = chance.choice(_places(facts, Effect)[:-10])
    effect = facts[place]
    assert isinstance(effect, Effect)
    facts[place] = replace(effect, at=effect.at + 20)
    return "committed before it was settled"


def committed_backwards(facts: list[Fact], chance: random.Random) -> str:
    """A commit took another one back."""
    commits = _places(facts, Committed)
    commit = facts[chance.choice(commits[:-1])]
    facts.append(commit)
    return "committed backwards"


def committed_by_a_zombie(facts: list[Fact], chance: random.Random) -> str:
    """A member committed a partition that another one owned by then."""
    place = chance.choice(_places(facts, Committed))
    commit = facts[place]
    assert isinstance(commit, Committed)
    facts.insert(1, Owned(ROUTE, TOPIC, 0, "another member", commit.at - 0.01))
    facts.insert(2, Owned(ROUTE, TOPIC, 0, "a member", commit.at + 0.01))
    return "committed by a non-owner"


def dead_letter_altered(facts: list[Fact], chance: random.Random) -> str:
    """A dead letter lost a byte, its key, or a header."""
    place = chance.choice(_places(facts, DeadLetter))
    letter = facts[place]
    assert isinstance(letter, DeadLetter)
    assert letter.value is not None
    facts[place] = chance.choice(
        [replace(letter, value=letter.value[:-1]), replace(letter, raw_key=None), replace(letter, headers=())]
    )
    return "dead letter altered"


PLANTS: tuple[Plant, ...] = (
    lost,
    lost_when_filtered,
    effect_twice,
    called_too_often,
    swapped,
    phantom,
    committed_early,
    committed_backwards,
    committed_by_a_zombie,
    dead_letter_altered,
)


def planted(plant: Plant, chance: random.Random) -> tuple[History, str]:
    """A bad history, and what must be found in it."""
    facts = good_history()
    kind = plant(facts, chance)
    return History(facts), kind
