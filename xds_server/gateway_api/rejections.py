"""What the language rejects of a Gateway: the objects at fault are left out, and what they protect answers with 500."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from filters.language import Problem
from xds_server.gateway_api.gateway_files import UPSTREAMS_FILE, GatewayFiles
from xds_server.gateway_api.objects import Key
from xds_server.gateway_api.policy_specs import SECTIONS

_ROUTES = ("routes", "stream_routes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """The rest of a Gateway. `told` says what is wrong with the objects at fault, by kind and key."""

    files: GatewayFiles
    told: Mapping[tuple[str, Key], str]


def without(files: GatewayFiles, problems: Iterable[Problem]) -> Rejected:
    """Return a Gateway without the objects at which problems are. Nothing is told if none is at an object.

    A route at fault answers with 500, or closes its connections. So do all routes to an upstream at fault, which is left out. If it does so already, what is wrong are its conditions, and
    it is left out. The routes of a GatewayPolicy at fault answer with 500; if its settings do not agree with some of its routes,
    only these do. Consumers, Plans and IdentityProviders are left out, so that what refers to them has a problem of its own,
    and nobody is let in by them.
    """
    file_of = {
        (section, name): file
        for file, values in files.files.items()
        for section, objects in values.items()
        for name in objects
    }
    problems = list(problems)
    told: dict[tuple[str, Key], str] = {}
    closed: set[str] = set()
    gone: set[str] = set()
    lost = {
        str(one.path[1]): _told(one) for one in problems if one.path[:1] == ("upstreams",) and one.path[1:]
    }
    for name, message in lost.items():
        for route in _to(files, name):
            origin = files.origin(route)
            if origin is not None:
                told.setdefault((origin.kind, origin.meta.key), message)
                closed.add(route)
    for section, name, message in _blamed(problems, files):
        file = file_of.get((section, name))
        origin = files.origins.get(file) if file is not None else None
        if file is None or origin is None:
            continue
        told.setdefault((origin.kind, origin.meta.key), message)
        if section in _ROUTES:
            closed.add(name)
        elif section in SECTIONS.values():
            gone.add(file)
            closed |= _using(files, name) if section == "policy_sets" else set()
    kept = {file: values for file, values in files.files.items() if file not in gone}
    if lost:
        upstreams = kept[UPSTREAMS_FILE]["upstreams"]
        kept[UPSTREAMS_FILE] = {"upstreams": {key: one for key, one in upstreams.items() if key not in lost}}
    rest = replace(files, files=kept)
    return Rejected(files=rest.leaving_out(closed & rest.failing_routes()).rejecting(closed), told=told)


def _blamed(problems: Iterable[Problem], files: GatewayFiles) -> Iterator[tuple[str, str, str]]:
    """Yield the section and name of each object that is at fault, with what is wrong."""
    routes: dict[tuple[str, str], dict[str, str]] = {}
    for one in problems:
        section, name = (*map(str, one.path[:2]), "", "")[:2]
        if one.route:
            routes.setdefault((section, name), {})[one.route] = _told(one)
        else:
            yield section, name, _told(one)
    for (section, name), found in routes.items():
        if section == "policy_sets" and found.keys() >= _using(files, name):
            yield section, name, next(iter(found.values()))
        else:
            yield from (("routes", route, f"{section}.{name}: {message}") for route, message in found.items())


def _told(problem: Problem) -> str:
    return f"{problem.message}; {problem.remedy}" if problem.remedy else problem.message


def _to(files: GatewayFiles, upstream: str) -> Iterator[str]:
    """Yield the routes that name an upstream."""
    for values in files.files.values():
        for section in _ROUTES:
            for route, one in values.get(section, {}).items():
                if _mentions(one, upstream):
                    yield route


def _mentions(value: Any, name: str) -> bool:
    """True if a name is among the keys and texts of a value."""
    if isinstance(value, Mapping):
        return any(key == name or _mentions(one, name) for key, one in value.items())
    return any(_mentions(one, name) for one in value) if isinstance(value, list | tuple) else value == name


def _using(files: GatewayFiles, name: str) -> set[str]:
    """Return the routes that use a policy set."""
    return {
        route
        for values in files.files.values()
        for route, one in values.get("routes", {}).items()
        if name in one.get("use", ())
    }
