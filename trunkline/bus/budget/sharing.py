"""Who gets how much of a limit: weighted max-min fairness in whole requests."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Priority = Literal["low", "normal", "high"]
WEIGHTS: Mapping[Priority, int] = {"low": 1, "normal": 2, "high": 4}
"""What a pipeline of each priority gets of a budget that does not suffice for all, next to the others."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What one worker could use, and the weight of its pipelines that want it."""

    want: int
    weight: int


def shares(limit: int, demands: Mapping[str, Demand], turn: int = 0) -> dict[str, int]:
    """The whole numbers that workers get of `limit`; their sum is `limit` wherever anybody wants something.

    Nobody gets less than its weight's part unless it wants less; what it does not want is divided among those who do, and what
    nobody wants among all, so that a burst finds it there. Where there are fewer requests than workers, `turn` says whose turn it is.
    """
    weights = {name: max(demand.weight, 1) for name, demand in sorted(demands.items()) if demand.want > 0}
    if not weights:
        return dict.fromkeys(demands, 0)
    wants = {name: demands[name].want for name in weights}
    satisfied: dict[str, int] = {}
    left, hungry = limit, dict(weights)
    while hungry:
        total = sum(hungry.values())
        content = [name for name, weight in hungry.items() if wants[name] * total <= left * weight]
        if not content:
            break
        for name in content:
            satisfied[name] = wants[name]
            del hungry[name]
        left = limit - sum(satisfied.values())
    parts = _whole(left, hungry or weights, turn)
    return {name: satisfied.get(name, 0) + parts.get(name, 0) for name in demands}


def _whole(amount: int, weights: Mapping[str, int], turn: int) -> dict[str, int]:
    """An amount divided by weights into whole numbers; what is left over goes round by turns."""
    total = sum(weights.values())
    parts = {name: amount * weight // total for name, weight in weights.items()}
    rest = amount - sum(parts.values())
    if rest == 0:
        return parts
    if all(parts.values()):
        turn = 0  # everybody has some: moving the rest about would only cost its cooling
    # Turns are as frequent as what is left of each part is large, so that in the long run everybody has exactly its part.
    left = {name: amount * weight % total for name, weight in weights.items()}
    unit = math.gcd(*left.values())
    wheel = [name for name, points in left.items() for _ in range(points // unit)]
    start = turn * rest % len(wheel)
    for name in list(dict.fromkeys(wheel[start:] + wheel[:start]))[:rest]:
        parts[name] += 1
    return parts
