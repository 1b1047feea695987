"""The gate of a pipeline at its account's budget, and what its plug-in may tell of the account."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from trunkline.bus.budget.account import Account
from trunkline.bus.budget.turns import Turn
from trunkline.bus.delivery.gates import HOLD_LIMIT, clock_time
from trunkline.core.cause import Cause
from trunkline.core.event import Event
from trunkline.core.quota import Notice
from trunkline.core.verdicts import Retry, Verdict

WORTH_SAYING = 1.0
"""Seconds of waiting from which on it is part of a pipeline's status."""


class BudgetGate:
    """A `Gate`. Where nothing is limited it costs a look at a few attributes."""

    def __init__(self, account: Account, turn: Turn) -> None:
        self.account = account
        self._turn = turn
        self._since: float | None = None
        """Since when it waits, in Unix seconds, as far as somebody looked."""

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
                notice = Notice(verdict.code, verdict.reason, verdict.limit)
                self.account.hold(min(verdict.after, HOLD_LIMIT), notice)
        return False

    def watch(self, opened: Callable[[], None]) -> Callable[[], None]:
        """See `Gate`."""
        loop = asyncio.get_running_loop()

        def soon() -> None:
            # Not at once: whoever wakes may himself be about to begin a call.
            loop.call_soon(opened)

        self._turn.opened.append(soon)
        return lambda: self._turn.opened.remove(soon)

    def cause(self) -> Cause | None:
        """See `Gate`. A wait of less than WORTH_SAYING is none: a limit a second makes everyone wait a little."""
        wait = self.account.wait()
        if wait < WORTH_SAYING or not self.account.waits(self._turn):
            self._since = None
            return None
        now, why = time.time(), self.account.reason()
        self._since = self._since if self._since is not None else now
        return Cause(
            why.code,
            f"waiting for the budget of {self.account.name} until {clock_time(now + wait)}: {why.reason}",
            hint="nothing is lost, and it goes on by itself: `trunkline budget list` shows who uses what of it",
            since=self._since,
            next_try=now + wait,
            account=self.account.name,
            limit=why.limit,
        )


class AccountQuota:
    """What a plug-in tells of the account; see `trunkline.core.quota.Quota`."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def used(
        self,
        used: int,
        limit: int,
        seconds_to_reset: float | None = None,
        *,
        name: str = "",
        ask_again: float | None = None,
    ) -> None:
        """See `Quota`."""
        self._account.state(used, limit, seconds_to_reset if seconds_to_reset is not None else ask_again, name)

    def spend(self, requests: int) -> None:
        """See `Quota`."""
        self._account.besides(requests)

    def hold(self, seconds: float, notice: Notice | None = None) -> None:
        """See `Quota`."""
        self._account.hold(min(seconds, HOLD_LIMIT), notice)
