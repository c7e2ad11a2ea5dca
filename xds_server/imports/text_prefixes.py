"""Prefixes of text: in the sources `/x` also has `/xy`, and here `/x/*` has only `/x` and what is below it.

Where such a route decides who may call, a second route has the other paths. Otherwise a wider route would have them, and let
requests pass that the source rejects.
"""

from __future__ import annotations

import re
from typing import Any

from xds_server.imports.draft import COUNTED, Draft

TEXT = "_text_prefix"
"""The key by which an importer notes the prefix of a route, until `protect` takes it away."""
_DECIDING = frozenset(
    ("jwt", "api_key", "basic_auth", "mtls", "oidc", "authorize", "ip_access", "csrf", "ext_authz")
)
_REJECTION = 400


def protect(draft: Draft) -> None:
    """Add the second routes."""
    for name, route in [*draft.sections.get("routes", {}).items()]:
        text = route.pop(TEXT, None)
        if text is not None and decides(draft, route):
            _share_limits(draft, name, route)
            draft.add("routes", f"{name}-more", _with_other_paths(route, text))


def _share_limits(draft: Draft, name: str, route: dict[str, Any]) -> None:
    """Count both routes together: limits of a policy set do."""
    policies = route.get("policies", {})
    counted = {key: policies.pop(key) for key in COUNTED & policies.keys()}
    if counted:
        route["use"] = [*route.get("use", ()), draft.add("policy_sets", f"{name}-limits", counted)]


def decides(draft: Draft, route: dict[str, Any]) -> bool:
    """Whether a route rejects, or has a policy of its own or of a set that decides who may call."""
    sets = draft.sections.get("policy_sets", {})
    levels = (*(sets.get(name, {}) for name in route.get("use", ())), route.get("policies", {}))
    rejects = route.get("respond", {}).get("status", 200) >= _REJECTION
    return rejects or any(_DECIDING & level.keys() for level in levels)


def _with_other_paths(route: dict[str, Any], text: str) -> dict[str, Any]:
    """Return the route for the paths that begin with the text, and are not below it."""
    more = {**route, "path": f"~^{re.escape(text)}[^/].*$"}
    rewrite = dict(more.pop("rewrite", {}))
    if path := rewrite.pop("path", ""):
        rewrite |= {"regex": f"^{re.escape(text)}", "substitution": path.removesuffix("/*") or "/"}
    if rewrite:
        more["rewrite"] = rewrite
    if "path" in more.get("redirect", {}):
        more["redirect"] = {key: one for key, one in more["redirect"].items() if key != "path"}
    return more
