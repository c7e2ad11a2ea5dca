"""The scalars of the language: durations, sizes, rates and percentages. Every parser raises ValueError."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, NewType, cast

Size = NewType("Size", int)
"""Bytes, written ``10KB`` (1000) or ``10KiB`` (1024)."""

Period = Literal["second", "minute", "hour", "day", "month"]

Percent = NewType("Percent", float)
"""0 to 100, written ``10%``."""


class FromVariable(str):
    """A whole value that came from the environment: read as `plain` if that fits, else as this text.

    So ``port: "${PORT}"`` is a number, although YAML reads everything in quotes as a text.
    """

    plain: Any

    @classmethod
    def of(cls, text: str, plain: Any) -> FromVariable:
        """The `text`, and `plain`, which is the value that YAML reads if the text has no quotes."""
        value = cls(text)
        value.plain = plain
        return value


_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_UNITS = {"us": 1, "ms": 1000, "s": 10**6, "m": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?")
_SIZES = {"": 1, "B": 1} | {
    f"{letter}{suffix}": base ** (power + 1)
    for power, letter in enumerate("KMGT")
    for suffix, base in (("B", 1000), ("iB", 1024))
}
PERIODS: dict[Period, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "month": 30 * 86400}
"""Seconds of each period. A month is a calendar month; this number is only used to compare windows."""
_RATE = re.compile(r"(\d[\d_]*)\s*/\s*(second|minute|hour|day|month)")
_AMOUNT = re.compile(r"(.+?)\s*/\s*(second|minute|hour|day|month)")

LONGEST = timedelta(days=3650)
"""The longest duration that the language accepts. The maximum of Envoy's own fields is not far above."""


def _finite(digits: str) -> float:
    """A finite number. Raises ValueError if it is too large for a float."""
    if len(digits) > 30:
        raise ValueError("this number has too many digits")
    return float(digits)


@dataclass(frozen=True, slots=True)
class Rate:
    """An amount in each period: ``1000/hour``, or bytes as in ``100MB/day``."""

    amount: int
    per: Period

    def __str__(self) -> str:
        return f"{self.amount}/{self.per}"


def duration(value: object) -> timedelta:
    """Parse ``250ms``, ``5s``, ``1h30m``. Only ``0`` needs no unit. Raises ValueError."""
    if isinstance(value, str):
        return _duration(value)
    if value == 0 and not isinstance(value, bool):
        return timedelta(0)
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"a duration needs a unit: write {value}s or {value}ms")
    raise ValueError(_SHAPE)


_SHAPE = "write a duration such as 250ms, 5s, 2m or 1h"


@lru_cache(maxsize=1024)
def _duration(text: str) -> timedelta:
    total, end = 0.0, 0
    for match in _DURATION.finditer(text):
        if match.start() != end:
            break
        total += _finite(match[1]) * _UNITS[match[2]]
        end = match.end()
    if not text or end != len(text):
        raise ValueError(_SHAPE)
    if total > LONGEST.total_seconds() * 10**6:
        raise ValueError(f"a duration is at most {LONGEST.days}d")
    return timedelta(microseconds=round(total))


def size(value: object) -> Size:
    """Parse ``10KB``, ``10KiB`` or a number of bytes into bytes. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Size(value)
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError("write a size such as 10KB (1000 bytes each) or 10KiB (1024)")
    return Size(round(_finite(match[1]) * _SIZES[match[2] or ""]))


def percent(value: object) -> Percent:
    """Parse ``10%`` or ``0.5%`` into 0 to 100. Raises ValueError."""
    text = value.strip() if isinstance(value, str) else ""
    try:
        number = float(text.removesuffix("%")) if text.endswith("%") else -1.0
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise ValueError("write a percentage from 0% to 100%")
    return Percent(number)


def rate(value: object) -> Rate:
    """Parse ``1000/hour``. Raises ValueError."""
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"write a rate such as 1000/hour; the periods are {', '.join(PERIODS)}")
    return Rate(int(match[1].replace("_", "")), cast("Period", match[2]))


def byte_rate(value: object) -> Rate:
    """Parse ``100MB/day`` into bytes of each period. Raises ValueError."""
    match = _AMOUNT.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"write bytes of a period such as 100MB/day; the periods are {', '.join(PERIODS)}")
    return Rate(size(match[1]), cast("Period", match[2]))
