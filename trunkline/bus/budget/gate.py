"""The gate of a pipeline at its account's budget, and what its plug-in may tell of the account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from trunkline.bus.budget.account import Account
from trunkline.bus.budget.turns import Turn
from trunkline.bus.delivery.gates import HOLD_LIMIT
from trunkline.core.event import Event
from trunkline.core.verdicts import Retry, Verdict

WORTH_SAYING = 1.0
"""Seconds of waiting from which on it is part of a pipeline's status: a limit a second makes everyone wait a little."""


class BudgetGate:
    """A `Gate`. Where nothing is limited it costs a look at a few attributes."""

    def __init__(self, account: Account, turn: Turn) -> None:
        self.account = account
        self._turn = turn

    def delay(self, records: int) -> float:
        """See `Gate`."""
        return self.account.delay(self._turn)

    def started(self, records: int) -> None:
        """See `Gate`."""
        self.account.begin(self._turn)

    def ended(self, events: Sequence[Event], verdicts: Sequence[Verdict]) -> bool:
        """See `Gate`. A wait that the account names is everyone's."""
        self.account.end()
        for verdict in verdicts:
            if isinstance(verdict, Retry) and verdict.after is not None:
                self.account.hold(min(verdict.after, HOLD_LIMIT))
        return False

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """See `Gate`."""
        loop = asyncio.get_running_loop()

        def soon() -> None:
            # Not at once: whoever wakes may himself be about to begin a call.
            loop.call_soon(opened)

        self._turn.opened.append(soon)
        return lambda: self._turn.opened.remove(soon)

    @property
    def waiting(self) -> str:
        """What the pipeline waits for, in words; empty where it does not wait for the budget now."""
        wait = self.account.wait()
        if wait < WORTH_SAYING or not self.account.waits(self._turn):
            return ""
        until = datetime.fromtimestamp(time.time() + wait, UTC).strftime("%H:%M:%SZ")
        return f"waiting for the budget of {self.account.name} until {until}"


class AccountQuota:
    """What a plug-in tells of the account; see `trunkline.core.quota.Quota`."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def used(self, used: int, limit: int, seconds_to_reset: float | None = None) -> None:
        """See `Quota`."""
        self._account.state(used, limit, seconds_to_reset)

    def spend(self, requests: int) -> None:
        """See `Quota`."""
        self._account.besides(requests)

    def hold(self, seconds: float) -> None:
        """See `Quota`."""
        self._account.hold(min(seconds, HOLD_LIMIT))
