"""Where the windows of the calendar end, in any time zone. Moments are whole microseconds of Unix time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from filters.language.scalars import PERIODS, Period

SECOND = 1_000_000
LENGTHS: dict[Period, int] = {period: seconds * SECOND for period, seconds in PERIODS.items()}
"""Microseconds of each period; a month that does not follow the calendar has 30 days."""


def end_of(now: int, per: Period, zone: str) -> int:
    """The end of the calendar's window around `now`: the first moment that is no longer in it.

    Raises ZoneInfoNotFoundError for an unknown zone.
    """
    length = LENGTHS[per]
    if per in ("second", "minute") or (zone == "UTC" and per != "month"):
        return now - now % length + length
    return _local_end(now // SECOND, per, zone) * SECOND


@lru_cache(maxsize=1024)
def _local_end(now: int, per: Period, zone: str) -> int:
    """The same in seconds, for periods that begin with the local hour, day or month."""
    where = _zone(zone)
    local = datetime.fromtimestamp(now, where)
    if per == "hour":
        # By the offset that holds now: an hour that daylight saving repeats is two windows of an hour.
        offset = round((local.utcoffset() or timedelta()).total_seconds())
        return now - (now + offset) % 3600 + 3600
    year, month, day = local.year, local.month, local.day
    if per == "month":
        following = (year + month // 12, month % 12 + 1, 1)
    else:
        next_day = datetime(year, month, day, tzinfo=UTC) + timedelta(days=1)
        following = (next_day.year, next_day.month, next_day.day)
    # fold 0: of a midnight that comes twice the first, and of one that is left out the moment of the change.
    end = int(datetime(*following, tzinfo=where).timestamp())
    return end if end > now else int(datetime(*following, tzinfo=where, fold=1).timestamp())


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
