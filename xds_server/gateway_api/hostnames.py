"""Hostnames of listeners and routes: exact (`a.example.com`), or a wildcard (`*.example.com`) for any subdomain."""

from __future__ import annotations

from collections.abc import Iterable


def covers(wide: str, narrow: str) -> bool:
    """True if every host of `narrow` is one of `wide`. An empty name stands for all hosts."""
    if not wide or wide == narrow:
        return True
    return wide.startswith("*.") and narrow.removeprefix("*").endswith(wide[1:])


def meet(one: str, other: str) -> bool:
    """True if some host belongs to both."""
    return covers(one, other) or covers(other, one)


def intersection(listener: str, hostnames: Iterable[str]) -> list[str]:
    """Return the hosts of a listener that a route with these hostnames takes; [""] for all hosts, [] for none."""
    names = list(hostnames)
    if not names:
        return [listener]
    narrower = [listener if covers(name, listener) else name for name in names if meet(name, listener)]
    return list(dict.fromkeys(narrower))
