"""Several ways to authenticate at one route: the sources demand all of them, and the language one of them by default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xds_server.imports.draft import Draft

_METHODS = ("api_key", "basic_auth", "jwt", "mtls", "oidc")


def require_all(draft: Draft) -> None:
    """Demand all methods at each route that has several. Where every method is optional, any of them is right."""
    sets, everywhere = draft.sections.get("policy_sets", {}), draft.sections.get("policies", {})
    for route in draft.sections.get("routes", {}).values():
        levels = (
            everywhere,
            *(sets.get(name, {}) for name in route.get("use", ())),
            route.get("policies", {}),
        )
        found = {key: level[key] for level in levels for key in _METHODS if key in level}
        if len(found) > 1 and not all(map(_is_optional, found.values())):
            route.setdefault("policies", {})["authentication"] = "all"


def _is_optional(settings: Any) -> bool:
    return isinstance(settings, Mapping) and settings.get("optional") is True
