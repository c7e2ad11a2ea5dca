"""Rates of Traefik, with the durations of Go."""

from __future__ import annotations

import re

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
"""The units of durations of Go."""
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


def seconds(text: str) -> float:
    """Return a duration of Go (`1m30s`), or a number of seconds, in seconds; 1 if it is neither."""
    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
    try:
        return (
            sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else float(text)
        ) or 1.0
    except ValueError:
        return 1.0


def rate(requests: float, period: float) -> tuple[int, str]:
    """Return requests in a period of seconds as a number in the smallest window in which it is whole, or in a day."""
    for unit, seconds in _UNITS.items():
        number = requests * seconds / period
        if number >= 1 and abs(number - round(number)) < 1e-6:
            return round(number), unit
    return max(1, int(requests * _UNITS["day"] / period)), "day"
