"""What one worker may send of what it was granted: a check without input, output or waiting. Times are the worker's own monotonic ones.

A share of `per_second` is so many *tokens*. A token is taken when a request begins, and comes back a second after its answer (or
after `LATE`, the latest that it reached the account). So two requests with one token reach the account at least a second
apart, however their ways differ: in no second does the account count more requests than there are tokens.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Literal

from trunkline.bus.budget.standing import LATE

Short = Literal["second", "concurrent", "requests"]
"""What a worker has too little of."""


class Spending:
    """The slices of one worker on one account. None stands for what is not limited."""

    def __init__(self) -> None:
        self.second: int | None = None
        self.second_ends = -math.inf
        self.concurrent: int | None = None
        self.concurrent_granted = 0
        """What others count on us to have under way at the most; `concurrent` is lower while we come down."""
        self.concurrent_ends = -math.inf
        self.allow: int | None = None
        self.allow_ends = -math.inf
        self.spent = 0
        self.in_flight = 0
        self.most_busy = 0
        """The most tokens that were taken at once, and calls under way at once, since somebody set these to 0."""
        self.most_in_flight = 0
        self._flying: deque[float] = deque()
        self._cooling: deque[float] = deque()
        self._late = 0
        """Calls without an answer whose request has reached the account for certain: their tokens come back without it."""
        self._closed_until = -math.inf

    def close_until(self, until: float) -> None:
        """No token is there before."""
        self._closed_until = max(self._closed_until, until)

    def wait(self, now: float) -> tuple[float, Short | None]:
        """Seconds until the next call may begin (infinite: not before another slice or the end of a call), and what is short."""
        if self.concurrent is not None and (now >= self.concurrent_ends or self.in_flight >= self.concurrent):
            return math.inf, "concurrent"
        if self.allow is not None and (now >= self.allow_ends or self.spent >= self.allow):
            return math.inf, "requests"
        if self.second is None:
            return 0.0, None
        if now < self._closed_until:
            return self._closed_until - now, None
        if now >= self.second_ends or self.second == 0:
            return math.inf, "second"
        if self.busy(now) < self.second:
            return 0.0, None
        return max(0.001, self._next_token() - now), "second"

    def begin(self, now: float) -> None:
        """A call begins: one request, unless `besides` says more."""
        self.spent += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        if self.second is not None:
            self._flying.append(now)
            self.most_busy = max(self.most_busy, len(self._flying) + len(self._cooling))

    def end(self, now: float) -> None:
        """A call ended."""
        self.in_flight -= 1
        self.busy(now)
        # Whose call it was does not matter: taking the oldest away leaves the younger ones, which come back later.
        if self._late:
            self._late -= 1
        elif self._flying:
            self._flying.popleft()
            self._cooling.append(now + 1.0)

    def besides(self, requests: int, now: float) -> None:
        """Requests that a call made besides its first: they are counted when they have been made, and so may exceed."""
        self.spent += requests
        if self.second is not None:
            self._cooling.extend([now + 1.0] * requests)

    def busy(self, now: float) -> int:
        """The tokens that are taken."""
        while self._flying and self._flying[0] + LATE <= now:
            self._cooling.append(self._flying.popleft() + LATE + 1.0)
            self._late += 1
        while self._cooling and self._cooling[0] <= now:
            self._cooling.popleft()
        return len(self._flying) + len(self._cooling)

    def _next_token(self) -> float:
        """When a token comes back at the earliest, if nothing is answered before."""
        cooling = self._cooling[0] if self._cooling else math.inf
        flying = self._flying[0] + LATE + 1.0 if self._flying else math.inf
        return min(cooling, flying)
