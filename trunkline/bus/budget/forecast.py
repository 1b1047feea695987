"""How much of a budget is left, and when it will be used up."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from trunkline.bus.budget.account import Account
from trunkline.bus.budget.standing import Standing
from trunkline.core.metrics import end_series, gauge

LATELY = 300.0
"""Seconds whose consumption is expected to go on."""


def seconds_left(left: int, spent_a_second: float, refill_a_second: float) -> float:
    """Seconds until nothing is left at this rate of spending; infinite where as much comes back."""
    if left <= 0:
        return 0.0
    burn = spent_a_second - refill_a_second
    return left / burn if burn > 0 else math.inf


class Forecast:
    """Expects of an account what it did lately. Times are the brokers'."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, standing: Standing, now: float) -> None:
        """Notes how much was spent by now."""
        self._seen.append((now, sum(holder.spent for holder in standing.holders.values())))
        while len(self._seen) > 2 and self._seen[1][0] <= now - LATELY:
            self._seen.popleft()

    def exhausted(self, standing: Standing, now: float) -> dict[str, float]:
        """Seconds until each limited length of time is used up."""
        found = {}
        for window, left in standing.left(now).items():
            refill = (standing.limits.per_minute or 0) / 60 if window == "minute" else 0.0
            found[window] = seconds_left(left, self._rate(), refill)
        return found

    def _rate(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return max(0, after - before) / max(last - first, 1.0)


class BudgetMetrics:
    """The metrics of the accounts that are limited."""

    def __init__(self) -> None:
        self._forecasts: dict[str, Forecast] = {}

    def forget(self, account: str) -> None:
        """Nobody uses it any more."""
        self._forecasts.pop(account, None)
        end_series(account=account)

    def update(self, accounts: Iterable[Account]) -> None:
        """Sets them as of now."""
        for account in accounts:
            if not account.synced or not (account.active or account.name in self._forecasts):
                continue
            now = account.now
            forecast = self._forecasts.setdefault(account.name, Forecast())
            forecast.see(account.standing, now)
            gauge("trunkline_budget_waiting").labels(account.name).set(len(account.waiting))
            for window, left in account.standing.left(now).items():
                gauge("trunkline_budget_remaining").labels(account.name, window).set(max(0, left))
            for window, seconds in forecast.exhausted(account.standing, now).items():
                gauge("trunkline_budget_exhausted_seconds").labels(account.name, window).set(seconds)
