"""Limits and lists of addresses of Traefik: durations of Go, rates, and what holds if two middlewares of a router say it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

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


def add_limit(policies: dict[str, Any], limit: dict[str, Any]) -> None:
    """Add a limit to those of a route: all hold. Of two that count the same, the smaller numbers hold."""
    known = policies.get("rate_limit", [])
    limits = known if isinstance(known, list) else [known]
    for one in limits:
        if (one["per"], one["by"]) == (limit["per"], limit["by"]):
            one |= {key: min(one[key], limit[key]) for key in ("requests", "burst")}
            return
    policies["rate_limit"] = [*limits, limit] if limits else limit


def in_both(some: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the networks of addresses that are in one of both lists. A text that is no network has no addresses."""
    pairs = [
        (one, other) for one in _networks(some) for other in _networks(others) if one.version == other.version
    ]
    found = [
        one if one.prefixlen >= other.prefixlen else other for one, other in pairs if one.overlaps(other)
    ]
    return list(dict.fromkeys(map(str, found)))


def _networks(texts: Sequence[str]) -> Iterator[IPv4Network | IPv6Network]:
    for one in texts:
        with contextlib.suppress(ValueError):
            yield ip_network(one, strict=False)
