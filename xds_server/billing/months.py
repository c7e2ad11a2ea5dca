"""Months in UTC, written as ``2026-11``. It reads no clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from xds_server.marketplace.errors import Invalid


def checked(text: str) -> str:
    """Return a month. Raises Invalid."""
    if not re.fullmatch(r"2\d{3}-(0[1-9]|1[0-2])", text):
        raise Invalid("write a month such as 2026-11", "period")
    return text


def begin(month: str) -> int:
    """Return the first second of a month, in Unix time."""
    return int(datetime(int(month[:4]), int(month[5:]), 1, tzinfo=UTC).timestamp())


def after(month: str) -> str:
    """Return the next month."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year + number // 12}-{number % 12 + 1:02}"


def before(month: str) -> str:
    """Return the month before."""
    year, number = int(month[:4]), int(month[5:])
    return f"{year - (number == 1)}-{(number - 2) % 12 + 1:02}"


def end(month: str) -> int:
    """Return the first second after a month, in Unix time."""
    return begin(after(month))


def of(seconds: float) -> str:
    """Return the month of a moment."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m")
