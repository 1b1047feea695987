"""What a plug-in learns of the account that it calls, told to the engine, which shares it with every worker."""

from __future__ import annotations

from typing import Protocol


class Quota(Protocol):
    """The account's budget as a plug-in sees it. Calls return at once."""

    def used(self, used: int, limit: int, seconds_to_reset: float | None = None) -> None:
        """The account says that `used` of `limit` requests of its day are gone, and are counted anew in so many seconds."""

    def spend(self, requests: int) -> None:
        """So many requests were made besides the one that each `write` counts as."""

    def hold(self, seconds: float) -> None:
        """The account asks for a pause. What a verdict or an error names (`Retry.after`) needs no other word."""


class NoQuota:
    """Nobody counts."""

    def used(self, used: int, limit: int, seconds_to_reset: float | None = None) -> None:
        """See `Quota`."""

    def spend(self, requests: int) -> None:
        """See `Quota`."""

    def hold(self, seconds: float) -> None:
        """See `Quota`."""


NO_QUOTA = NoQuota()
