"""The parts of timestamps and durations: `getHours()` and the like, with an optional time zone."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache, partial
from typing import Any
from zoneinfo import ZoneInfo

from trunkline.core.expressions.values import CelError, no_overload

_OFFSET = re.compile(r"([+-]?)([0-9]{2}):([0-9]{2})")
_CYCLE = timedelta(days=146_097)
"""400 years, after which the Gregorian calendar repeats itself with its days of the week."""

_SECOND, _MILLISECOND = timedelta(seconds=1), timedelta(milliseconds=1)


def zone(name: str) -> tzinfo:
    """A zone by its IANA name or its offset (`-08:00`). Raises `CelError` for an unknown one."""
    if name in {"", "UTC"}:
        return UTC
    found = _OFFSET.fullmatch(name)
    if found is not None:
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        if int(found[3]) > 59 or offset >= timedelta(hours=24):
            raise CelError("the offset of a time zone is hours and minutes, as in -08:00")
        return timezone(-offset if found[1] == "-" else offset)
    where = _named(name) if len(name) <= 100 else None
    if where is None:
        raise CelError(f"unknown time zone {name[:40]!r}")
    return where


@lru_cache(maxsize=1024)  # there are some 600, and names that are none are asked for again as often as others
def _named(name: str) -> tzinfo | None:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        return None


def _local(moment: Any, what: str, zone_name: Any) -> tuple[datetime, int]:
    """The moment in a zone, and the years to add to it: in the year 1 or 9999 a zone may lead out of what Python can hold."""
    if type(moment) is not datetime or type(zone_name) is not str:
        raise no_overload(what, moment, zone_name)
    where = zone(zone_name)
    try:
        return moment.astimezone(where), 0
    except OverflowError:
        early = moment.year < 5000
        return (moment + _CYCLE if early else moment - _CYCLE).astimezone(where), -400 if early else 400


def _date_part(what: str, read: Callable[[datetime], int], moment: Any, zone_name: Any = "UTC") -> int:
    return read(_local(moment, what, zone_name)[0])


def _year(moment: Any, zone_name: Any = "UTC") -> int:
    local, years = _local(moment, "getFullYear", zone_name)
    return local.year + years


def _time_part(
    what: str, of_moment: Callable[[datetime], int], unit: timedelta, value: Any, zone_name: Any = None
) -> int:
    """Of a timestamp the part within its minute, hour or day; of a duration the whole of it in that unit, cut towards zero."""
    if type(value) is timedelta and zone_name is None:
        return value // unit if value >= timedelta(0) else -(-value // unit)
    return of_moment(_local(value, what, "UTC" if zone_name is None else zone_name)[0])


PARTS: dict[str, Callable[..., int]] = {
    "getFullYear": _year,
    "getMonth": partial(_date_part, "getMonth", lambda at: at.month - 1),
    "getDate": partial(_date_part, "getDate", lambda at: at.day),
    "getDayOfMonth": partial(_date_part, "getDayOfMonth", lambda at: at.day - 1),
    "getDayOfWeek": partial(_date_part, "getDayOfWeek", lambda at: at.isoweekday() % 7),
    "getDayOfYear": partial(_date_part, "getDayOfYear", lambda at: at.timetuple().tm_yday - 1),
    "getHours": partial(_time_part, "getHours", lambda at: at.hour, timedelta(hours=1)),
    "getMinutes": partial(_time_part, "getMinutes", lambda at: at.minute, timedelta(minutes=1)),
    "getSeconds": partial(_time_part, "getSeconds", lambda at: at.second, _SECOND),
    "getMilliseconds": partial(_time_part, "getMilliseconds", lambda at: at.microsecond // 1000, _MILLISECOND),
}
"""By name. Months, days of the month, of the week (Sunday is 0) and of the year count from 0, and `getDate` from 1, as CEL has it."""
