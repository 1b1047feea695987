"""What a plug-in learns of the account that it calls, told to the engine, which shares it with every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Notice:
    """Why an account makes us wait: a stable dotted code, its own words, and which of its limits is used up, where it says so."""

    code: str
    reason: str
    limit: str | None = None


class Quota(Protocol):
    """The account's budget as a plug-in sees it. Calls return at once."""

    def used(
        self,
        used: int,
        limit: int,
        seconds_to_reset: float | None = None,
        *,
        name: str = "",
        ask_again: float | None = None,
    ) -> None:
        """The account says that `used` of `limit` requests of its day are gone, and are counted anew in so many seconds.

        `name` is what the account calls this limit. Where it does not say when it counts anew, `ask_again` is after how many seconds
        what it said is to be asked for once more: until then nobody sends anything over the limit.
        """

    def spend(self, requests: int) -> None:
        """So many requests were made besides the one that each `write` counts as."""

    def hold(self, seconds: float, notice: Notice | None = None) -> None:
        """The account asks for a pause. What a verdict or an error names (`Retry.after`) needs no other word."""


class NoQuota:
    """Nobody counts."""

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

    def spend(self, requests: int) -> None:
        """See `Quota`."""

    def hold(self, seconds: float, notice: Notice | None = None) -> None:
        """See `Quota`."""


NO_QUOTA = NoQuota()
