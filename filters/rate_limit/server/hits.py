"""The hits of a request on its limits: the key of each counter and its cost, from the entries of a descriptor."""

from __future__ import annotations

from collections.abc import Mapping

from filters.model.limits import GRAPHQL, MOST
from filters.rate_limit.engine.decision import Hit
from filters.rate_limit.engine.keys import bounded
from filters.rate_limit.envoy import descriptors
from filters.rate_limit.limit_rules import Counted

Entries = Mapping[str, str]


def key(counted: Counted, entries: Entries) -> str:
    """The key of a request's counter.

    A missing value counts as empty, so omitting a header does not evade the limit.
    """
    return "|".join([counted.base, *(_value(one, entries) for one in counted.by or ("consumer",))])


def _value(by: str, entries: Entries) -> str:
    if by == "consumer" and descriptors.CONSUMER in entries:
        return f"consumer={entries[descriptors.CONSUMER]}"
    if by in ("consumer", "ip"):
        return f"ip={entries.get(descriptors.ADDRESS, '')}"
    if entries.get(by) == descriptors.UNUSABLE:
        return f"{by}%unusable"
    # Escaped, so that a client cannot send a value that gives another client's key.
    value = bounded(entries.get(by, "")).replace("%", "%25").replace("|", "%7C")
    return f"{by}={value}"


def hit_before(counted: Counted, entries: Entries) -> Hit:
    """The hit of a request that begins. Its cost is 0 if the cost is known only at the end."""
    if counted.limit.unit == "concurrent-requests":
        return Hit(counted.limit, key(counted, entries), 1, _lease(entries))
    cost = 0 if counted.afterwards else _cost(counted, entries)
    return Hit(counted.limit, key(counted, entries), cost)


def _lease(entries: Entries) -> str:
    """The name of a request's slot: the name that a Check gave it, or the entries that identify the request."""
    if descriptors.LEASE in entries:
        return entries[descriptors.LEASE]
    names = (descriptors.CONNECTION, descriptors.BEGAN, descriptors.REQUEST_ID)
    return "/".join(entries.get(name, "") for name in names)


def _cost(counted: Counted, entries: Entries) -> int:
    """The cost of a request. A header that is missing, or not a whole number of at least 1, means the fixed cost.

    A cost above the largest limit is reduced to it, so no counter grows beyond the numbers that every store can hold.
    """
    text = entries.get(counted.cost_header, "") if counted.cost_header else ""
    if text.isascii() and text.isdigit():
        digits = text.lstrip("0")
        return MOST if len(digits) > len(str(MOST)) else min(MOST, max(1, int(digits or "0")))
    return counted.cost


def hit_after(counted: Counted, entries: Entries) -> Hit:
    """The hit of a request that has ended, of a limit that counts afterwards."""
    if counted.limit.unit == "content-bytes":
        cost = sum(_size(one, entries) for one in _directions(counted.direction))
    elif counted.statuses and not _counts(counted, entries):
        cost = 0
    elif counted.cost_header == GRAPHQL and not entries.get(GRAPHQL, "").strip("0"):
        cost = 0  # no operation was executed
    else:
        cost = _cost(counted, entries)
    return Hit(counted.limit, key(counted, entries), cost)


def _counts(counted: Counted, entries: Entries) -> bool:
    status = entries.get(descriptors.STATUS, "")
    return status.isdigit() and int(status) in counted.statuses


def _directions(direction: str) -> tuple[str, ...]:
    both = {"in": (descriptors.RECEIVED,), "out": (descriptors.SENT,)}
    return both.get(direction, (descriptors.RECEIVED, descriptors.SENT))


def _size(name: str, entries: Entries) -> int:
    text = entries.get(name, "")
    return int(text) if text.isdigit() else 0
