"""The effective policies of every route: those of the portal, of the gateway, of sets, and its own; the nearest wins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from operator import is_
from typing import Any

from filters.model.cors import CorsSettings
from xds_server.gateway.files import File
from xds_server.gateway.model.gateway import FileRoutes, Sections
from xds_server.gateway.model.policies import NONE, Policies, merge
from xds_server.gateway.model.portal import NO_PORTAL, Portal
from xds_server.gateway.model.routes import Route

_ANY = ("*",)


def of_portal(portal: Portal) -> Policies:
    """Return the policies of routes of the catalogue that others override: the portal's pages may call them.

    Pages send no cookies. They may send and read every header, because an API may have any.
    """
    if portal.origin is None or not portal.calls_other_origin:
        return NONE
    cors = CorsSettings(
        allow_origins=(portal.origin,), allow_methods=_ANY, allow_headers=_ANY, expose_headers=_ANY
    )
    return Policies({"cors": cors})


class EffectivePolicies:
    """Merges policies. The result for a file is the same object as before if nothing of its routes changed."""

    def __init__(self) -> None:
        self._portal, self._outermost = NO_PORTAL, NONE
        self._everywhere: tuple[Policies, Mapping[str, Any]] = (NONE, merge(("gateway", NONE)))
        """The policies of the gateway, and the effective policies of a route without others."""
        self._files: dict[str, tuple[tuple[object, ...], frozenset[str], FileRoutes]] = {}

    def of(
        self, parsed: Mapping[str, File], sections: Sections, published: Collection[str]
    ) -> tuple[FileRoutes, ...]:
        """Return the routes of each file with their effective policies. `published` are the routes of the catalogue."""
        if self._portal is not sections.portal:
            self._portal, outermost = sections.portal, of_portal(sections.portal)
            self._outermost = self._outermost if dict(outermost) == dict(self._outermost) else outermost
        if self._everywhere[0] is not sections.policies:
            self._everywhere = (sections.policies, merge(("gateway", sections.policies)))
        found = {}
        for name, file in parsed.items():
            inputs = (file, sections.policies, sections.policy_sets, self._outermost)
            routes = file.sections.get("routes", {})
            own = frozenset(one for one in published if one in routes) if self._outermost else frozenset()
            known = self._files.get(name)
            if known is None or known[1] != own or not all(map(is_, known[0], inputs)):
                known = (inputs, own, self._of_file(file, sections, own))
            found[name] = known
        self._files = found
        return tuple([known[2] for known in found.values()])

    def _of_file(self, file: File, sections: Sections, published: Collection[str]) -> FileRoutes:
        routes = file.sections.get("routes", {})
        policies = {
            name: self._effective(name, route, sections, self._outermost if name in published else NONE)
            for name, route in routes.items()
        }
        used: dict[str, dict[int, Any]] = {}
        for settings in {id(settings): settings for settings in policies.values()}.values():
            for key, value in settings.items():
                used.setdefault(key, {})[id(value)] = value
        return FileRoutes(ranked=file.ranked, policies=policies, used=used)

    def _effective(
        self, name: str, route: Route, sections: Sections, outermost: Policies
    ) -> Mapping[str, Any]:
        own = dict(route.policies) if route.policies is not NONE else {}
        for key in ("request_headers", "response_headers"):
            if getattr(route, key) is not None:
                own[key] = getattr(route, key)
        if not own and not route.use and not outermost:
            return self._everywhere[1]
        sets = [
            (f"set/{used}", sections.policy_sets[used]) for used in route.use if used in sections.policy_sets
        ]
        return merge(("portal", outermost), ("gateway", sections.policies), *sets, (f"route/{name}", own))
