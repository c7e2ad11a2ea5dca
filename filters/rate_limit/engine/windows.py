"""The ends of calendar windows in any time zone. Moments are whole microseconds of Unix time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

from filters.language.scalars import PERIODS, Period

SECOND = 1_000_000
Window = Period | Literal["week", "year"]
"""The periods of the language, and those that only an Envoy with another configuration may send with a descriptor."""
LENGTHS: dict[Window, int] = {
    **{period: seconds * SECOND for period, seconds in PERIODS.items()},
    "week": 7 * 86_400 * SECOND,
    "year": 365 * 86_400 * SECOND,
}
"""Microseconds of each window. A month that does not follow the calendar has 30 days, a year 365."""


def end_of(now: int, per: Window, zone: str) -> int:
    """The end of the calendar window around `now`: the first moment after it.

    Raises ZoneInfoNotFoundError for an unknown zone.
    """
    length = LENGTHS[per]
    if has_even_windows(per, zone):
        return now - now % length + length
    return _local_end(now // SECOND, per, zone) * SECOND


def has_even_windows(per: Window, zone: str) -> bool:
    """True if all windows have the same length and one begins at Unix time 0."""
    return per in ("second", "minute") or (zone == "UTC" and per in ("hour", "day"))


@lru_cache(maxsize=1024)
def _local_end(now: int, per: Window, zone: str) -> int:
    """The end in seconds, for periods that begin with the local hour, day, Monday, month or year."""
    where = _zone(zone)
    local = datetime.fromtimestamp(now, where)
    if per == "hour":
        # The present offset counts, so an hour that daylight saving time repeats is two windows of an hour.
        offset = round((local.utcoffset() or timedelta()).total_seconds())
        return now - (now + offset) % 3600 + 3600
    year, month, day = local.year, local.month, local.day
    if per == "year":
        following = (year + 1, 1, 1)
    elif per == "month":
        following = (year + month // 12, month % 12 + 1, 1)
    else:
        days = 7 - local.weekday() if per == "week" else 1
        next_day = datetime(year, month, day, tzinfo=UTC) + timedelta(days=days)
        following = (next_day.year, next_day.month, next_day.day)
    # fold 0 means the first of a midnight that occurs twice, and the moment of the change if midnight is skipped.
    end = int(datetime(*following, tzinfo=where).timestamp())
    return end if end > now else int(datetime(*following, tzinfo=where, fold=1).timestamp())


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
