"""Routes that the gateway itself answers: keys that need an upstream have no place there, and some policies no effect."""

from __future__ import annotations

from filters.language import Problem
from xds_server.imports.draft import Draft

_OF_UPSTREAMS = ("rewrite", "mirror", "retry", "hedge", "session_affinity", "websocket", "max_body")
_WITHOUT_EFFECT = frozenset({"rate_limit", "quota", "concurrency", "cache", "validate", "transform"})
"""Policies that the gateway applies only to requests that go to an upstream."""


def adjust(draft: Draft) -> None:
    """Take away what `xds check` would reject, and report the policies among it."""
    for name, route in draft.sections.get("routes", {}).items():
        if "respond" not in route and "redirect" not in route:
            continue
        for key in _OF_UPSTREAMS:
            route.pop(key, None)
        policies = route.get("policies", {})
        for key in sorted(_WITHOUT_EFFECT & policies.keys()):
            del policies[key]
            draft.problems.append(
                Problem(
                    path=("routes", name, "policies", key),
                    message="the gateway itself answers the requests of this route, so it is left out",
                    remedy="write it again if the route gets an upstream",
                    severity="warning",
                )
            )
        if not policies:
            route.pop("policies", None)
