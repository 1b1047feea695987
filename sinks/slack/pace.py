"""Pacing: the least time between two messages to one channel (https://docs.slack.dev/apis/web-api/rate-limits)."""

from __future__ import annotations

import asyncio

_KEPT = 1000
"""Channels whose times are remembered; the oldest go first."""


class Pace:
    """Lets one message a channel through every `interval` seconds, in the order that they came."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._next: dict[str, float] = {}

    async def turn(self, channel: str) -> None:
        """Waits for the channel's next free moment and takes it."""
        wait = self.reserve(channel, asyncio.get_running_loop().time())
        if wait > 0:
            await asyncio.sleep(wait)

    def reserve(self, channel: str, now: float) -> float:
        """Takes the channel's next free moment, and returns how many seconds after `now` it is."""
        start = max(now, self._next.pop(channel, now))
        self._keep(channel, start + self._interval)
        return start - now

    def hold(self, channel: str, seconds: float, now: float) -> None:
        """Lets nothing through to the channel until `seconds` after `now`: Slack said so."""
        until = now + seconds
        self._keep(channel, max(until, self._next.pop(channel, until)))

    def _keep(self, channel: str, moment: float) -> None:
        self._next[channel] = moment
        if len(self._next) > _KEPT:
            del self._next[next(iter(self._next))]
