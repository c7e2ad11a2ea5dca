"""What the language rejects of a Gateway: the objects at fault are left out, and what they protect answers with 500."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from filters.language import Problem
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.policy_specs import SECTIONS
from xds_server.gateway_api.translation import GatewayFiles

_ROUTES = ("routes", "stream_routes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The rest of a Gateway. `told` says what is wrong with the objects at fault, by kind and key."""

    files: GatewayFiles
    told: Mapping[tuple[str, Key], str]


def without(files: GatewayFiles, problems: Iterable[Problem]) -> Rejected:
    """Return a Gateway without the objects at which problems are. Nothing is told if none is at an object.

    A route answers with 500 or closes its connections, and so do the routes of a GatewayPolicy. Consumers, Plans and IdentityProviders are left out,
    so that what refers to them has a problem of its own, and nobody is let in by them.
    """
    files_of = {
        (section, name): file
        for file, values in files.files.items()
        for section, objects in values.items()
        for name in objects
    }
    told: dict[tuple[str, Key], str] = {}
    routes: set[str] = set()
    sets: set[str] = set()
    gone: set[str] = set()
    for one in problems:
        section, name = (*map(str, one.path[:2]), "", "")[:2]
        file = files_of.get((section, name))
        origin = files.origins.get(file) if file is not None else None
        if file is None or origin is None or section not in (*_ROUTES, *SECTIONS.values()):
            continue
        told.setdefault((origin.kind, origin.meta.key), _told(one))
        if section in _ROUTES:
            routes.add(name)
            continue
        gone.add(file)
        if section == "policy_sets":
            sets.add(name)
    kept = {file: values for file, values in files.files.items() if file not in gone}
    routes |= set(_using(kept.values(), sets))
    return Rejected(files=replace(files, files=kept).rejecting(routes), told=told)


def _told(problem: Problem) -> str:
    return f"{problem.message}; {problem.remedy}" if problem.remedy else problem.message


def _using(files: Iterable[Mapping[str, Any]], sets: set[str]) -> Iterable[str]:
    """Return the routes that use one of these policy sets."""
    return (
        name
        for values in files
        for name, route in values.get("routes", {}).items()
        if sets.intersection(route.get("use", ()))
    )
