"""Upstreams of Kong with their targets and health checks."""

from __future__ import annotations

import re
from typing import Any

from xds_server.imports.draft import Draft, duration
from xds_server.imports.source import Field

_IGNORED = ("id", "tags", "created_at", "updated_at", "ws_id")
"""Keys that change nothing of what a gateway does."""
_BALANCING = {
    "round-robin": "round_robin",
    "least-connections": "least_request",
    "latency": "least_request",
    "consistent-hashing": "ring_hash",
}
_PORT = 8000
_WEIGHT, _MOST_WEIGHT = 100, 1000
"""The weight of a target without one, and the largest weight of our endpoints."""


def ignore(field: Field) -> None:
    """Read the keys that every object has and that change nothing."""
    for name in _IGNORED:
        field.read(name)


def balanced(upstream: Field, draft: Draft) -> dict[str, Any]:
    """Return an upstream with several targets."""
    ignore(upstream)
    value: dict[str, Any] = {"endpoints": _endpoints(upstream)}
    algorithm = upstream.text("algorithm", default="round-robin")
    if _BALANCING.get(algorithm, "round_robin") != "round_robin":
        value["load_balancing"] = _BALANCING[algorithm]
    if hashed := upstream.get("hash_on"):
        hashed.read()
        draft.warn(
            hashed,
            "the key of consistent hashing belongs to routes here",
            "write session_affinity at the routes",
        )
    if check := _active(upstream.get("healthchecks", "active")):
        value["health_check"] = check
    passive = upstream.get("healthchecks", "passive")
    if passive is not None:
        if failures := passive.number("unhealthy", "http_failures"):
            value["outlier_detection"] = {"consecutive_5xx": int(failures)}
        passive.read()
    return value


def _endpoints(upstream: Field) -> list[Any]:
    """Return the targets that get traffic. Weights up to 65535 become weights up to 1000."""
    found: list[tuple[str, float]] = []
    for one in upstream.elements("targets"):
        ignore(one)
        address, weight = one.text("target"), one.number("weight")
        if weight != 0:
            address = address if re.search(r":\d+$", address) else f"{address}:{_PORT}"
            found.append((address, _WEIGHT if weight is None else weight))
    if len({weight for _, weight in found}) <= 1:
        return [address for address, _ in found]
    scale = max(1.0, max(weight for _, weight in found) / _MOST_WEIGHT)
    return [{"address": address, "weight": max(1, round(weight / scale))} for address, weight in found]


def _active(active: Field | None) -> dict[str, Any]:
    """Return the health check, which is empty if there is none: without an interval Kong checks nothing."""
    interval = active.number("healthy", "interval") if active is not None else None
    if active is None or not interval:
        if active is not None:
            active.read()
        return {}
    check: dict[str, Any] = {"interval": duration(interval * 1000)}
    tcp = active.text("type", default="http") == "tcp"
    check |= {"type": "tcp"} if tcp else {"path": active.text("http_path", default="/")}
    if timeout := active.number("timeout"):
        check["timeout"] = duration(timeout * 1000)
    if successes := active.number("healthy", "successes"):
        check["healthy_after"] = int(successes)
    failures = active.number("unhealthy", "http_failures") or active.number("unhealthy", "tcp_failures")
    if failures:
        check["unhealthy_after"] = int(failures)
    if statuses := active.numbers("healthy", "http_statuses"):
        check["expected_statuses"] = sorted(statuses)
    for name in ("concurrency", "unhealthy"):
        active.read(name)
    return check
