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


def of_route(listener: str, hostnames: Iterable[str]) -> list[str]:
    """Return those hostnames of a route that have hosts of a listener; [""] for a route without hostnames, [] for none.

    They are as the route has them, also if the listener is narrower, because the more specific of two routes wins by its
    own hostnames. What a listener takes of a wider one is only its own hosts.
    """
    return list(dict.fromkeys(one for one in hostnames or [""] if meet(one, listener)))
