"""What holds if two rules of a source protect the same route: both limits, and the addresses that both allow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

from xds_server.imports.draft import CLOSED


def both_addresses(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the `ip_access` that lets a client pass if both do."""
    denied = list(dict.fromkeys([*one.get("deny", ()), *other.get("deny", ())]))
    lists = [each["allow"] for each in (one, other) if "allow" in each]
    allowed = in_both(*lists) if len(lists) > 1 else [text for each in lists for text in each]
    if lists and not allowed:
        return dict(CLOSED["ip_access"])
    return {**({"allow": allowed} if allowed else {}), **({"deny": denied} if denied else {})}


def add_limit(policies: dict[str, Any], limit: dict[str, Any]) -> None:
    """Add a limit to those of a route: all hold. Of two that count the same, the smaller numbers hold."""
    known = policies.get("rate_limit", [])
    limits = known if isinstance(known, list) else [known]
    for one in limits:
        if all(one.get(key) == limit.get(key) for key in ("per", "by", "scope")):
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
