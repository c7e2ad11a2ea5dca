"""Routes whose `authorize` names callers that nobody identifies: the source rejects all of their requests."""

from __future__ import annotations

from typing import Any

from filters.language import Problem
from xds_server.imports.draft import CLOSED, Draft
from xds_server.imports.protections import policies_of

_WAYS = frozenset(("jwt", "api_key", "basic_auth", "mtls", "oidc"))
_OF_CALLERS = frozenset(("consumers", "plans", "scopes", "claims"))
"""Keys of a rule of `authorize` that need a caller."""


def close(draft: Draft) -> None:
    """Close such routes, and report them."""
    of_all = draft.sections.get("policies", {})
    for name, route in draft.sections.get("routes", {}).items():
        policies = {**of_all, **policies_of(draft, route)}
        if _WAYS & policies.keys() or not _names_callers(policies.get("authorize")):
            continue
        own = route.setdefault("policies", {})
        own.pop("authorize", None)
        if _names_callers({**of_all, **policies_of(draft, route)}.get("authorize")):
            own["authorize"] = "off"
        own |= CLOSED
        draft.problems.append(
            Problem(
                path=("routes", name),
                message="callers are named, and nothing that is imported identifies them, so the route is closed",
                remedy="write a way to authenticate and authorize, and remove ip_access",
            )
        )


def _names_callers(rules: Any) -> bool:
    found = rules if isinstance(rules, list) else [rules]
    return any(isinstance(one, dict) and bool(_OF_CALLERS & one.keys()) for one in found)
