"""Which of several routes wins: the most specific one, by the rules of the Gateway API's HTTPRoute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xds_server.gateway.model.routes import Route

Condition = tuple[Any, ...]
_KINDS = {"exact": 0, "template": 1, "regex": 2, "prefix": 3}
_NONE: frozenset[Any] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """A route with what decides between it and others, worked out once.

    `condition` is what a request must look like but for the host, the listener and the method; `rank` sorts the
    routes of one host: the smaller wins.
    """

    name: str
    route: Route
    hosts: tuple[str, ...]
    condition: Condition
    rank: tuple[Any, ...]


def ranked(routes: Mapping[str, Route]) -> dict[str, Ranked]:
    """All routes with their ranks."""
    return {
        name: Ranked(name, route, _hosts(route), _condition(route), _rank(name, route))
        for name, route in routes.items()
    }


def _rank(name: str, route: Route) -> tuple[Any, ...]:
    """Exact path, template, regex, longest prefix; then a method, the number of headers, of query parameters, the name.

    Among templates the one with more literal text wins, among regular expressions the longer one.
    """
    match = route.match
    literal = len(match.value) - sum(len(part) + 2 for part in match.names)
    return (
        _KINDS[match.kind],
        -literal,
        not route.methods,
        -len(route.headers),
        -len(route.query),
        name,
    )


def _hosts(route: Route) -> tuple[str, ...]:
    """The hosts of a route as Envoy compares them."""
    return tuple(dict.fromkeys(map(str.lower, route.hosts))) if route.hosts else ("*",)


def _condition(route: Route) -> Condition:
    match = route.match
    path = match.regex if match.kind == "template" else match.value
    headers = (
        frozenset((name.lower(), one) for name, one in route.headers.items()) if route.headers else _NONE
    )
    return (match.kind, path, headers, frozenset(route.query.items()) if route.query else _NONE)
