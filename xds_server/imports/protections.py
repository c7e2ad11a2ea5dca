"""What protects a route: policies that decide who may call, limits, and answers that reject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xds_server.imports.draft import CLOSED, COUNTED, Draft

DECIDING = frozenset(
    ("jwt", "api_key", "basic_auth", "mtls", "oidc", "authorize", "ip_access", "csrf", "ext_authz")
)
"""Policies that decide who may call."""
_REJECTION = 400


def decides(draft: Draft, route: Mapping[str, Any]) -> bool:
    """Whether a route rejects, or has a policy of its own or of a set that decides who may call."""
    return rejects(route) or bool(DECIDING & policies_of(draft, route).keys())


def rejects(route: Mapping[str, Any]) -> bool:
    """Whether a route answers every request with an error."""
    return bool(route.get("respond", {}).get("status", 200) >= _REJECTION)


def policies_of(draft: Draft, route: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policies of a route and of its sets. Those of all routes are not among them."""
    sets = draft.sections.get("policy_sets", {})
    found: dict[str, Any] = {}
    for level in (*(sets.get(name, {}) for name in route.get("use", ())), route.get("policies", {})):
        found |= level
    return found


def lacks(draft: Draft, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Return the protections of one route that another one does not have."""
    mine, theirs = policies_of(draft, one), policies_of(draft, other)
    if rejects(other) or theirs.get("ip_access") == CLOSED["ip_access"]:
        return []
    if rejects(one):
        return [f"respond {one['respond']['status']}"]
    return sorted(key for key in (DECIDING | COUNTED) & mine.keys() if theirs.get(key) != mine[key])
