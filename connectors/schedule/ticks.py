"""The moments a schedule names. Pure: the same schedule gives the same moments, whoever asks and whenever."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_LOOK_BACK = timedelta(hours=1)

Moments = Callable[[datetime], Iterator[datetime]]
"""All moments after the given one, in order, as aware UTC."""


def cron_moments(expression: str, zone: str) -> Moments:
    """The moments of a cron expression in a time zone, with Debian cron's rule for daylight saving time.

    A fixed hour that is skipped in spring ticks right after the gap, and one that occurs twice in autumn ticks once; an hour
    given as `*` or a step follows the clock on the wall through both.
    """
    place = ZoneInfo(zone)

    def after(moment: datetime) -> Iterator[datetime]:
        for found in CronSim(expression, moment.astimezone(place)):
            tick = found.astimezone(UTC)
            # Moments around a change of the clock may come out at or before the start; they belong to the past.
            if tick > moment:
                yield tick

    return after


def every_moments(seconds: float) -> Moments:
    """The multiples of `seconds` since the Unix epoch, to the millisecond."""
    step = timedelta(milliseconds=round(seconds * 1000))

    def after(moment: datetime) -> Iterator[datetime]:
        tick = EPOCH + ((moment - EPOCH) // step + 1) * step
        while True:
            yield tick
            tick += step

    return after


def newest(moments: Moments, after: datetime, until: datetime, limit: int) -> tuple[list[datetime], bool]:
    """The last `limit` moments in (`after`, `until`], oldest first, and whether there are older ones that were left out.

    Looks back over growing spans, so that a schedule of seconds that slept for a year costs no more than `limit` asks for.
    """
    span = _FIRST_LOOK_BACK
    while True:
        start = max(after, until - span)
        found = deque(takewhile(lambda tick: tick <= until, moments(start)), maxlen=limit + 1)
        if len(found) > limit:
            return list(found)[1:], True
        if start == after:
            return list(found), False
        span *= 4
