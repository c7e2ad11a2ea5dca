"""Warnings of methods of an upstream that several routes expose with different access policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import re2

from filters.language import Problem
from filters.language.options import OFF
from filters.pipeline import POLICIES
from filters.policy import Context, Levels, Policy, Stage
from xds_server.gateway.model.gateway import FileRoutes
from xds_server.gateway.model.policies import by_key
from xds_server.gateway.model.precedence_rank import Ranked
from xds_server.gateway.model.routes import Route

_ACCESS = (Stage.ACCESS, Stage.AUTHENTICATE, Stage.AUTHORIZE, Stage.LIMIT)
_PAGES = frozenset(("cors", "csrf", "limit_headers", "usage"))
"""Policies of these stages that are about web pages and reports. They differ between REST and gRPC."""


class _Exposed(NamedTuple):
    """A route, its effective policies, and the methods that it exposes."""

    name: str
    route: Route
    settings: Mapping[str, Any]
    methods: tuple[str, ...]


def check(files: Sequence[FileRoutes], context: Context) -> Iterator[Problem]:
    """Yield a warning for each two routes through which a caller reaches the same method with different policies."""
    exposed = list(_exposed(files, context))
    if not exposed:
        return
    exposed += _passing(files, exposed)
    for number, one in enumerate(exposed):
        for other in exposed[:number]:
            same = [method for method in one.methods if method in other.methods]
            if same and not set(one.route.targets).isdisjoint(other.route.targets):
                differing = sorted(_differing(one.settings, other.settings))
                if differing:
                    yield _warning(one, other, same, differing)


def _exposed(files: Iterable[FileRoutes], context: Context) -> Iterator[_Exposed]:
    for file in files:
        for name, settings in file.policies.items():
            for key in _exposing().intersection(settings):
                if settings[key] is not OFF:
                    found = tuple(by_key()[key].exposes(settings[key], context))
                    yield _Exposed(name, file.ranked[name].route, settings, found)


def _passing(files: Iterable[FileRoutes], exposed: Sequence[_Exposed]) -> list[_Exposed]:
    """Return the other routes to the same upstreams that get calls of the methods by gRPC clients."""
    known = {one.name for one in exposed}
    methods: dict[str, dict[str, None]] = {}
    for one in exposed:
        for target in one.route.targets:
            methods.setdefault(target, {}).update(dict.fromkeys(one.methods))
    takers: dict[str, list[tuple[Ranked, Mapping[str, Any]]]] = {}
    for file in files:
        for name, ranked in file.ranked.items():
            route = ranked.route
            wanted = dict.fromkeys(method for target in route.targets for method in methods.get(target, ()))
            if wanted and (not route.methods or "POST" in route.methods):
                path = re2.compile(route.match.regex)
                for method in wanted:
                    if path.fullmatch(f"/{method}"):
                        takers.setdefault(method, []).append((ranked, file.policies[name]))
    found: dict[str, _Exposed] = {}
    for method, some in takers.items():
        for ranked, settings in some:
            if ranked.name not in known and not any(_before(other, ranked) for other, _ in some):
                before = found[ranked.name].methods if ranked.name in found else ()
                found[ranked.name] = _Exposed(ranked.name, ranked.route, settings, (*before, method))
    return [found[name] for name in sorted(found)]


def _before(one: Ranked, other: Ranked) -> bool:
    """True if one route takes all requests for a path that both have."""
    conditions = one.route.headers or one.route.query or one.route.listeners
    return not conditions and one.rank < other.rank and set(one.hosts) >= set(other.hosts)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for policy in POLICIES:
        key = policy.key
        if (
            policy.stage in _ACCESS
            and key not in _PAGES
            and _written(one.get(key)) != _written(other.get(key))
        ):
            yield key


def _written(settings: Any) -> Any:
    """The settings as they were written: limits without the place where they count."""
    if isinstance(settings, Levels):
        return [limit for _, limit in settings.places] or None
    return None if settings is OFF else settings


def _warning(one: _Exposed, other: _Exposed, same: Sequence[str], differing: Sequence[str]) -> Problem:
    more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
    return Problem(
        path=("routes", one.name),
        message=f"the method {same[0]}{more} can also be called by the route '{other.name}', which has other policies: "
        + ", ".join(differing),
        remedy="give both routes the same policies, or leave the method out of one",
        at_key=True,
        severity="warning",
    )


@cache
def _exposing() -> frozenset[str]:
    """Return the keys of policies that expose methods."""
    return frozenset(policy.key for policy in POLICIES if type(policy).exposes is not Policy.exposes)
